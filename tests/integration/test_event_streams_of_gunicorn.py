"""Event streams of the API as it is served, on PostgreSQL: they leave room for requests and end with their process."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import insert

from services import jobs, tokens
from services.claims import Batch, NewJob
from services.order import Offer
from services.settings import Settings
from services.tables import Dataset
from tests.support.clocked import DATASET
from tests.support.cluster import Cluster, cluster
from tests.support.servers import free_port


def events(answer: httpx.Response) -> Iterator[tuple[str, Any]]:
    assert answer.status_code == 200, answer.read()
    kind = ""
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        kind = value if name == "event" else kind
        if name == "data":
            yield kind, json.loads(value)


def serving(product: Cluster, address: str) -> bool | None:
    try:
        return httpx.get(f"{address}/healthz").status_code == 200 or None
    except httpx.TransportError:
        return None


def test_streams_leave_room_for_requests_and_end_with_their_process(postgres_url: str, tmp_path: Path) -> None:
    settings = Settings(tmp_path, postgres_url, "redis://127.0.0.1:1/0", (tmp_path / "files").as_uri(), streams=2)
    with cluster(settings, tmp_path) as product, ExitStack() as open_streams:
        database, address = product.context.database, f"http://127.0.0.1:{(port := free_port())}"
        with database.write() as session:
            session.execute(insert(Dataset).values(**DATASET))
        headers = {"Authorization": f"Bearer {tokens.create(database, 'test', 'ada', 'admin')[1]}"}
        values: dict[str, Any] = {"name": "a job", "spec": {}, "dataset_id": "d", "created_by": "ada"}
        child = NewJob(kind="train", **values)
        parent, _ = jobs.submit(database, NewJob(kind="cross_validate", children=[child, child], **values))
        claim = jobs.claim(database, "w", Offer(["any"]), 600)
        assert claim is not None
        batch = Batch(metrics=[{"step": 1, "epoch": 0, "name": name, "value": 0.5} for name in "ab"])
        jobs.renew(database, claim.lease, 600, batch)

        api = product.start("api", "--port", str(port), "--processes", "1", "--threads", "1")
        product.until(lambda: serving(product, address), "the API")

        def asked(job_id: str) -> Any:
            stream = {**headers, "Accept": "text/event-stream"}
            return httpx.stream("GET", f"{address}/api/v1/jobs/{job_id}/events", headers=stream, timeout=60)

        first = events(open_streams.enter_context(asked(parent)))
        second = events(open_streams.enter_context(asked(claim.lease.job_id)))
        told = [next(first) for _ in range(5)]
        assert [kind for kind, _ in told] == ["state", "state", "progress", "child", "child"]
        assert [data["state"] for kind, data in told if kind == "child"] == ["running", "queued"]
        assert [next(second)[0] for _ in range(2)] == ["state", "state"]
        assert next(second) == ("metrics", {"step": 1, "epoch": 0, "values": {"a": 0.5, "b": 0.5}})
        with asked(parent) as third:
            assert (third.status_code, third.headers["Retry-After"]) == (503, "10")
        assert httpx.get(f"{address}/api/v1/jobs/{parent}", headers=headers, timeout=60).status_code == 200

        api.signal(15)  # a process that had to be killed would cut them off, which httpx raises
        assert {kind for kind, _ in [*first, *second]} <= {"progress"}
        assert api.stop() == 0
