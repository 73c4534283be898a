"""What operators see of a training that goes through the product: one trace, metrics of every process, log lines."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from bgpanet.data import synthetic
from services import tokens
from services.settings import Settings
from tests.support.cluster import Cluster, cluster, tiny_spec
from tests.support.collector import Collector, collector
from tests.support.registering import register
from tests.support.servers import ValkeyServer, free_port

TRACE, CALLER, REQUEST = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "from-a-notebook"
EPOCHS = 3
pytestmark = pytest.mark.timeout(600)  # a worker and its child start in the fixture


@dataclass
class Observed:
    """A service that has run one training, and what it showed of it."""

    made: Cluster
    address: str
    headers: dict[str, str]
    ports: dict[str, int]
    traces: Collector
    job: dict[str, Any]

    def scraped(self, part: str) -> dict[str, float]:
        """Value of every series, named as Prometheus writes it."""
        address = self.address if part == "api" else f"http://127.0.0.1:{self.ports[part]}"
        lines = httpx.get(f"{address}/metrics").raise_for_status().text.splitlines()
        return {name: float(value) for name, value in (x.rsplit(" ", 1) for x in lines if not x.startswith("#"))}

    def lines(self, part: str) -> list[dict[str, Any]]:
        """What a part logged itself; Celery and gunicorn have a few words before that."""
        (process,) = [process for process in self.made.processes if process.log.name.startswith(part)]
        return [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith('{"time"')]


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, valkey_server: ValkeyServer) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("observed")
    home, ports = folder / "home", {"worker": free_port(), "scheduler": free_port()}
    settings = Settings(home, f"sqlite:///{home / 'b.db'}", valkey_server.url, (home / "a").as_uri(), log_format="json")
    with collector() as traces, cluster(settings, folder) as made:
        synthetic.draw(folder / "lesions", lesions=40, seed=3)
        register(made.context, "lesions", folder / "lesions")
        port = free_port()
        made.start("api", "--port", str(port), "--processes", "2", traces_url=traces.url)
        made.start("scheduler", metrics_port=ports["scheduler"])
        made.start("worker", "--name", "w", metrics_port=ports["worker"], traces_url=traces.url)
        address = f"http://127.0.0.1:{port}"
        headers = {"Authorization": f"Bearer {tokens.create(made.context.database, 'test', 'ada', 'admin')[1]}"}
        made.until(lambda: _ready(address), "the API is ready")
        body = {"kind": "train", "dataset": "lesions", "spec": tiny_spec(EPOCHS, checkpoint_seconds=0)}
        told = {"traceparent": f"00-{TRACE}-{CALLER}-01", "X-Request-ID": REQUEST}
        answer = httpx.post(f"{address}/api/v1/jobs", json=body, headers={**headers, **told})
        assert answer.status_code == 201, answer.text
        job = answer.json()
        made.until(lambda: _ended(f"{address}/api/v1/jobs/{job['id']}", headers), "the training has ended", 300)
        seen = Observed(made, address, headers, ports, traces, job)
        made.until(lambda: any(span.name == "attempt train" for span in traces.spans) or None, "its attempt's span")
        yield seen


def _ready(address: str) -> bool | None:
    try:
        return httpx.get(f"{address}/readyz", timeout=10).status_code == 200 or None
    except httpx.TransportError:
        return None


def _ended(url: str, headers: dict[str, str]) -> bool | None:
    state = httpx.get(url, headers=headers, timeout=30).json()["state"]
    assert state != "failed"
    return state == "succeeded" or None


def test_one_trace_leads_from_the_request_over_the_queue_to_the_epochs_of_the_child(observed: Observed) -> None:
    spans = {span.name: span for span in observed.traces.spans if span.trace == TRACE}
    epochs = [f"epoch {number}" for number in range(1, EPOCHS + 1)]
    parents = {
        "POST /api/v1/jobs": CALLER,
        "submit train": spans["POST /api/v1/jobs"].id,
        "attempt train": spans["submit train"].id,
        "prepare": spans["attempt train"].id,
        "child": spans["attempt train"].id,
        **dict.fromkeys(epochs, spans["child"].id),
    }
    assert {name: spans[name].parent for name in parents} == parents
    assert {spans[name].service for name in ("POST /api/v1/jobs", "submit train")} == {"bgpanet-api"}
    assert {spans[name].service for name in ("attempt train", *epochs)} == {"bgpanet-worker"}
    assert spans["POST /api/v1/jobs"].attributes["http.response.status_code"] == 201
    assert spans["POST /api/v1/jobs"].attributes["bgpanet.request_id"] == REQUEST
    job = {"bgpanet.job": observed.job["id"], "bgpanet.attempt": 1, "bgpanet.worker": "w/0"}
    assert spans["attempt train"].attributes == job
    assert "upload checkpoint" in spans
    assert 0 < sum(spans[name].seconds for name in epochs) <= spans["child"].seconds
    assert spans["child"].seconds <= spans["attempt train"].seconds


def test_each_process_tells_what_it_knows(observed: Observed) -> None:
    worker = observed.scraped("worker")
    assert worker['bgpanet_attempts_total{kind="train"}'] == 1
    assert worker['bgpanet_attempt_seconds_count{kind="train"}'] == 1
    assert worker["bgpanet_checkpoint_upload_seconds_count"] >= 1
    assert worker["bgpanet_stale_writes_refused_total"] == 0
    scheduler = observed.scraped("scheduler")
    assert scheduler["bgpanet_scheduler_leads"] == 1
    assert scheduler['bgpanet_scheduler_ticks_total{result="done"}'] > 0
    assert scheduler["bgpanet_scheduler_last_tick_timestamp_seconds"] > 1.7e9
    assert "process_open_fds" in worker
    assert "process_open_fds" in scheduler


def test_both_processes_of_the_api_tell_the_sum_and_what_the_database_knows(observed: Observed) -> None:
    posts = 'bgpanet_http_requests_total{method="POST",route="/api/v1/jobs",status="422"}'
    for _ in range(20):
        with httpx.Client() as client:  # another connection, maybe to the other process
            client.post(f"{observed.address}/api/v1/jobs", json={"kind": "x"}, headers=observed.headers)
    scraped = [observed.scraped("api") for _ in range(8)]
    assert {each[posts] for each in scraped} == {20.0}
    for each in scraped:
        assert each['bgpanet_claims_total{kind="train"}'] == 1
        assert each['bgpanet_jobs_ended_total{kind="train",reason="",state="succeeded"}'] == 1
        assert each['bgpanet_worker_up{worker="w/0"}'] == 1
        assert each["bgpanet_sql_up"] == each["bgpanet_redis_up"] == each["bgpanet_scheduler_leaders"] == 1


def test_log_lines_bear_the_ids_of_the_request_and_of_the_attempt(observed: Observed) -> None:
    (submitted,) = [line for line in observed.lines("api") if line.get("request") == REQUEST]
    assert re.match(r"POST /api/v1/jobs 201, \d+ ms", submitted["message"])
    (begun,) = [line for line in observed.lines("worker") if line.get("job") == observed.job["id"]]
    assert (begun["attempt"], begun["worker"]) == ("1", "w/0")
    assert any("leads, term 1" in line["message"] for line in observed.lines("scheduler"))


WITHOUT_TRACES = """
import sys
import services.worker, services.scheduler
from services.settings import Settings
from services.web import create_app
app = create_app(Settings.load({"BGPANET_HOME": sys.argv[1]}))
app.test_client().get("/api/v1/jobs")
print([name for name in sys.modules if name.startswith(("opentelemetry.exporter", "opentelemetry.sdk.trace"))])
"""


def test_what_sends_traces_is_not_imported_while_they_are_off(tmp_path: Path) -> None:
    """Redis' client imports other parts of OpenTelemetry by itself, where they are installed."""
    run = [sys.executable, "-c", WITHOUT_TRACES, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "[]", done.stderr
