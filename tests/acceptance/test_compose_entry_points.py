"""Every entry point of docker-compose.yml as a plain process: the same command, the same variables and secrets, on real
PostgreSQL and Redis protocol with their passwords and on SeaweedFS as the file starts it. Only hosts, ports and folders
are this machine's. What is not tried here is the container around each."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from bgpanet.data import synthetic
from services.provision import make_secrets
from services.redis_binary import find_redis_server
from tests.support.cluster import tiny_spec
from tests.support.deployment import OURS, ROOT, Place, compose
from tests.support.servers import free_http_and_grpc_port, free_port, postgres_server, spawn, wait_until

SERVICES: dict[str, Any] = compose()["services"]


class Stack:
    """The services of the file, as processes."""

    def __init__(self, folder: Path, postgres: Path) -> None:
        self.folder, self.secrets = folder, folder / "secrets"
        self.api, self.redis = free_port(), free_port()
        self.s3 = {name: free_http_and_grpc_port() for name in ("s3", "master", "volume", "filer")}
        self.metrics = {name: free_port() for name in ("scheduler", "worker", "worker-cpu")}
        make_secrets(self.secrets)
        self._point("database_url", "@postgres:5432/bgpanet", f"@/bgpanet?host={postgres}")
        self._point("redis_url", "@redis:6379", f"@127.0.0.1:{self.redis}")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def _point(self, secret: str, old: str, new: str) -> None:
        path = self.secrets / secret
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new))

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()

    def place(self, name: str) -> Place:
        return Place(
            self.secrets,
            {
                "0.0.0.0": "127.0.0.1",  # noqa: S104 - what it listens on in its container
                "6379": str(self.redis),
                "8080": str(self.api),
                # Seen from outside, the S3 server has another name; addresses must be signed for that.
                "http://127.0.0.1:8333": f"http://localhost:{self.s3['s3']}",
                "objects:8333": f"127.0.0.1:{self.s3['s3']}",
                "8333": str(self.s3["s3"]),
                "/var/lib/bgpanet": str(self.folder / "homes" / name),
                "=/data": f"={self._data(name)}",
            }
            | ({"/data": str(self._data(name))} if name == "redis" else {})
            | ({"9464": str(self.metrics[name])} if name in self.metrics else {}),
        )

    def _data(self, name: str) -> Path:
        made = self.folder / "data" / name
        made.mkdir(parents=True, exist_ok=True)
        return made

    def command(self, name: str, words: list[str] | None = None) -> list[str]:
        place = self.place(name)
        first, *rest = place.command(SERVICES[name]) if words is None else [place.put(word) for word in words]
        stand_ins = {
            "bgpanet": [sys.executable, "-m", "services.cli"],
            "python": [sys.executable],
            "valkey-server": find_redis_server(),
            "weed": [shutil.which("weed", path=os.path.dirname(sys.executable)) or "weed"],
        }
        return [*stand_ins[first], *rest]

    def environment(self, name: str) -> dict[str, str]:
        kept = {
            variable: value
            for variable, value in os.environ.items()
            if not variable.startswith(("BGPANET_", "AWS_")) and variable not in ("CUDA_VISIBLE_DEVICES",)
        }
        # Nothing here asks the internet for weights, or computes on a GPU that other tests use.
        without = {"BGPANET_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        return {**kept, **without, **self.place(name).environment(SERVICES[name])}

    def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self.command(name),
                env=self.environment(name),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_objects(self) -> None:
        others = [f"-{name}.port={port}" for name, port in self.s3.items() if name != "s3"]
        grpc = [f"-{name}.port.grpc={port + 10_000}" for name, port in self.s3.items()]
        command = [*self.command("objects"), *others, *grpc]
        self.processes["objects"] = spawn(command, self.folder / "objects.log")

    def start_redis(self) -> None:
        self.processes["redis"] = spawn(self.command("redis"), self.folder / "redis.log")

    def run(self, name: str) -> str:
        """What a one-shot printed."""
        done = subprocess.run(self.command(name), env=self.environment(name), cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def is_well(self, name: str) -> bool:
        """What the service's own health check says."""
        kind, *words = SERVICES[name]["healthcheck"]["test"]
        assert kind == "CMD"
        command = self.command(name, words)
        return subprocess.run(command, env=self.environment(name), cwd=ROOT, capture_output=True).returncode == 0

    def until_well(self, name: str) -> None:
        if name in self.processes:
            assert self.processes[name].poll() is None, self.logs()
        wait_until(lambda: self.is_well(name), name, self.folder / f"{name}.log")

    def bgpanet(self, *arguments: str) -> str:
        """What a user's command printed, who has the address and the token only."""
        mine = {"BGPANET_URL": f"http://127.0.0.1:{self.api}", "BGPANET_TOKEN": self.secret("admin_token")}
        home = {"BGPANET_HOME": str(self.folder / "homes" / "user")}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BGPANET_", "AWS_"))}
        command = [sys.executable, "-m", "services.cli", *arguments]
        done = subprocess.run(command, env={**kept, **home, **mine}, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def logs(self) -> str:
        return "\n".join(
            f"── {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in self.folder.glob("*.log")
        )

    def stop(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    with postgres_server(tmp_path_factory.mktemp("postgres")) as admin:
        data = Path(str(admin.query["host"]))
        made = Stack(folder, data)
        with create_engine(admin, isolation_level="AUTOCOMMIT", poolclass=NullPool).connect() as connection:
            connection.execute(text(f"CREATE ROLE bgpanet LOGIN PASSWORD '{made.secret('postgres_password')}'"))
            connection.execute(text("CREATE DATABASE bgpanet OWNER bgpanet"))
            rules = data / "pg_hba.conf"
            asked = "local all bgpanet scram-sha-256\nhost all bgpanet all scram-sha-256\n"
            rules.write_text(asked + rules.read_text())
            connection.execute(text("SELECT pg_reload_conf()"))
        try:
            made.start_redis()
            made.start_objects()
            yield made
        finally:
            made.stop()


@pytest.mark.timeout(1200)  # some 40 starts of an interpreter, on whatever machine
def test_a_job_goes_through_and_all_parts_stop_when_they_are_told(stack: Stack, tmp_path: Path) -> None:
    stack.until_well("objects")
    assert "the bucket bgpanet is made" in stack.run("prepare")
    assert "the admin's token is known" in stack.run("prepare")  # as with every `docker compose up`
    for name in ("scheduler", "api", "worker", "worker-cpu"):
        stack.start(name)
    assert set(stack.processes) | {"prepare"} >= set(OURS)
    for name in ("api", "scheduler", "worker", "worker-cpu"):
        stack.until_well(name)

    _what_has_a_password_asks_for_it(stack)
    synthetic.draw(tmp_path / "lesions", lesions=24)
    archive = tmp_path / "lesions.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted((tmp_path / "lesions").rglob("*")):
            file.write(path, path.relative_to(tmp_path / "lesions"))
    stack.bgpanet("dataset", "add", "lesions", "--format", "ham10000", "--path", str(archive))
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(tiny_spec(epochs=1)))
    job = json.loads(stack.bgpanet("submit", "train", "--dataset", "lesions", "-f", str(spec), "--follow", "--json"))
    assert job["state"] == "succeeded"
    listed = json.loads(stack.bgpanet("artifacts", job["id"], "--json"))
    assert "predictions.csv" in json.dumps(listed)
    fetched = tmp_path / "fetched.csv"
    stack.bgpanet("download", job["id"], "predictions.csv", "--to", str(fetched))
    assert len(fetched.read_text().splitlines()) > 1

    for port in stack.metrics.values():
        assert "bgpanet_" in httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text
    _stop_on_sigterm(stack, ("worker", "worker-cpu", "scheduler", "api"))


def _what_has_a_password_asks_for_it(stack: Stack) -> None:
    with redis.Redis(port=stack.redis) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    url = stack.secret("database_url").replace(stack.secret("postgres_password"), "guessed")
    engine = create_engine(url)
    with pytest.raises(OperationalError, match="password authentication failed"), engine.connect():
        pass
    engine.dispose()
    assert httpx.get(f"http://127.0.0.1:{stack.s3['s3']}/bgpanet/", timeout=60).status_code == 403
    assert httpx.get(f"http://127.0.0.1:{stack.api}/api/v1/jobs", timeout=60).status_code == 401


def _stop_on_sigterm(stack: Stack, names: tuple[str, ...]) -> None:
    for name in names:
        assert stack.processes[name].poll() is None, f"{name} had ended\n{stack.logs()}"
        stack.processes[name].send_signal(signal.SIGTERM)
    for name in names:
        deadline = float(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        began = time.monotonic()
        status = stack.processes[name].wait(deadline)
        assert status == 0, f"{name} ended with {status} after {time.monotonic() - began:.1f} s\n{stack.logs()}"
