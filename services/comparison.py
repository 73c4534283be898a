"""Comparing cross-validations: their folds fetched through the client, the tests those of `bgpanet.evaluation`."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.client import Client, JobHandle
from services.errors import ServiceError


def compare_jobs(client: Client, job_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Each later job against the first: rows of `bgpanet.evaluation.comparison.compare`, `system` a job's id.

    Raises:
        ServiceError: a job is no cross-validation that succeeded.
        InvalidInput: they were not tested on the same images, fold by fold; with every reason.
    """
    # Here, not above: the rest of the control plane works where numpy's companions are not installed.
    from bgpanet.evaluation.comparison import System, compare, read_fold

    found = [client.job(job_id) for job_id in job_ids]
    if problems := [told for job in found for told in _problems(job)]:
        raise ServiceError("; ".join(problems))
    systems = []
    with tempfile.TemporaryDirectory() as name:
        for job in found:
            folds = []
            for child in job.children():
                if child.values["superseded_by"] is not None:
                    continue  # another one was put in its place
                folder = Path(name) / child.id
                folder.mkdir(exist_ok=True)
                for file in ("report.json", "predictions.parquet"):
                    child.download(file, folder)
                folds.append(read_fold(folder))
            systems.append(System(job.id, job.summary["classes"], [folds]))
    return compare(systems[0], systems[1:])


def _problems(job: JobHandle) -> list[str]:
    if job.values["kind"] != "cross_validate":
        return [f"job {job.id} is a {job.values['kind']}; only cross-validations can be compared, fold by fold"]
    return [] if job.state == "succeeded" else [f"job {job.id} is {job.state}; only finished ones can be compared"]
