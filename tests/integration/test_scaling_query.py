"""The query by which KEDA scales workers, as the chart renders it, on real PostgreSQL."""

from pathlib import Path
from typing import Any

from sqlalchemy import insert, text

from services import jobs
from services.claims import NewJob
from services.database import Database
from services.order import Offer
from services.tables import Dataset
from tests.support.clocked import DATASET
from tests.unit.deploy.test_chart import EVERYTHING, rendered


def queries() -> dict[str, str]:
    """Of each pool."""
    scaled = [found["spec"] for found in rendered(EVERYTHING) if found["kind"] == "ScaledObject"]
    return {spec["scaleTargetRef"]["name"]: spec["triggers"][0]["metadata"]["query"] for spec in scaled}


def test_as_many_pods_as_jobs_of_the_pool_wait_or_run(migrated_postgres_url: str, tmp_path: Path) -> None:
    database = Database(migrated_postgres_url)

    def wanted() -> tuple[int, int]:
        with database.read() as session:
            gpu, cpu = (session.scalar(text(queries()[f"r-worker-{pool}"])) for pool in ("gpu", "cpu"))
        return int(gpu), int(cpu)

    def submit(resource_class: str, **more: Any) -> str:
        new = NewJob(
            kind="train", name="t", dataset_id="d", spec={}, resource_class=resource_class, created_by="ada", **more
        )
        return jobs.submit(database, new)[0]

    with database.write() as session:
        session.execute(insert(Dataset).values(**DATASET))
    assert wanted() == (0, 0)
    first = submit("gpu")
    submit("any")
    submit("cpu")
    assert wanted() == (2, 1)
    submit("gpu", after=(first,))  # waits for another job, not for a pod
    assert wanted() == (2, 1)
    claim = jobs.claim(database, "w/0", Offer(("any", "gpu")), 30)
    assert claim is not None
    assert claim.lease.job_id == first
    assert wanted() == (2, 1)  # one runs, one waits
    jobs.release(database, claim.lease, "the pod was taken away")
    assert wanted() == (2, 1)
    database.close()
