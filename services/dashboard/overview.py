"""`/overview`: what runs, what waits and why, what failed lately, and how the service is doing."""

from typing import Any

from flask import Blueprint, render_template

from services import forecast, overview, views
from services.asking import context, reader
from services.curves import reduced
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
    workers, day = views.list_workers(database), last_day(database)
    return render_template(
        template("overview"),
        running=[{**job, "spark": _spark(job)} for job in running],
        waiting=[{**job, "queue": _queue(job)} for job in waiting],
        failed=failed,
        counts=views.count_states(database, principal),
        workers=workers,
        jobs=visible_jobs(workers),
        day=day,
        lengths=_lengths(day),
        waits=_waits(day),
        storage=stored(database),
    )


def _queue(job: dict[str, Any]) -> dict[str, Any] | None:
    return forecast.look_ahead(context().database, job["id"], context().settings.running_per_user)


def _spark(job: dict[str, Any]) -> dict[str, str] | None:
    """A running training's curve as a small line, and in words."""
    for name, words in SHOWN:
        series = reduced(context().database, reader(), job["id"], [name], points=SPARK_POINTS).get(name, [])
        if points := sparkline([point.value for point in series]):
            return {"points": points, "words": f"{words} {series[-1].value:.3f}"}
    return None


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
