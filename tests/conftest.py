"""Fixtures of all tests: real servers, each started when a test first asks for it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

# The same examples everywhere, and however slow they are: what a run finds depends on the code alone.
SLOW = [HealthCheck.too_slow]
settings.register_profile("any machine", deadline=None, derandomize=True, suppress_health_check=SLOW)
settings.load_profile("any machine")

if TYPE_CHECKING:
    from tests.support.servers import S3, S3Server, ValkeyServer


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[ValkeyServer]":
    """A Redis-protocol server that a test may stop and start."""
    from tests.support.servers import ValkeyServer

    server = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def valkey_url(valkey_server: "ValkeyServer") -> str:
    """A running, empty Redis-protocol server."""
    import redis

    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushall()
    return valkey_server.url


@pytest.fixture(scope="session")
def _postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from tests.support.servers import postgres_server

    with postgres_server(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture
def postgres_url(_postgres: Any) -> str:
    """A new, empty PostgreSQL database."""
    from tests.support.servers import fresh_database

    return fresh_database(_postgres)


@pytest.fixture
def migrated_postgres_url(_postgres: Any) -> str:
    """A new PostgreSQL database with the present schema."""
    from tests.support.databases import migrated_database

    return migrated_database(_postgres)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[S3Server]":
    """A real S3 server that a test may stop and start."""
    from tests.support.servers import S3Server

    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: "S3Server") -> "S3":
    """An empty bucket."""
    return s3_server.fresh_bucket()


@pytest.fixture(scope="session")
def ham10000() -> Path:
    """The folder of the real HAM10000 images; skips where they are not to be had."""
    return _real_data("ham10000", "HAM10000_metadata.csv")


@pytest.fixture(scope="session")
def isic2020_tables() -> Path:
    """The folder of ISIC 2020's real tables, without images; skips where they are not to be had."""
    return _real_data("isic2020", "ISIC_2020_Training_GroundTruth.csv")


def _real_data(folder: str, table: str) -> Path:
    import os

    root = Path(os.environ.get("BGPANET_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (root / folder / table).is_file():
        pytest.skip(f"no {folder}/{table} in {root}; name a folder that has it by BGPANET_TEST_DATA")
    return root / folder
