"""The product's services for a benchmark: PostgreSQL, a Redis-protocol server, a folder as store, a small data set."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from bgpanet.data import synthetic
from services.context import Context
from services.migration import migrate
from services.settings import Settings
from tests.support.registering import register
from tests.support.servers import ValkeyServer, fresh_database, postgres_server

T = TypeVar("T")
DATASET = "lesions"


@dataclass(frozen=True)
class Product:
    """Services that run, and what is started on them. `folder` is gone afterwards."""

    context: Context
    folder: Path

    @contextlib.contextmanager
    def process(self, module: str, *arguments: str) -> Iterator[Path]:
        """`python -m module` with these services, and its log. It is ended by SIGTERM, with time to leave."""
        log = self.folder / f"{module}-{arguments[0]}.log"
        variables = replace(self.context.settings, offline=True).environment()
        with log.open("ab") as file:
            process = subprocess.Popen(  # noqa: S603 - our own modules
                [sys.executable, "-m", module, *arguments], env={**os.environ, **variables}, stdout=file, stderr=file
            )
        try:
            yield log
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def product(lesions: int = 24) -> Iterator[Product]:
    """Running services and a registered data set of drawn lesions."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as services:
        folder = Path(name)
        valkey = ValkeyServer(folder)
        services.callback(valkey.stop)
        valkey.start()
        database = fresh_database(services.enter_context(postgres_server(folder)))
        home = folder / "home"
        context = Context(Settings(home, database, valkey.url, (home / "artifacts").as_uri()))
        services.callback(lambda: context.database.close())
        migrate(database)
        synthetic.draw(folder / DATASET, lesions=lesions, seed=3)
        register(context, DATASET, folder / DATASET)
        context.celery.control.purge()  # the wake-up of that registration
        yield Product(context, folder)


def until(look: Callable[[], T | None], what: str, seconds: float = 120, every: float = 0.01) -> T:
    """What `look` gives as soon as it gives something; it is asked `every` so many seconds. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)
    return found
