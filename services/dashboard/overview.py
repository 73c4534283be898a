"""`/overview`: what runs, what waits and why, what failed lately, and how the service is doing."""

from flask import Blueprint, render_template

from services import forecast, overview, views
from services.asking import context, reader
from services.curves import reduced_of
from services.dashboard.drawing import Bar, bars, sparkline
from services.dashboard.formatting import duration
from services.dashboard.lists import template, visible_jobs
from services.views import JobFilter

routes = Blueprint("overview", __name__)
MOST_RUNNING, MOST_WAITING, MOST_FAILED = 12, 5, 5
SPARK_POINTS = 40
SHOWN = (("validation_balanced_accuracy", "balanced accuracy"), ("train_loss", "loss"))
last_day = overview.Remembered(overview.last_day, most=60)
stored = overview.Remembered(overview.storage, most=300)


@routes.get("/overview")
def page() -> str:
    database, principal = context().database, reader()
    states = (("running", MOST_RUNNING), ("queued", MOST_WAITING), ("failed", MOST_FAILED))
    running, waiting, failed = (
        views.list_jobs(database, principal, JobFilter(state=state), limit=most).items for state, most in states
    )
    sparks = _sparks([job["id"] for job in running])
    most_running = context().settings.running_per_user
    queues = forecast.look_ahead_of(database, [job["id"] for job in waiting], most_running)
    workers, day = views.list_workers(database), last_day(database)
    return render_template(
        template("overview"),
        running=[{**job, "spark": sparks.get(job["id"])} for job in running],
        waiting=[{**job, "queue": queues.get(job["id"])} for job in waiting],
        failed=failed,
        counts=views.count_states(database, principal),
        workers=workers,
        jobs=visible_jobs(workers),
        day=day,
        lengths=_lengths(day),
        waits=_waits(day),
        storage=stored(database),
    )


def _sparks(job_ids: list[str]) -> dict[str, dict[str, str]]:
    """Running trainings' curves as small lines, and in words, by id: of each the first of `SHOWN` that can be drawn."""
    found: dict[str, dict[str, str]] = {}
    for name, words in SHOWN:
        left = [job_id for job_id in job_ids if job_id not in found]
        if not left:
            break
        for job_id, series in reduced_of(context().database, reader(), left, [name], points=SPARK_POINTS).items():
            if points := sparkline([point.value for point in series[name]]):
                found[job_id] = {"points": points, "words": f"{words} {series[name][-1].value:.3f}"}
    return found


def _lengths(day: list[overview.Hour]) -> list[Bar]:
    return bars([(hour.waiting, f"{_when(hour)}: {hour.waiting} waiting") for hour in day])


def _waits(day: list[overview.Hour]) -> list[Bar]:
    told = []
    for hour in day:
        words = f"{duration(hour.mean_wait)} on average, {duration(hour.longest_wait)} at most, {hour.begun} begun"
        told.append((hour.mean_wait or 0, f"{_when(hour)}: {words if hour.begun else 'none begun'}"))
    return bars(told)


def _when(hour: overview.Hour) -> str:
    return "the last hour" if hour.ago == 0 else f"{hour.ago} h ago"
