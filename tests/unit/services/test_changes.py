"""A job's story: everything that is to be told once is told once, from whichever place on it is asked for."""

from typing import Any

import pytest

from bgpanet.errors import InvalidInput
from services import jobs
from services.changes import LINES_AT_ONCE, Change, Place, Story, Topic
from services.claims import Batch, Claim, NewJob
from services.database import Database
from services.errors import NotFound
from services.order import Offer
from services.tokens import Principal
from tests.support.clocked import Clock

ADA = Principal("ada", "researcher")


def submit(database: Database, folds: int = 0) -> str:
    def new(kind: str, **more: Any) -> NewJob:
        return NewJob(kind=kind, name="a job", spec={}, dataset_id="d", created_by="ada", **more)

    children = [new("train") for _ in range(folds)]
    return jobs.submit(database, new("cross_validate", children=children) if folds else new("train"))[0]


def claim(database: Database) -> Claim:
    claimed = jobs.claim(database, "w", Offer(["any"]), 30)
    assert claimed is not None
    return claimed


def says(database: Database, clock: Clock, claimed: Claim, **batch: Any) -> None:
    clock.forward(1)
    jobs.renew(database, claimed.lease, 30, Batch(**batch))


def figures(step: int, epoch: int, **values: float) -> list[dict[str, Any]]:
    return [{"step": step, "epoch": epoch, "name": name, "value": value} for name, value in values.items()]


def story(database: Database, job_id: str, place: Place | None = None, *topics: Topic) -> Story:
    return Story(database, ADA, job_id, place or Place(), topics)


def told(changes: list[Change]) -> list[tuple[str, Any]]:
    key = {"state": "state", "log": "message", "started": "step", "metrics": "values", "progress": "message"}
    return [(c.kind, c.data[key.get(c.kind, "state")]) for c in changes]


def to_the_end(reader: Story) -> list[Change]:
    changes: list[Change] = []
    while not changes or changes[-1].kind != "end":
        new = reader.read()
        assert new, "the story stands still before its end"
        changes += new
    return changes


def finished_training(database: Database, clock: Clock) -> str:
    job_id = submit(database)
    claimed = claim(database)
    jobs.resumed(database, claimed.lease, 0)
    says(database, clock, claimed, metrics=figures(1, 0, loss=0.9, rate=0.1), logs=[("info", "one"), ("info", "two")])
    says(database, clock, claimed, progress={"fraction": 0.5, "message": "half"})
    says(database, clock, claimed, metrics=figures(2, 0, loss=0.5) + figures(2, 1, validation_loss=0.7))
    jobs.finish(database, claimed.lease, {"figures": {}}, [])
    return job_id


def test_what_happens_is_told_as_it_happens(database: Database, clock: Clock) -> None:
    job_id = submit(database)
    reader = story(database, job_id)
    assert told(reader.read()) == [("state", "queued"), ("progress", "")]
    assert reader.read() == []
    claimed = claim(database)
    assert told(reader.read()) == [("state", "running")]
    jobs.resumed(database, claimed.lease, 0)
    says(database, clock, claimed, metrics=figures(3, 0, loss=0.9), logs=[("info", "one")])
    assert told(reader.read()) == [("started", 0), ("metrics", {"loss": 0.9}), ("log", "one")]
    says(database, clock, claimed, progress={"fraction": 0.5, "message": "half"})
    assert told(reader.read()) == [("progress", "half")]
    says(database, clock, claimed)
    assert reader.read() == []
    says(database, clock, claimed, logs=[("info", "done")])
    jobs.finish(database, claimed.lease, {}, [])
    assert told(reader.read()) == [("log", "done"), ("progress", "half"), ("state", "succeeded"), ("end", "succeeded")]


def test_from_any_place_on_exactly_the_rest_is_told(database: Database, clock: Clock) -> None:
    whole = to_the_end(story(database, finished_training(database, clock)))
    assert len(whole) > 8
    for number, change in enumerate(whole[:-1]):
        assert (
            to_the_end(story(database, str(whole[-1].data["id"]), Place.parse(str(change.place))))
            == (whole[number + 1 :])
        )
    assert whole[-1].place.ended


def test_figures_of_an_epoch_s_end_are_not_lost_for_having_the_step_of_those_before(
    database: Database, clock: Clock
) -> None:
    job_id = submit(database)
    reader, claimed = story(database, job_id, None, "metrics"), claim(database)
    says(database, clock, claimed, metrics=figures(5, 0, loss=0.9))
    assert told(reader.read()) == [("metrics", {"loss": 0.9})]
    says(database, clock, claimed, metrics=figures(5, 1, accuracy=0.4, validation_loss=0.8))
    assert told(reader.read()) == [("metrics", {"accuracy": 0.4, "validation_loss": 0.8})]


def test_figures_that_a_new_attempt_takes_back_are_told_again(database: Database, clock: Clock) -> None:
    job_id = submit(database)
    reader, claimed = story(database, job_id, None, "metrics"), claim(database)
    for step in (1, 2, 3):
        says(database, clock, claimed, metrics=figures(step, 0, loss=step))
    assert len(reader.read()) == 3
    jobs.release(database, claimed.lease, "the worker left")
    claimed = claim(database)
    jobs.resumed(database, claimed.lease, 1)
    says(database, clock, claimed, metrics=figures(2, 0, loss=20))
    after = Place.parse(str(reader.place))
    expected = [("started", 1), ("metrics", {"loss": 20.0})]
    assert told(reader.read()) == expected
    assert told(story(database, job_id, after, "metrics").read()) == expected


def test_more_lines_than_are_read_at_once_come_whole_and_before_the_end(database: Database, clock: Clock) -> None:
    job_id = submit(database)
    claimed = claim(database)
    lines = [str(number) for number in range(2 * LINES_AT_ONCE + 1)]
    says(database, clock, claimed, logs=[("info", line) for line in lines])
    jobs.finish(database, claimed.lease, {}, [])
    whole = to_the_end(story(database, job_id, None, "log"))
    assert told(whole) == [*[("log", line) for line in lines], ("end", "succeeded")]


def test_a_parent_tells_each_child_s_state(database: Database, clock: Clock) -> None:
    parent = submit(database, folds=3)
    reader = story(database, parent, None, "child")
    assert [change.data["state"] for change in reader.read()] == ["queued"] * 3
    first = claim(database)
    (change,) = reader.read()
    assert (change.data["id"], change.data["position"], change.data["state"]) == (first.lease.job_id, 0, "running")
    place = Place.parse(str(reader.place))
    jobs.fail(database, first.lease, "internal", "broken")
    again = jobs.retry(database, first.lease.job_id)
    expected = [(first.lease.job_id, "failed", "internal"), (again, "queued", None)]
    for each in (reader, story(database, parent, place, "child")):
        assert [(c.data["id"], c.data["state"], c.data["reason"]) for c in each.read()] == expected


def test_another_user_s_story_does_not_exist_even_where_it_was_read_before(database: Database) -> None:
    job_id = submit(database)
    with pytest.raises(NotFound):
        Story(database, Principal("bob", "researcher"), job_id, Place()).read()


@pytest.mark.parametrize("children", ["", "q", "qqrrrs", "q" * 2000, "sf" * 300])
def test_a_place_survives_being_written_down(children: str) -> None:
    place = Place(12, 34, 2, 500, 3, "0123abcd", children, ended=True)
    assert Place.parse(str(place)) == place


FULL_WIDTH = "t\N{FULLWIDTH DIGIT ONE}l0a0m0.0pc"


@pytest.mark.parametrize("text", ["", "12", "t1l1a1m1.1pcx3", "t1l1a1m1.1pcq9999q9999e", "t-1l0a0m0.0pc", FULL_WIDTH])
def test_a_place_that_was_never_told_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Place.parse(text)
