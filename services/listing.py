"""Which rows a page of a list shows: keyset pages along indexes, so that the last is as fast as the first."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, select, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from services.tables import Dataset, Job


@dataclass(frozen=True)
class JobFilter:
    """Which jobs are asked for. None: all. q: words that all stand in the name, in any case."""

    state: str | None = None
    kind: str | None = None
    dataset: str | None = None
    q: str | None = None
    parent: str | None = None
    created_by: str | None = None


@dataclass(frozen=True)
class DatasetFilter:
    """Which data sets are asked for. None: all. q: as of jobs."""

    state: str | None = None
    format: str | None = None
    q: str | None = None
    created_by: str | None = None


def job_ids(
    session: Session, visible: ColumnElement[bool], wanted: JobFilter, cursor: str | None, limit: int
) -> list[str]:
    """The ids of at most so many jobs that are older than `cursor`, newest first; without a parent in the filter those
    that have none.

    Only ids are read here, in the order of an index that has what is asked for; rows are large. A data set's name is
    several data sets, each with an index entry of its own: the page is the newest of their pages.
    """
    query = select(Job.id).where(visible, *_conditions(wanted))
    if cursor:
        query = query.where(Job.id < cursor)
    query = query.order_by(Job.id.desc()).limit(limit)
    if wanted.dataset is None:
        return list(session.scalars(query))
    datasets = session.scalars(select(Dataset.id).where(named(wanted.dataset)))
    pages = [query.where(Job.dataset_id == dataset_id) for dataset_id in datasets]
    return list(session.scalars(_newest(pages, limit))) if pages else []


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
    """Data sets of that name, `name@version` or id."""
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
    return conditions


def _words(name: InstrumentedAttribute[str], q: str | None) -> list[ColumnElement[bool]]:
    return [name.icontains(word, autoescape=True) for word in (q or "").split()]


def _newest(pages: list[Select[str]], limit: int) -> Select[str]:
    if len(pages) == 1:
        return pages[0]
    every = union_all(*(select(page.subquery().c.id) for page in pages)).subquery()
    return select(every.c.id).order_by(every.c.id.desc()).limit(limit)
