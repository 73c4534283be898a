"""Everything on one machine: `bgpanet up` starts the parts as processes, keeps them going, and stops them.

Redis protocol server, API with dashboard, scheduler and workers, on SQLite and a folder. The parts are the same
commands that a deployment starts; only this module knows that they share a machine.
"""

import contextlib
import ctypes
import fcntl
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from services import tokens
from services.audit import Act, noted
from services.database import Database
from services.errors import ServiceError
from services.migration import migrate
from services.redis_binary import find_redis_server
from services.settings import Settings
from services.tokens import Principal

START_SECONDS = 60.0
STOP_SECONDS = 8.0
RESTART_DELAYS = (0.5, 2.0, 10.0, 30.0)
PR_SET_PDEATHSIG = 1


@dataclass
class Part:
    """One process. It is started again when it dies, unless it may leave, and did so in good order."""

    name: str
    command: Sequence[str]
    log: Path
    environment: dict[str, str]
    may_leave: bool = False
    process: subprocess.Popen[bytes] | None = None
    deaths: int = 0
    start_at: float = 0.0
    begun: float = field(default=0.0)

    def start(self) -> None:
        self.begun = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own commands
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Without ours of this process: one that is named by a file would be there in both forms.
                env={**{n: v for n, v in os.environ.items() if not n.startswith("BGPANET_")}, **self.environment},
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )

    def keep_going(self, say: Callable[[str], None]) -> None:
        """Starts it again if it has died, later each time."""
        if self.process is None:
            if time.monotonic() >= self.start_at:
                self.start()
        elif self.process.poll() is not None:
            if time.monotonic() - self.begun > 60:
                self.deaths = 0
            delay = RESTART_DELAYS[min(self.deaths, len(RESTART_DELAYS) - 1)]
            status = self.process.returncode
            if self.may_leave and status == 0:
                say(f"{self.name} has left, as it was told; it stays away until everything is started again")
                self.process, self.start_at = None, math.inf
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # what it left would hold its port
            say(f"{self.name} ended with status {status}; starting it again in {delay:g} s (see {self.log})")
            self.process, self.start_at, self.deaths = None, time.monotonic() + delay, self.deaths + 1

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


@dataclass(frozen=True)
class UpOptions:
    """host, port: where the API listens (port 0: a free one); workers: processes, each with a share of the cores."""

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1


def up(settings: Settings, options: UpOptions, say: Callable[[str], None]) -> None:
    """Starts everything, prints `ready: http://…`, and runs until SIGTERM or SIGINT. All is stopped within 10 s.

    Raises:
        ServiceError: it could not be started; the text says why.
    """
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    home = settings.home
    (home / "logs").mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    lock = _only_one(home)
    port = _free_port(options.host, options.port)
    redis_url = f"redis://:{secrets.token_hex(16)}@127.0.0.1:{_free_port('127.0.0.1', 0)}/0"
    settings = replace(settings, redis_url=redis_url, embedded=True)
    if "BGPANET_GRACE_SECONDS" not in os.environ:
        settings = replace(settings, grace_seconds=STOP_SECONDS / 2)
    migrate(settings.database_url)
    _admin_token(settings)
    parts = _parts(settings, options, port)
    url = f"http://{options.host}:{port}"
    try:
        for part in parts:
            part.start()
        if _wait_until_ready(url, parts, stopping):
            _write(home / "url", url)
            _write(home / "redis.url", settings.redis_url)
            say(f"ready: {url}")
        while not stopping.wait(0.2):
            for part in parts:
                part.keep_going(say)
    finally:
        _stop(parts)
        os.close(lock)


def as_running(settings: Settings) -> Settings:
    """The settings of what runs in the home now by `bgpanet up`; as they were where nothing does."""
    told = settings.home / "redis.url"
    if not told.exists() or not _is_held(settings.home / "lock"):
        return settings
    return replace(settings, redis_url=told.read_text(encoding="utf-8"), embedded=True)


def _is_held(lock: Path) -> bool:
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _only_one(home: Path) -> int:
    """Holds the home, until the descriptor is closed or this process is gone. Raises ServiceError."""
    descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        url = home / "url"
        where = f" at {url.read_text(encoding='utf-8')}" if url.exists() else ""
        raise ServiceError(f"{home} is in use: the product runs there already{where}") from None
    return descriptor


def _parts(settings: Settings, options: UpOptions, port: int) -> list[Part]:
    logs, environment = settings.home / "logs", settings.environment() | {"BGPANET_METRICS_PORT": ""}
    bgpanet = [sys.executable, "-m", "services.cli"]
    threads = max(1, (os.cpu_count() or 1) // max(1, options.workers))
    commands: dict[str, Sequence[str]] = {
        "redis": _redis_command(settings),
        "api": [*bgpanet, "api", "--host", options.host, "--port", str(port), "--processes", "1"],
        "scheduler": [*bgpanet, "scheduler"],
    }
    for number in range(options.workers):
        name = f"{socket.gethostname()}-{number}"
        commands[f"worker-{number}"] = [*bgpanet, "worker", "--name", name, "--threads", str(threads)]
    return [
        Part(name, command, logs / f"{name}.log", environment, may_leave=name.startswith("worker-"))
        for name, command in commands.items()
    ]


def _redis_command(settings: Settings) -> list[str]:
    """Nothing in it is a record, so nothing of it is kept on disk."""
    password, _, address = settings.redis_url.removeprefix("redis://:").partition("@")
    port = address.partition(":")[2].partition("/")[0]
    config = settings.home / "redis.conf"
    _write(config, f"requirepass {password}\n")  # not on the command line, where every user can read it
    options = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(settings.home)]
    return [*find_redis_server(), str(config), *options]


def _admin_token(settings: Settings) -> None:
    """A token for the person who started this, in `token`, mode 600; one that is there and works is kept."""
    path = settings.home / "token"
    database = Database(settings.database_url)
    try:
        if path.exists() and tokens.verify(database, path.read_text(encoding="utf-8").strip()):
            return
        act = Act(Principal("admin", "admin"), "token.create", detail={"name": "bgpanet up", "role": "admin"})
        _, secret = tokens.create(database, "bgpanet up", "admin", "admin", also=noted(database, act))
        _write(path, secret + "\n")
    finally:
        database.close()


def _wait_until_ready(url: str, parts: Sequence[Part], stopping: threading.Event) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while not stopping.wait(0.1):
        dead = [part for part in parts if part.process is not None and part.process.poll() is not None]
        if dead:
            raise ServiceError(f"{dead[0].name} could not be started; see {dead[0].log}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return True
        if time.monotonic() > deadline:
            raise ServiceError(f"the API was not ready after {START_SECONDS:.0f} s; see {parts[1].log}")
    return False


def _stop(parts: Sequence[Part]) -> None:
    """Workers first hand their jobs back, which needs the database and nothing else here; Redis goes last."""
    deadline = time.monotonic() + STOP_SECONDS
    for part in parts[1:]:
        part.signal(signal.SIGTERM)
    for part in [*parts[1:], parts[0]]:
        if part is parts[0]:
            part.signal(signal.SIGTERM)
            deadline = max(deadline, time.monotonic() + 1)
        if part.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                part.process.wait(max(0.05, deadline - time.monotonic()))
            part.signal(signal.SIGKILL)
            part.process.wait()


def _free_port(host: str, port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServiceError(f"cannot listen on {host}:{port} ({error.strerror}); choose another --port") from None
        return int(probe.getsockname()[1])


def _write(path: Path, text: str) -> None:
    """Writes a file that only its owner may read."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
