"""Comparing cross-validations: their folds fetched through the client or from the store, the tests those of
`bgpanet.evaluation`."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from services import views
from services.client import Client
from services.context import Context
from services.errors import ServiceError
from services.tokens import Principal

FILES = ("report.json", "predictions.parquet")  # of a fold, by which it is compared


def compare_jobs(client: Client, job_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Each later job against the first: rows of `bgpanet.evaluation.comparison.compare`, `system` a job's id.

    Raises:
        ServiceError: a job is no cross-validation that succeeded.
        InvalidInput: they were not tested on the same images, fold by fold; with every reason.
    """
    found = {job_id: client.job(job_id) for job_id in job_ids}
    if why := obstacles([job.values for job in found.values()]):
        raise ServiceError("; ".join(why))
    handles = {child.id: child for job in found.values() for child in job.children()}

    def fetch(fold: str, file: str, folder: Path) -> None:
        handles[fold].download(file, folder)

    children = {job.id: [child.values for child in handles.values() if child.values["parent"] == job.id]
                for job in found.values()}  # fmt: skip
    return _compared([job.values for job in found.values()], children, fetch)


def compare_stored(context: Context, principal: Principal, jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same of jobs as `views.get_job` shows them, their files straight from the store.

    Raises:
        ServiceError: as `compare_jobs`, or what the tests need is not installed where this runs.
        InvalidInput: as `compare_jobs`.
    """
    if why := obstacles(jobs):
        raise ServiceError("; ".join(why))

    def fetch(fold: str, file: str, folder: Path) -> None:
        artifact = views.get_artifact(context.database, principal, fold, file)
        context.store.get_file(artifact.key, folder / file, artifact.sha256)

    children = {job["id"]: views.list_children(context.database, principal, job["id"]) for job in jobs}
    return _compared(jobs, children, fetch)


def obstacles(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why jobs can't be compared by paired tests, as far as they tell it themselves."""
    told = []
    for job in jobs:
        if job["kind"] != "cross_validate":
            told.append(
                f"job {job['id']} is of kind {job['kind']}; only cross-validations can be compared, fold by fold"
            )
        elif job["state"] != "succeeded":
            told.append(f"job {job['id']} is {job['state']}; only finished ones can be compared")
    return told


def _compared(
    jobs: Sequence[Mapping[str, Any]],
    children: Mapping[str, Sequence[Mapping[str, Any]]],
    fetch: Callable[[str, str, Path], None],
) -> list[dict[str, Any]]:
    # Here, not above: the rest of the control plane works where numpy's companions are not installed.
    try:
        from bgpanet.evaluation.comparison import System, compare, read_fold
    except ModuleNotFoundError as error:
        told = f"the tests need the package {error.name}, which is not installed here; `bgpanet compare` makes them"
        raise ServiceError(told) from None
    systems = []
    with tempfile.TemporaryDirectory() as name:
        for job in jobs:
            folds = []
            for child in children[job["id"]]:
                if child["superseded_by"] is not None:
                    continue  # another one was put in its place
                folder = Path(name) / child["id"]
                folder.mkdir(exist_ok=True)
                for file in FILES:
                    fetch(child["id"], file, folder)
                folds.append(read_fold(folder))
            systems.append(System(job["id"], job["summary"]["classes"], [folds]))
    return compare(systems[0], systems[1:])
