from pathlib import Path

import pytest

from services.settings import Settings


def test_without_variables_everything_is_in_the_home() -> None:
    settings = Settings.load({"BGPANET_HOME": "/srv/b"})
    assert settings.database_url == "sqlite:////srv/b/bgpanet.db"
    assert settings.artifacts_url == "file:///srv/b/artifacts"
    assert settings.cache == Path("/srv/b/cache")


def test_a_child_process_reads_the_same_settings() -> None:
    settings = Settings.load(
        {
            "BGPANET_HOME": "/srv/b",
            "BGPANET_DATABASE_URL": "postgresql+psycopg://h/d",
            "BGPANET_REDIS_URL": "redis://h/1",
            "BGPANET_ARTIFACTS_URL": "s3://bucket/p",
            "BGPANET_S3_ENDPOINT_URL": "http://h:1",
            "BGPANET_LEASE_SECONDS": "7.5",
            "BGPANET_PIXEL_CACHE_GB": "0.25",
            "BGPANET_WORKER_LABELS": "fast,room=2",
            "BGPANET_MAX_ATTEMPTS": "5",
            "BGPANET_RETRY_SECONDS": "0.5,2",
            "BGPANET_RUNNING_PER_USER": "2",
            "BGPANET_QUEUED_PER_USER": "20",
            "BGPANET_QUEUED": "100",
            "BGPANET_KEEP_FAILED_DAYS": "2",
            "BGPANET_KEEP_LOGS_DAYS": "0.5",
        }
    )
    assert (settings.retry_seconds, settings.worker_labels) == ((0.5, 2.0), ("fast", "room=2"))
    assert Settings.load(settings.environment()) == settings


@pytest.mark.parametrize("text", ["0", "-1", "soon", "1e9", "nan"])
def test_a_lease_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="BGPANET_LEASE_SECONDS"):
        Settings.load({"BGPANET_LEASE_SECONDS": text})


@pytest.mark.parametrize("text", ["0", "-1", "all", "1e9", "nan"])
def test_a_cache_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"BGPANET_PIXEL_CACHE_GB=.* number of gigabytes"):
        Settings.load({"BGPANET_PIXEL_CACHE_GB": text})


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_a_limit_that_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"BGPANET_RUNNING_PER_USER=.* whole number above 0"):
        Settings.load({"BGPANET_RUNNING_PER_USER": text})


def test_a_variable_may_stand_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql+psycopg://u:p@h/d\n")
    assert Settings.load({"BGPANET_DATABASE_URL_FILE": str(secret)}).database_url == "postgresql+psycopg://u:p@h/d"


def test_a_variable_in_both_forms_and_a_file_that_is_not_there_are_refused_together(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("redis://h/1")
    given = {
        "BGPANET_REDIS_URL": "redis://other/1",
        "BGPANET_REDIS_URL_FILE": str(tmp_path / "url"),
        "BGPANET_DATABASE_URL_FILE": str(tmp_path / "missing"),
    }
    with pytest.raises(ValueError, match=r"DATABASE_URL_FILE=.*can't be read.*; BGPANET_REDIS_URL and .*both there"):
        Settings.load(given)


def test_a_short_session_key_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 characters"):
        Settings.load({"BGPANET_SESSION_KEY": "changeme"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BGPANET_METRICS_PORT", "none"),
        ("BGPANET_METRICS_PORT", "65536"),
        ("BGPANET_LOG_FORMAT", "xml"),
        ("BGPANET_TRACES_URL", "collector:4318"),
    ],
)
def test_what_operators_see_is_not_set_up_by_halves(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        Settings.load({name: value})


def test_operators_see_nothing_that_they_did_not_ask_for() -> None:
    settings = Settings.load({})
    assert (settings.metrics_port, settings.metrics_host) == (None, "127.0.0.1")
    assert (settings.log_format, settings.traces_url) == ("text", None)
