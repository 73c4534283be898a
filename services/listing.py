"""Which rows a page of a list shows: keyset pages along indexes, so that the last is as fast as the first."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Boolean, ColumnElement, and_, or_, select, union_all
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased
from sqlalchemy.sql.functions import FunctionElement

from services.tables import Dataset, Job

SORTS: dict[str, tuple[tuple[InstrumentedAttribute[Any], ...], bool]] = {
    "newest": ((Job.id,), True),
    "oldest": ((Job.id,), False),
    "name": ((Job.name, Job.id), False),
    "owner": ((Job.created_by, Job.id), False),
    "priority": ((Job.priority, Job.id), True),
}
"""Orders of a list of jobs: columns of which the last is unique, and whether the largest comes first."""


HIDDEN = "trial"  # a kind of job that answers one request, and of which nothing is shown


@dataclass(frozen=True)
class JobFilter:
    """Which jobs are asked for. None: all. q: words that all stand in the name, in any case."""

    state: str | None = None
    kind: str | None = None
    dataset: str | None = None
    q: str | None = None
    parent: str | None = None
    created_by: str | None = None
    project: str | None = None
    sort: str = "newest"  # one of SORTS


@dataclass(frozen=True)
class DatasetFilter:
    """Which data sets are asked for. None: all. q: as of jobs."""

    state: str | None = None
    format: str | None = None
    q: str | None = None
    created_by: str | None = None


def job_ids(
    session: Session, places: Sequence[str] | None, wanted: JobFilter, cursor: str | None, limit: int
) -> list[str]:
    """The ids of at most so many jobs that come after the job `cursor` in the filter's order; without a parent in the
    filter those that have none.

    places: the projects whose jobs are seen; None: all. Only ids are read here, newest first in the order of an index
    that has what is asked for; rows are large. Several projects, and the several data sets of a name, have an index
    entry each: the page is the newest of their pages.
    """
    columns, descending = SORTS[wanted.sort]
    order = [column.desc() if descending else column.asc() for column in columns]
    query = select(Job.id).where(*_conditions(wanted)).order_by(*order).limit(limit)
    if cursor:
        query = query.where(_after(columns, descending, cursor))
    pages = [query] if places is None else [query.where(Job.project == place) for place in places]
    if wanted.dataset is not None:
        datasets = session.scalars(select(Dataset.id).where(named(wanted.dataset))).all()
        pages = [page.where(Job.dataset_id == dataset_id) for page in pages for dataset_id in datasets]
    if len(pages) <= 1:
        return [job_id for page in pages for job_id in session.scalars(page)]
    every = union_all(*(select(page.subquery().c.id) for page in pages)).subquery()
    return list(session.scalars(select(Job.id).where(Job.id.in_(select(every.c.id))).order_by(*order).limit(limit)))


def _after(columns: Sequence[InstrumentedAttribute[Any]], descending: bool, cursor: str) -> ColumnElement[bool]:
    """What comes after the job whose id is `cursor`, in the order of `columns`; they end with the id."""
    found: ColumnElement[bool] = columns[-1] < cursor if descending else columns[-1] > cursor
    other = aliased(Job)
    for column in columns[-2::-1]:
        last = select(getattr(other, column.key)).where(other.id == cursor).scalar_subquery()
        found = or_(column < last if descending else column > last, and_(column == last, found))
    return found


def dataset_conditions(wanted: DatasetFilter) -> list[ColumnElement[bool]]:
    """What a data set must be."""
    conditions = _words(Dataset.name, wanted.q)
    if wanted.state:
        conditions.append(Dataset.state == wanted.state)
    if wanted.format:
        conditions.append(Dataset.format == wanted.format)
    if wanted.created_by:
        conditions.append(Dataset.created_by == wanted.created_by)
    return conditions


def named(name_or_id: str) -> ColumnElement[bool]:
    """Data sets of that name, `name@version`, either after `project/`, or id."""
    project, slash, rest = name_or_id.rpartition("/")
    if slash:
        return (Dataset.project == project) & named(rest)
    name, at, version = name_or_id.rpartition("@")
    if at and version.isascii() and version.isdigit() and len(version) < 10:
        return (Dataset.name == name) & (Dataset.version == int(version))
    return (Dataset.name == name_or_id) | (Dataset.id == name_or_id)


def _conditions(wanted: JobFilter) -> list[ColumnElement[bool]]:
    conditions = _words(Job.name, wanted.q)
    conditions.append(Job.parent_id == wanted.parent if wanted.parent else Job.parent_id.is_(None))
    if wanted.state:
        conditions.append(Job.state == wanted.state)
    if wanted.kind:
        conditions.append(Job.kind == wanted.kind)
    if wanted.created_by:
        conditions.append(Job.created_by == wanted.created_by)
    if wanted.project:
        conditions.append(Job.project == wanted.project)
    return [*conditions, Job.kind != HIDDEN]  # databases test in this order, and almost no job is hidden


class _is_like(FunctionElement[bool]):  # noqa: N801 - an SQL function is named like one
    """Whether a text is like a pattern, in any case. A backslash stands before signs that mean themselves."""

    type = Boolean()
    inherit_cache = True


@compiles(_is_like, "postgresql")
def _postgresql(element: _is_like, compiler: Any, **kw: Any) -> str:
    text, pattern = (compiler.process(part, **kw) for part in element.clauses)
    return f"lower({text}) LIKE (SELECT lower({pattern}))"  # selected: once, not for every row


@compiles(_is_like, "sqlite")
def _sqlite(element: _is_like, compiler: Any, **kw: Any) -> str:
    # Its LIKE minds no case of the letters that its `lower` knows, and is twice as fast without that.
    text, pattern = (compiler.process(part, **kw) for part in element.clauses)
    return f"{text} LIKE {pattern} ESCAPE '\\'"


def _words(name: InstrumentedAttribute[str], q: str | None) -> list[ColumnElement[bool]]:
    """The longest word first: the fewest names have it, and the others are looked for in those alone."""
    words = sorted((q or "").split(), key=len, reverse=True)
    as_they_are = [re.sub(r"[%_\\]", r"\\\g<0>", word) for word in words]
    return [_is_like(name, f"%{word}%") for word in as_they_are]
