import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError

from bgpanet.events import (
    ArtifactWritten,
    CheckpointWritten,
    Event,
    Failure,
    Log,
    Metrics,
    Progress,
    Result,
    Started,
    parse_event,
    pipe_report,
)

EVENTS: list[Event] = [
    Progress(fraction=0.5, message="é\n", step=1, eta_seconds=2.5),
    Metrics(step=3, epoch=1, values={"train_loss": 0.1 + 0.2}),
    CheckpointWritten(path="/x", step=1, epoch=0),
    Started(step=0),
    ArtifactWritten(name="report.json", path="/x", media_type="application/json"),
    Log(message="a line"),
    Result(summary={"figures": {"accuracy": 1 / 3}}),
    Failure(reason="internal", message="x"),
]


def test_every_event_survives_a_pipe_one_line_each() -> None:
    reading, writing = os.pipe()
    for event in EVENTS:
        pipe_report(writing)(event)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert [parse_event(line) for line in pipe] == EVENTS


def test_lines_of_several_threads_stay_whole_where_they_are_longer_than_the_pipe() -> None:
    reading, writing = os.pipe()
    report = pipe_report(writing)
    said = [Log(message=letter * 200_000) for letter in "abcd"]
    with os.fdopen(reading, "rb") as pipe, ThreadPoolExecutor(len(said)) as threads:
        told = [threads.submit(report, event) for event in said for _ in range(3)]
        heard = [parse_event(pipe.readline()) for _ in told]
    os.close(writing)
    assert all(heard.count(event) == 3 for event in said)


@pytest.mark.parametrize("line", [b"", b"text\n", b"\xff\xfe", b'{"type": "newer"}', b'{"type": "started"}', b"[1]"])
def test_a_line_that_is_no_event_is_passed_over(line: bytes) -> None:
    assert parse_event(line) is None


def test_what_a_newer_child_says_more_is_ignored() -> None:
    assert parse_event(b'{"type": "started", "step": 1, "colour": "red"}') == Started(step=1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_no_number_is_refused_where_it_arises(value: float) -> None:
    with pytest.raises(ValidationError):
        Metrics(step=1, epoch=1, values={"train_loss": value})


def test_a_reader_that_is_gone_is_told() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        pipe_report(writing)(Started(step=0))
    os.close(writing)
