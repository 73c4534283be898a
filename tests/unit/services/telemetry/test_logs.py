"""Log lines in both forms, and the ids of requests from the header to problem documents and the log."""

import io
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from services.settings import Settings
from services.telemetry import logs
from services.telemetry.logs import Format
from services.web import create_app
from tests.support.databases import make_schema

log = logging.getLogger("tests.of.logs")


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What goes to the log, as another handler writes it."""
    root, stream = logging.getLogger(), io.StringIO()
    before = root.handlers[:], root.level
    yield stream
    root.handlers[:], root.level = before[0], before[1]


def into(stream: io.StringIO, form: Format) -> None:
    handler = logging.StreamHandler(stream)
    logs.configure(form, [handler])
    logging.getLogger().handlers[:] = [handler]


def test_json_lines_bear_the_ids_of_what_they_belong_to(written: io.StringIO) -> None:
    into(written, "json")
    with logs.belonging_to(job="j", attempt="2"), logs.belonging_to(request="r"):
        log.warning("line\nbreak %d", 1, extra={"bytes": 5})
    log.info("nobody's")
    first, second = map(json.loads, written.getvalue().splitlines())
    ids = {"job": "j", "attempt": "2", "request": "r"}
    assert first.pop("time").endswith("+00:00")
    assert first == {"level": "warning", "logger": log.name, "message": "line\nbreak 1", "bytes": 5, **ids}
    assert not ids.keys() & second.keys()


def test_an_exception_is_a_field_of_its_line(written: io.StringIO) -> None:
    into(written, "json")
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        log.exception("failed")
    assert "ZeroDivisionError: by zero" in json.loads(written.getvalue())["exception"]


def test_text_lines_end_with_the_ids(written: io.StringIO) -> None:
    into(written, "text")
    with logs.belonging_to(job="j"):
        log.info("begun")
    log.info("done")
    first, second = written.getvalue().splitlines()
    assert first.endswith("INFO tests.of.logs: begun [job=j]")
    assert second.endswith("INFO tests.of.logs: done")


def test_ids_of_one_thread_are_not_those_of_another(written: io.StringIO) -> None:
    into(written, "text")
    with logs.belonging_to(job="j"):
        other = threading.Thread(target=lambda: log.info("elsewhere"))
        other.start()
        other.join()
    assert "job=" not in written.getvalue()


@pytest.fixture
def client(tmp_path: Path) -> FlaskClient:
    settings = Settings.load({"BGPANET_HOME": str(tmp_path), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"})
    make_schema(settings.database_url)
    return create_app(settings).test_client()


def test_a_request_keeps_the_id_that_it_brings(client: FlaskClient, written: io.StringIO) -> None:
    into(written, "json")
    answer = client.post("/api/v1/jobs", headers={"X-Request-ID": "my-request.1"})
    assert answer.headers["X-Request-ID"] == "my-request.1"
    assert answer.get_json()["request_id"] == "my-request.1"
    line = json.loads(written.getvalue().splitlines()[-1])
    assert line["request"] == "my-request.1"
    assert line["message"].startswith("POST /api/v1/jobs 401")


@pytest.mark.parametrize("bad", ["", "a b", "x" * 129, "ümlaut", 'quote"', "{}"])
def test_an_id_that_could_do_harm_is_replaced(client: FlaskClient, bad: str) -> None:
    answers = [client.get("/api/v1/jobs", headers={"X-Request-ID": bad}) for _ in range(2)]
    ids = {answer.headers["X-Request-ID"] for answer in answers}
    assert len(ids) == 2
    assert bad not in ids
    assert {answer.get_json()["request_id"] for answer in answers} == ids


def test_an_error_nobody_expected_can_be_found_in_the_log_by_its_id(client: FlaskClient, written: io.StringIO) -> None:
    into(written, "json")
    client.application.extensions["bgpanet"].__dict__["database"] = None
    answer = client.get("/api/v1/jobs", headers={"Authorization": "Bearer x"})
    assert answer.status_code == 500
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    failed = [line for line in lines if "exception" in line]
    assert [line["request"] for line in failed] == [answer.get_json()["request_id"]]
