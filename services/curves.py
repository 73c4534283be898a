"""A job's figures over its steps as a chart can show them: of each stretch the lowest and the highest value.

However long a training was, a series has at most `points` points. Rows are read in the order of the primary key and
never all held, so that a hundred thousand of them cost a fraction of a second and no memory.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import NamedTuple

from sqlalchemy import func, select

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
    chosen = [Metric.job_id == job_id, *([Metric.name.in_(names)] if names else [])]
    counting = select(Metric.name, func.count()).where(*chosen).group_by(Metric.name)
    query = select(Metric.name, Metric.step, Metric.epoch, Metric.value).where(*chosen)
    query = query.order_by(Metric.name, Metric.step).execution_options(yield_per=ROWS_AT_ONCE)
    found: dict[str, list[Point]] = {}
    with database.read(in_parts=True) as session:
        views.require_job(session, principal, job_id)
        counts = {name: count for name, count in session.execute(counting)}
        # From the connection: the session would look at each row once more.
        for name, rows in groupby(session.connection().execute(query), key=itemgetter(0)):
            said = (Point(step, epoch, math.nan if value is None else value) for _, step, epoch, value in rows)
            drawn = smoothed(said, smoothing) if smoothing > 0 else said
            found[name] = list(extremes(drawn, counts.get(name, 0), points))
    return found


def smoothed(series: Iterable[Point], weight: float) -> Iterator[Point]:
    """The exponential mean of a series, corrected for its beginning. Values that are not finite pass uncounted."""
    mean, norm = 0.0, 0.0
    for point in series:
        if not math.isfinite(point.value):
            yield point
            continue
        mean, norm = weight * mean + (1 - weight) * point.value, weight * norm + (1 - weight)
        yield Point(point.step, point.epoch, mean / norm)


def extremes(series: Iterable[Point], count: int, most: int) -> Iterator[Point]:
    """At most `most` of about `count` points: the first, the last, and of each stretch between them the lowest, the
    highest and one that is not finite. A short series comes whole. most: at least 5."""
    left = iter(series)
    if count <= most:
        yield from islice(left, most)
        return
    yield from islice(left, 1)
    stretches = (most - 2) // 3
    length, last, last_told = -(-count // stretches), None, None
    for number in range(1, stretches + 1):
        # A run may have said more since its points were counted: they join the last stretch.
        stretch = list(left if number == stretches else islice(left, length))
        for last_told in _chosen(stretch):
            yield last_told
        last = stretch[-1] if stretch else last
    if last is not None and last is not last_told:
        yield last


def _chosen(stretch: list[Point]) -> list[Point]:
    values = [point.value for point in stretch]
    kept = []
    if not all(map(math.isfinite, values)):
        kept = [next(point for point in stretch if not math.isfinite(point.value))]
        stretch = [point for point in stretch if math.isfinite(point.value)]
        values = [point.value for point in stretch]
    if stretch:
        kept += [stretch[values.index(min(values))], stretch[values.index(max(values))]]
    return sorted(set(kept), key=lambda point: point.step)
