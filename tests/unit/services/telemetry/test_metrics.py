"""What is counted in processes, and that the documentation lists all of it."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from services import jobs
from services.claims import NewJob
from services.database import Database
from services.order import Offer
from services.settings import Settings
from services.telemetry import catalogue, metrics
from services.telemetry.catalogue import ALL
from services.web import create_app
from services.worker.lease import LeaseKeeper
from tests.support.databases import make_schema

ROOT = Path(__file__).parents[4]


def test_the_documentation_lists_every_series_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \| (.+) \|$", (ROOT / "docs/metrics.md").read_text(), re.M)
    told = {(name, kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows}
    assert len(rows) == len(told)
    assert told == {(series.name, series.kind, series.labels, series.help) for series in ALL}


def test_names_follow_prometheus_rules() -> None:
    assert len({series.name for series in ALL}) == len(ALL)
    for series in ALL:
        assert re.fullmatch(r"bgpanet_[a-z_]+", series.name)
        assert series.name.endswith("_total") == (series.kind == "counter")
        assert bool(series.buckets) == (series.kind == "histogram")


def test_requests_are_counted_by_the_template_of_their_route(tmp_path: Path) -> None:
    settings = Settings.load({"BGPANET_HOME": str(tmp_path), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"})
    make_schema(settings.database_url)
    client = create_app(settings).test_client()
    before = _requests(client.get("/metrics").text)
    for path in ("/api/v1/jobs/one", "/api/v1/jobs/two", "/nothing/here", "/nor/there"):
        client.get(path)
    client.open("/api/v1/jobs", method="BREW")
    after = _requests(client.get("/metrics").text)
    gained = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
    assert gained.pop(("GET", "/metrics", "200")) == 1
    assert gained == {
        ("GET", "/api/v1/jobs/<job_id>", "401"): 2,
        ("GET", "none", "404"): 2,
        ("other", "none", "405"): 1,
    }


def _requests(text: str) -> dict[tuple[str, str, str], float]:
    line = re.compile(r'^bgpanet_http_requests_total\{method="(.+)",route="(.+)",status="(\d+)"\} (.+)$', re.M)
    return {(method, route, status): float(value) for method, route, status, value in line.findall(text)}


COUNTS = """
import os, sys
from services.telemetry import catalogue, metrics
metrics.count(catalogue.HTTP_REQUESTS, 2, route="/", method="GET", status="200")
metrics.observe(catalogue.HTTP_SECONDS, 0.02, route="/", method="GET")
if sys.argv[1] == "asked":
    print(metrics.exposition().decode())
"""


def test_processes_of_one_api_tell_their_sum_even_of_those_that_have_ended(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    for role in ("silent", "asked"):
        done = subprocess.run(
            [sys.executable, "-c", COUNTS, role], env=environment, capture_output=True, text=True, check=True
        )
    assert _requests(done.stdout) == {("GET", "/", "200"): 4.0}
    assert 'bgpanet_http_request_seconds_bucket{le="0.025",method="GET",route="/"} 2.0' in done.stdout


SERVES = """
import json, urllib.request
from services.telemetry import catalogue, metrics
metrics.begin("worker")
port = int(__import__("sys").argv[1])
metrics.serve("127.0.0.1", port)
text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
print(json.dumps([line for line in text.splitlines() if not line.startswith("#")]))
try:
    metrics.serve("127.0.0.1", port)
except ValueError as error:
    print(json.dumps(str(error)))
"""


def test_a_worker_tells_its_own_series_from_zero_and_that_of_no_other(unused_port: int) -> None:
    run = [sys.executable, "-c", SERVES, str(unused_port)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    lines, refused = map(json.loads, done.stdout.splitlines())
    names = {re.split(r"[ {]", line)[0] for line in lines}
    assert "bgpanet_stale_writes_refused_total 0.0" in lines
    assert "process_resident_memory_bytes" in names
    assert {name for name in names if name.startswith("bgpanet_scheduler")} == set()
    assert "BGPANET_METRICS_PORT" in refused


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_counter_that_is_used_without_its_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="label"):
        metrics.count(catalogue.HTTP_REQUESTS)


def test_a_refused_write_and_a_lost_lease_are_counted(database: Database) -> None:
    def told(name: str) -> float:
        values = re.findall(rf"^{re.escape(name)} (.+)$", metrics.exposition().decode(), re.MULTILINE)
        return float(values[0]) if values else 0.0

    stale, lost = "bgpanet_stale_writes_refused_total", 'bgpanet_leases_lost_total{why="taken"}'
    before = told(stale), told(lost)
    jobs.submit(database, NewJob("train", "a", {}, "d", "ada"))
    claim = jobs.claim(database, "w", Offer(("any",)), 30)
    assert claim is not None
    jobs.release(database, claim.lease, "it was taken back")
    keeper = LeaseKeeper(database, claim.lease, 0.4, lambda: None)
    keeper.start()
    keeper.join(30)
    assert keeper.lost
    assert (told(stale), told(lost)) == (before[0] + 1, before[1] + 1)
