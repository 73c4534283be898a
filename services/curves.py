"""A job's figures over its steps as a chart can show them: of each stretch the lowest and the highest value.

However long a training was, a series has at most `points` points. Rows are read in the order of the primary key and
never all held, so that a hundred thousand of them cost a fraction of a second and no memory.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from services import views
from services.database import Database
from services.tables import Metric
from services.tokens import Principal

MOST_POINTS = 1000  # of a series; a chart is narrower than that
ROWS_AT_ONCE = 5000


class Point(NamedTuple):
    """One figure. value: NaN or infinite where a run said so."""

    step: int
    epoch: int
    value: float


def reduced(
    database: Database,
    principal: Principal,
    job_id: str,
    names: Sequence[str] = (),
    *,
    points: int = MOST_POINTS,
    smoothing: float = 0.0,
) -> dict[str, list[Point]]:
    """Series of a job by name, all or those of `names`, each of at most `points` points in the order of steps.

    smoothing: weight of what came before in an exponential mean, 0 (none) to below 1; it is taken over every point
    before their number is reduced. Raises NotFound.
    """
    with database.read(in_parts=True) as session:
        views.require_job(session, principal, job_id)
        return _reduced(session, [job_id], names, points, smoothing).get(job_id, {})


def reduced_of(
    database: Database, principal: Principal, job_ids: Sequence[str], names: Sequence[str], *, points: int
) -> dict[str, dict[str, list[Point]]]:
    """`reduced` of several jobs, by id, of those that somebody sees."""
    seen = views.visible_among(database, principal, job_ids)
    with database.read(in_parts=True) as session:
        return _reduced(session, seen, names, points)


def _reduced(
    session: Session, job_ids: Collection[str], names: Sequence[str], points: int, smoothing: float = 0.0
) -> dict[str, dict[str, list[Point]]]:
    counting = select(Metric.job_id, Metric.name, func.count()).group_by(Metric.job_id, Metric.name)
    counting = counting.where(Metric.job_id.in_(job_ids), *([Metric.name.in_(names)] if names else []))
    found: dict[str, dict[str, list[Point]]] = {}
    connection = session.connection()  # the session would look at each row once more
    for job_id, name, count in connection.execute(counting.order_by(Metric.job_id, Metric.name)).all():
        rows = connection.execute(_SERIES, {"job_id": job_id, "name": name})
        drawn = smoothed(rows, smoothing) if smoothing > 0 else rows
        found.setdefault(job_id, {})[name] = list(extremes(drawn, count, points))
    return found


_SERIES = (
    select(Metric.step, Metric.epoch, Metric.value)
    .where(Metric.job_id == bindparam("job_id"), Metric.name == bindparam("name"))
    .order_by(Metric.step)
    .execution_options(yield_per=ROWS_AT_ONCE)
)
Row = Sequence[Any]
"""Step, epoch and value, which is None where a database has no NaN. Only those that are kept are made `Point`s."""


def smoothed(series: Iterable[Row], weight: float) -> Iterator[Row]:
    """The exponential mean of a series, corrected for its beginning. Values that are not finite pass uncounted."""
    mean, norm = 0.0, 0.0
    for row in series:
        step, epoch, value = row
        if value is None or not math.isfinite(value):
            yield row
            continue
        mean, norm = weight * mean + (1 - weight) * value, weight * norm + (1 - weight)
        yield step, epoch, mean / norm


def extremes(series: Iterable[Row], count: int, most: int) -> Iterator[Point]:
    """At most `most` of about `count` points: the first, the last, and of each stretch between them the lowest, the
    highest and one that is not finite. A short series comes whole. most: at least 5."""
    left = iter(series)
    if count <= most:
        yield from map(_point, islice(left, most))
        return
    yield from map(_point, islice(left, 1))
    stretches = (most - 2) // 3
    length, last, last_told = -(-count // stretches), None, None
    for number in range(1, stretches + 1):
        # A run may have said more since its points were counted: they join the last stretch.
        stretch = list(left if number == stretches else islice(left, length))
        for place in _chosen(stretch):
            last_told = stretch[place]
            yield _point(last_told)
        last = stretch[-1] if stretch else last
    if last is not None and last is not last_told:
        yield _point(last)


def _point(row: Row) -> Point:
    step, epoch, value = row
    return Point(step, epoch, math.nan if value is None else value)


def _chosen(stretch: Sequence[Row]) -> list[int]:
    """The places of a stretch's lowest and highest value and of the first that is not finite, in order."""
    values = [math.nan if row[2] is None else row[2] for row in stretch]
    finite = values
    chosen = set()
    if not all(map(math.isfinite, values)):
        chosen.add(next(place for place, value in enumerate(values) if not math.isfinite(value)))
        finite = [value for value in values if math.isfinite(value)]
    if finite:
        chosen |= {values.index(min(finite)), values.index(max(finite))}
    return sorted(chosen)
