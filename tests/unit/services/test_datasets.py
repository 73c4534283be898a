"""Registering and removing data sets, on SQLite and a folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from bgpanet.data import synthetic
from bgpanet.data.index import Index
from bgpanet.data.readers import read
from bgpanet.data.readers.draft import Progress
from bgpanet.errors import InvalidInput
from services import datasets, jobs, submission, views
from services.claims import NewJob
from services.context import Context
from services.datasets import Registration
from services.errors import Conflict, NotFound, StaleAttempt, StorageError
from services.order import Offer
from services.settings import Settings
from services.submission import Request
from services.tables import Dataset, Job
from tests.support.databases import make_schema
from tests.support.registering import ADA, register, work


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    settings = Settings.load({"BGPANET_HOME": str(tmp_path / "home"), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"})
    made = Context(settings)
    make_schema(made.database.url)
    yield made
    made.database.close()
    made.celery.close()


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets of drawn lesions, `a` and `b`."""
    folder = tmp_path_factory.mktemp("drawn")
    synthetic.draw(folder / "a", lesions=30)
    synthetic.draw(folder / "b", lesions=30, seed=1)
    return folder


def begin(context: Context, name: str, path: Path, **more: Any) -> str:
    asked = Registration(name=name, format="ham10000", folder=str(path), **more)
    return datasets.register(context, ADA, asked)[0]


def submit(context: Context, dataset: str, kind: str = "train") -> str:
    spec = {"model": "bgpanet_micro", "split": {"folds": 2, "validation_folds": 2}}
    job, _ = submission.submit(context, ADA, Request(kind=kind, dataset=dataset, spec=spec))
    return str(job["id"])


def state(context: Context, job_id: str) -> tuple[str, str | None]:
    job = views.get_job(context.database, ADA, job_id)
    return job["state"], job["reason"]


def files(context: Context) -> list[str]:
    return list(context.store.keys(""))


# ── Registering ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_data_set_is_ready_once_its_job_has_read_and_packed_it(context: Context, drawn: Path) -> None:
    dataset_id = begin(context, "lesions", drawn / "a", licence="CC0", citation="Me, 2026")
    before = views.get_dataset(context.database, ADA, dataset_id)
    assert (before["state"], before["version"], before["digest"], before["images"]) == ("registering", None, None, None)
    assert before["progress"]["fraction"] == 0
    work(context)
    made = views.get_dataset(context.database, ADA, dataset_id)
    assert (made["state"], made["version"], made["progress"]) == ("ready", 1, None)
    assert (made["licence"], made["citation"], made["created_by"]) == ("CC0", "Me, 2026", "ada")
    assert made["columns"] == ["age", "dx_type", "lesion_id", "localization", "sex"]
    assert made["images"] == sum(count["images"] for count in made["class_counts"]) > 30
    assert sum(count["groups"] for count in made["class_counts"]) == made["groups"]
    job = views.get_job(context.database, ADA, made["job"])
    assert (job["state"], job["kind"], job["summary"]["digest"]) == ("succeeded", "register", made["digest"])
    assert {a["name"] for a in views.list_artifacts(context.database, ADA, job["id"])} >= {"index.json", "images.tar"}


def test_other_content_under_a_name_is_its_next_version_and_the_same_again_is_the_one_that_is_there(
    context: Context, drawn: Path
) -> None:
    first, second = register(context, "x", drawn / "a"), register(context, "x", drawn / "b")
    kept = files(context)
    again = register(context, "x", drawn / "a")
    assert (first["version"], second["version"]) == (1, 2)
    assert again["id"] == first["id"]
    assert [row["id"] for row in views.list_datasets(context.database, ADA).items] == [second["id"], first["id"]]
    assert files(context) == kept  # of the same content nothing is stored twice


def test_a_data_set_is_compared_with_those_alone_that_all_see_who_see_it(context: Context, drawn: Path) -> None:
    """Its report tells names of others, and ids of their images, which may be those of patients."""
    register(context, "of-bob", drawn / "a", project="~bob")
    register(context, "open", drawn / "a", project="shared")
    register(context, "other", drawn / "a")
    register(context, "mine", drawn / "a")
    compared = {
        place: register(context, "mine", drawn / "b", project=place)["checks"]["shared"].keys()
        for place in ("~ada", "~bob", "shared")
    }
    assert compared["~ada"] == {"shared/open@1", "other@1"}
    assert compared["~bob"] == {"shared/open@1", "of-bob@1"}
    assert compared["shared"] == {"open@1"}


def test_a_name_means_its_newest_version_that_is_ready_and_others_have_to_be_named(
    context: Context, drawn: Path
) -> None:
    first, second = register(context, "x", drawn / "a"), register(context, "x", drawn / "b")
    begin(context, "x", drawn / "a")
    for name, expected in (("x", second), ("x@1", first), ("x@2", second), (first["id"], first)):
        assert views.find_dataset(context.database, ADA, name).id == expected["id"]
    assert register(context, first["id"], drawn / "b")["name"] == first["id"]
    assert views.find_dataset(context.database, ADA, first["id"]).id == first["id"]  # nobody takes its place by a name
    for name in ("x@3", "x@", "x@-1", "x@1.0", "@1", "x@99999999999999999999"):
        with pytest.raises(NotFound):
            views.find_dataset(context.database, ADA, name)


def test_drawn_lesions_without_their_mark_are_another_data_set(context: Context, tmp_path: Path) -> None:
    """Whether images are drawn is part of what they are: it must not come from somebody else's cache."""
    synthetic.draw(tmp_path / "a", lesions=30)
    drawn = register(context, "drawn", tmp_path / "a")
    (tmp_path / "a" / "SYNTHETIC.txt").unlink()
    claimed = register(context, "claimed", tmp_path / "a")
    assert (drawn["synthetic"], claimed["synthetic"]) == (True, False)
    assert drawn["digest"] != claimed["digest"]


def test_data_that_can_not_be_used_is_refused_with_every_problem(context: Context, tmp_path: Path) -> None:
    synthetic.draw(tmp_path / "a", lesions=30)
    table = tmp_path / "a" / "HAM10000_metadata.csv"
    head, first, second, *rest = table.read_text().splitlines()
    table.write_text("\n".join([head, first, first, second.replace(second.split(",")[2], "wart"), *rest]))
    made = register(context, "x", tmp_path / "a")
    assert (made["state"], made["version"], made["digest"]) == ("refused", None, None)
    assert {finding["level"] for finding in made["findings"]} == {"refused"}
    told = " ".join(finding["what"] for finding in made["findings"])
    assert "another image has the same id" in told
    assert "unknown label" in told
    assert state(context, made["job"]) == ("failed", "invalid_input")
    with pytest.raises(InvalidInput, match="was refused"):
        submit(context, "x")


def test_data_that_changes_while_it_is_registered_is_refused_and_nothing_is_stored(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic.draw(tmp_path / "a", lesions=30)

    def read_then_change(format: str, path: Path, progress: Progress) -> Index:
        index = read(format, path, progress)
        index.records[3].path.write_bytes(b"changed")
        return index

    monkeypatch.setattr("bgpanet.registration.read", read_then_change)
    made = register(context, "x", tmp_path / "a")
    assert made["state"] == "refused"
    assert "changed while it was read" in made["error"]
    assert files(context) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "a b"}, "name"),
        ({"name": "x@1"}, "name"),
        ({"format": "nope"}, "format"),
        ({"folder": "relative"}, "path"),
        ({"folder": None}, "spec.source"),
        ({"s3": "s3://nope/x", "folder": None}, "source.s3"),
        ({"upload": "u", "folder": None}, "source.upload"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_recorded(
    context: Context, changes: dict[str, Any], field: str
) -> None:
    asked = Registration(**{"name": "x", "format": "ham10000", "folder": "/x", **changes})
    with pytest.raises(InvalidInput) as caught:
        datasets.register(context, ADA, asked)
    assert [problem.where for problem in caught.value.problems] == [field]
    assert views.list_datasets(context.database, ADA).items == []


def test_the_same_request_with_the_same_key_is_one_registration(context: Context, drawn: Path) -> None:
    asked = Registration(name="x", format="ham10000", folder=str(drawn / "a"), idempotency_key="k")
    first, new = datasets.register(context, ADA, asked)
    assert datasets.register(context, ADA, asked) == (first, False)
    assert new
    with pytest.raises(Conflict, match="key was used"):
        datasets.register(context, ADA, Registration(**{**vars(asked), "folder": str(drawn / "b")}))


def test_a_registration_whose_worker_died_is_done_by_another_and_the_first_can_write_nothing(
    context: Context, drawn: Path
) -> None:
    dataset_id = begin(context, "x", drawn / "a")
    dead = jobs.claim(context.database, "dead", Offer(["any"]), 0)
    assert dead is not None
    assert jobs.expire_leases(context.database) == [dead.lease.job_id]
    with context.database.write() as session:
        job = session.get(Job, dead.lease.job_id)
        assert job is not None
        job.not_before = 0
    assert views.get_dataset(context.database, ADA, dataset_id)["state"] == "registering"

    def late() -> None:
        with pytest.raises(StaleAttempt):
            jobs.finish(context.database, dead.lease, {}, [])

    work(context, between=late)
    assert views.get_dataset(context.database, ADA, dataset_id)["state"] == "ready"


def test_cancelling_a_registration_refuses_its_data_set(context: Context, drawn: Path) -> None:
    dataset_id = begin(context, "x", drawn / "a")
    waiting = submit(context, "x")
    made = views.get_dataset(context.database, ADA, dataset_id)
    assert jobs.cancel(context.database, made["job"]) == "cancelled"
    assert views.get_dataset(context.database, ADA, dataset_id)["state"] == "refused"
    assert state(context, waiting) == ("failed", "invalid_input")


# ── Jobs on a data set that is being registered ──────────────────────────────────────────────────────────────────


def test_jobs_on_a_data_set_that_is_being_registered_wait_for_it(context: Context, drawn: Path) -> None:
    begin(context, "x", drawn / "a")
    training, validation = submit(context, "x"), submit(context, "x", "cross_validate")
    work(context, between=lambda: waits(context))
    claims = [jobs.claim(context.database, "w", Offer(["any"]), 60) for _ in range(4)]
    folds = [child["id"] for child in views.list_children(context.database, ADA, validation)]
    assert [claim and claim.lease.job_id for claim in claims] == [training, *folds, None]


def waits(context: Context) -> None:
    assert jobs.claim(context.database, "w", Offer(["any"]), 60) is None
    assert jobs.count_waiting(context.database) == {}


def test_jobs_that_waited_for_a_data_set_that_is_refused_fail_with_the_reason(context: Context, tmp_path: Path) -> None:
    begin(context, "x", tmp_path)
    training, validation = submit(context, "x"), submit(context, "x", "cross_validate")
    work(context)
    for job_id in (training, validation):
        assert state(context, job_id) == ("failed", "invalid_input")
        error = views.get_job(context.database, ADA, job_id)["error"]
        assert "its data set was refused" in error
        assert "HAM10000_metadata.csv" in error
    assert jobs.claim(context.database, "w", Offer(["any"]), 60) is None


def test_jobs_that_waited_for_content_that_was_there_run_on_the_version_that_has_it(
    context: Context, drawn: Path
) -> None:
    first = register(context, "x", drawn / "a")
    again = begin(context, "x", drawn / "a")
    job_id = submit(context, again)
    work(context)
    claim = jobs.claim(context.database, "w", Offer(["any"]), 60)
    assert claim is not None
    assert (claim.lease.job_id, claim.dataset_id) == (job_id, first["id"])


# ── Removing ─────────────────────────────────────────────────────────────────────────────────────────────────────


def remove(context: Context, dataset_id: str) -> None:
    datasets.remove(context.database, context.store, dataset_id, "ada")


def test_a_data_set_that_nobody_used_disappears_with_its_files_and_its_registration(
    context: Context, drawn: Path
) -> None:
    made = register(context, "x", drawn / "a")
    register(context, "x", drawn / "a")
    remove(context, made["id"])
    assert files(context) == []
    with context.database.read() as session:
        assert session.scalars(select(Dataset)).all() == []
        assert session.scalars(select(Job)).all() == []
    with pytest.raises(NotFound):
        remove(context, made["id"])


def test_a_data_set_that_jobs_used_loses_its_files_and_keeps_their_story(context: Context, drawn: Path) -> None:
    made = register(context, "x", drawn / "a")
    jobs.cancel(context.database, submit(context, "x"))
    remove(context, made["id"])
    (left,) = files(context)
    with context.store.open(left) as file:
        assert json.load(file)["findings"] == made["findings"]
    kept = views.get_dataset(context.database, ADA, "x@1")
    assert (kept["state"], kept["removed_by"], kept["bytes"]) == ("removed", "ada", 0)
    for field in ("digest", "class_counts", "findings", "groups", "created_by", "created_at", "version"):
        assert kept[field] == made[field]
    with pytest.raises(InvalidInput, match="was removed"):
        submit(context, "x")
    with pytest.raises(Conflict):
        jobs.submit(context.database, NewJob("train", "late", {}, made["id"], "ada"))
    with pytest.raises(NotFound):
        remove(context, made["id"])
    assert register(context, "x", drawn / "a")["version"] == 2


def test_a_data_set_that_jobs_wait_for_is_not_removed_and_they_are_named(context: Context, drawn: Path) -> None:
    dataset_id = begin(context, "x", drawn / "a")
    with pytest.raises(Conflict, match=views.get_dataset(context.database, ADA, dataset_id)["job"]):
        remove(context, dataset_id)
    work(context)
    job_id = submit(context, "x", "cross_validate")
    with pytest.raises(Conflict, match=job_id):
        remove(context, dataset_id)


def test_removing_a_data_set_leaves_another_with_the_same_content_whole(context: Context, drawn: Path) -> None:
    one, two = register(context, "one", drawn / "a"), register(context, "two", drawn / "a")
    remove(context, one["id"])
    row = views.find_dataset(context.database, ADA, two["id"])
    assert all(context.store.exists(file["key"]) for file in row.files.values())


def test_a_removal_that_the_store_failed_can_be_repeated(
    context: Context, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = register(context, "x", drawn / "a")

    def fails(key: str) -> None:
        raise StorageError("away")

    monkeypatch.setattr(context.store, "delete", fails)
    with pytest.raises(StorageError):
        remove(context, made["id"])
    with pytest.raises(InvalidInput):
        submit(context, "x")
    monkeypatch.undo()
    remove(context, made["id"])
    assert files(context) == []
