"""Registering, naming, moving and removing models, on SQLite and a folder."""

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, select, update

from bgpanet.errors import InvalidInput
from services import jobs, model_jobs, models, retention, submission, uploads, views
from services.claims import NewArtifact, NewJob
from services.context import Context
from services.errors import Conflict, NotFound
from services.model_jobs import Coming
from services.models import Wanted
from services.order import Offer
from services.settings import Settings
from services.submission import Request
from services.tables import Dataset, Upload
from services.tokens import Principal
from services.uploads import NewUpload
from tests.support.clocked import DATASET
from tests.support.databases import make_schema
from tests.support.trained import SUMMARY, finish, store, trained

ADA, BOB, ROOT = Principal("ada", "researcher"), Principal("bob", "researcher"), Principal("root", "admin")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    settings = Settings.load({"BGPANET_HOME": str(tmp_path), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"})
    made = Context(settings)
    make_schema(made.database.url)
    with made.database.write() as session:
        session.execute(insert(Dataset).values(**DATASET))
    yield made
    made.database.close()
    made.celery.close()


def register(context: Context, weights: str = "weights", name: str = "lesions", alias: str | None = None) -> int:
    job_id = trained(context, "ada", weights)
    version, created = models.register(context, ADA, Wanted(name, job_id, alias))
    assert created
    return int(version["version"])


def problems(error: pytest.ExceptionInfo[InvalidInput]) -> list[str]:
    return [problem.where for problem in error.value.problems]


# ── Registering ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_finished_training_is_a_version_with_its_figures_and_where_it_came_from(context: Context) -> None:
    job_id = trained(context, "ada")
    made, created = models.register(context, ADA, Wanted("lesions", job_id, "champion", "the first"))
    assert created
    assert (made["model"], made["version"], made["state"], made["aliases"]) == ("lesions", 1, "ready", ["champion"])
    assert made["metrics"] == SUMMARY
    assert made["card"]["classes"] == ["mel", "nv"]
    assert {"model.safetensors", "model.json", "split.json", "model_card.md"} == made["files"].keys()
    came_from = made["provenance"]
    assert (came_from["job"], came_from["dataset"], came_from["code"]) == (job_id, "lesions", "0.1.0")
    assert (came_from["dataset_digest"], came_from["split_digest"]) == ("0" * 64, "1" * 64)
    assert "no diagnosis" in made["intended_use"]


def test_other_weights_are_the_next_version_and_the_same_ones_the_version_that_is_there(context: Context) -> None:
    assert [register(context, "a"), register(context, "b")] == [1, 2]
    version, created = models.register(context, ADA, Wanted("lesions", trained(context, "ada", "a")))
    assert (version["version"], created) == (1, False)
    assert register(context, "a", "other") == 1


def test_the_folds_of_a_cross_validation_are_one_version(context: Context) -> None:
    spec = {"model": {"name": "bgpanet_micro"}, "resources": {"device": "any"}}
    values = {"spec": spec, "dataset_id": "d", "created_by": "ada"}
    children = [NewJob(kind="train", name=f"fold {n}", **values) for n in range(2)]  # type: ignore[arg-type]
    whole = NewJob(kind="cross_validate", name="folds", children=children, **values)  # type: ignore[arg-type]
    job_id, _ = jobs.submit(context.database, whole)
    for fold in views.list_children(context.database, ADA, job_id):
        finish(context, fold["id"], fold["name"])
    with pytest.raises(InvalidInput, match="only one that succeeded"):
        models.register(context, ADA, Wanted("lesions", job_id))
    claim = jobs.claim(context.database, "w", Offer(["any"]), 30)
    assert claim is not None
    jobs.finish(context.database, claim.lease, SUMMARY, [])
    made, _ = models.register(context, ADA, Wanted("lesions", job_id))
    assert made["members"] == 2
    assert {name.partition("/")[0] for name in made["files"]} == {"fold-0", "fold-1"}


def test_everything_that_is_wrong_is_told_at_once(context: Context) -> None:
    with pytest.raises(InvalidInput) as error:
        models.register(context, ADA, Wanted("a/b", "nothing", "3"))
    assert problems(error) == ["name", "alias", "job"]
    with pytest.raises(InvalidInput) as error:
        models.register(context, ADA, Wanted("bgpanet_micro", trained(context, "ada")))
    assert problems(error) == ["name"]
    with pytest.raises(InvalidInput) as error:  # another one's job does not exist
        models.register(context, BOB, Wanted("lesions", trained(context, "ada")))
    assert problems(error) == ["job"]


def test_versions_that_are_registered_at_once_get_numbers_of_their_own(context: Context) -> None:
    ids = [trained(context, "ada", f"weights {n}") for n in range(6)]
    numbers: list[int] = []

    def add(job_id: str) -> None:
        numbers.append(int(models.register(context, ADA, Wanted("lesions", job_id))[0]["version"]))

    threads = [threading.Thread(target=add, args=[job_id]) for job_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]


# ── Names ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_name_stands_for_the_newest_version_and_an_alias_for_the_one_it_was_given(context: Context) -> None:
    register(context, "a", alias="champion")
    register(context, "b")
    names = {given: models.choose(context.database, ADA, given).name for given in ("lesions", "lesions@champion")}
    assert names == {"lesions": "lesions@2", "lesions@champion": "lesions@1"}
    for wrong in ("lesions@3", "lesions@nobody", "other", "lesions@", "@", "lesions@99999999999"):
        with pytest.raises(NotFound):
            models.choose(context.database, ADA, wrong)


def test_an_alias_moves_only_from_where_it_is_expected(context: Context) -> None:
    for weights in "abc":
        register(context, weights)
    assert models.point(context.database, ADA, "lesions", "champion", 1, expected=0)["aliases"] == {"champion": 1}
    models.point(context.database, ADA, "lesions", "champion", 2, expected=1)
    with pytest.raises(Conflict, match="stands for version 2, not for 1"):
        models.point(context.database, ADA, "lesions", "champion", 3, expected=1)
    with pytest.raises(NotFound):
        models.point(context.database, ADA, "lesions", "champion", 4)
    models.drop(context.database, ADA, "lesions", "champion")
    with pytest.raises(NotFound):
        models.drop(context.database, ADA, "lesions", "champion")


def test_another_ones_model_does_not_exist_but_for_admins(context: Context) -> None:
    register(context)
    for look in (models.get_model, models.list_versions, models.choose, models.get_version):
        with pytest.raises(NotFound):
            look(context.database, BOB, "lesions")
    assert models.list_models(context.database, BOB).items == []
    assert models.get_model(context.database, ROOT, "lesions")["created_by"] == "ada"
    job_id = trained(context, "bob")
    mine, _ = models.register(context, BOB, Wanted("lesions", job_id))
    assert mine["version"] == 1
    with pytest.raises(Conflict, match="name one by its id"):
        models.get_model(context.database, ROOT, "lesions")
    assert models.get_model(context.database, BOB, "lesions")["id"] == mine["model_id"]


# ── Using ────────────────────────────────────────────────────────────────────────────────────────────────────────


def predict(context: Context, model: str, kind: str = "predict") -> dict[str, object]:
    request = Request(kind=kind, dataset="lesions", spec={"model": model})
    return submission.submit(context, ADA, request)[0]


def test_a_job_records_the_version_for_which_the_name_stood_when_it_was_submitted(context: Context) -> None:
    register(context, "a", alias="champion")
    first = models.choose(context.database, ADA, "lesions@1")
    other = trained(context, "ada", "b")
    job = predict(context, "lesions@champion")
    models.register(context, ADA, Wanted("lesions", other))
    models.point(context.database, ADA, "lesions", "champion", 2)
    shown = views.get_job(context.database, ADA, str(job["id"]))
    assert (shown["model_version_id"], shown["spec"]["model"]) == (first.id, "lesions@1")
    assert "lesions@1" in shown["name"]
    assert predict(context, "lesions@champion")["spec"]["model"] == "lesions@2"  # type: ignore[index]
    with pytest.raises(InvalidInput, match="no alias 'nobody'"):
        predict(context, "lesions@nobody")


def test_a_model_that_a_job_is_to_use_is_not_removed_and_a_removed_one_is_not_used(context: Context) -> None:
    register(context)
    job = predict(context, "lesions")
    with pytest.raises(Conflict, match=str(job["id"])):
        models.remove(context, ADA, "lesions", "1")
    jobs.cancel(context.database, str(job["id"]))
    models.remove(context, ADA, "lesions", "1")
    with pytest.raises(InvalidInput, match="no version that is ready"):
        predict(context, "lesions")
    with pytest.raises(InvalidInput, match="removed"):
        predict(context, "lesions@1")


# ── Keeping and removing ─────────────────────────────────────────────────────────────────────────────────────────


def keys(context: Context) -> set[str]:
    return set(context.store.keys("jobs/"))


def test_what_is_registered_outlives_its_job_and_retention(context: Context) -> None:
    job_id = trained(context, "ada")
    models.register(context, ADA, Wanted("lesions", job_id))
    for key in keys(context):
        path = context.store.local_path(key)
        assert path is not None
        os.utime(path, (1, 1))
    with context.database.write() as session:
        jobs.forget(session, [job_id])
    before = keys(context)
    assert len(before) == 4
    retention.sweep(context)
    assert keys(context) == before
    version = models.get_version(context.database, ADA, "lesions")
    assert version["metrics"] == SUMMARY


def test_removing_keeps_the_story_and_numbers_and_leaves_files_that_the_job_still_has(context: Context) -> None:
    register(context, "a", alias="champion")
    models.remove(context, ADA, "lesions")
    row = models.list_versions(context.database, ADA, "lesions")[0]
    assert (row["state"], row["removed_by"], row["files"], row["metrics"]) == ("removed", "ada", {}, SUMMARY)
    assert row["provenance"]["dataset"] == "lesions"
    assert models.get_model(context.database, ADA, "lesions")["aliases"] == {}
    assert len(keys(context)) == 4  # they are the training's
    with pytest.raises(NotFound):
        models.remove(context, ADA, "lesions", "1")
    assert register(context, "a") == 2


def test_removing_deletes_files_that_nothing_else_names(context: Context) -> None:
    job_id = trained(context, "ada")
    models.register(context, ADA, Wanted("lesions", job_id))
    models.register(context, ADA, Wanted("others", job_id))
    with context.database.write() as session:
        jobs.forget(session, [job_id])
    models.remove(context, ADA, "lesions")
    assert len(keys(context)) == 4
    models.remove(context, ADA, "others")
    assert keys(context) == set()


# ── Importing ────────────────────────────────────────────────────────────────────────────────────────────────────


def begin_import(context: Context, key: str | None = None) -> dict[str, object]:
    content = b"a zip"
    sha256 = hashlib.sha256(content).hexdigest()
    upload, _ = uploads.begin(context, ADA, NewUpload("ours.zip", len(content), sha256))
    if upload["state"] == "open":
        uploads.put_part(context, ADA, upload["id"], 1, io.BytesIO(content), len(content), sha256)
        uploads.complete(context, ADA, upload["id"])
    coming = Coming("ours", upload["id"], "from a friend", idempotency_key=key)
    return model_jobs.import_model(context, ADA, coming)[0]


def end_import(context: Context, weights: str) -> set[str]:
    """What the job of an import ends with. Returns the keys that it says are named."""
    claim = jobs.claim(context.database, "w", Offer(["any"]), 30)
    assert claim is not None
    assert claim.kind == "import"
    files = {"model.safetensors": weights, "model.json": "{}"}
    stored = [
        NewArtifact(name, "application/json", store(context, f"jobs/{claim.lease.job_id}/1/{name}", text.encode()))
        for name, text in files.items()
    ]
    summary = {"members": 1, "card": {}, "metrics": {}, "provenance": {}, "places": {name: name for name in files}}
    return jobs.finish(context.database, claim.lease, summary, stored)


def test_an_imported_model_is_ready_once_it_was_checked_and_its_files_are_named_from_then_on(context: Context) -> None:
    made = begin_import(context)
    assert (made["state"], made["version"], made["note"]) == ("importing", None, "from a friend")
    with pytest.raises(NotFound):
        models.choose(context.database, ADA, "ours")
    named = end_import(context, "weights")
    ready = models.get_version(context.database, ADA, "ours@1")
    assert (ready["id"], ready["state"], ready["source"]) == (made["id"], "ready", "imported")
    assert named == keys(context)  # a worker deletes whatever else the job has stored
    models.remove(context, ADA, "ours", "1")
    assert keys(context) == set()


def test_the_same_content_again_is_the_version_that_is_there(context: Context) -> None:
    begin_import(context)
    end_import(context, "weights")
    again = begin_import(context)
    assert end_import(context, "weights") == set()
    assert models.get_version(context.database, ADA, str(again["id"]))["version"] == 1
    assert len(models.list_versions(context.database, ADA, "ours")) == 1


def test_an_upload_goes_once_it_became_a_model_and_not_before(context: Context) -> None:
    begin_import(context)
    with context.database.write() as session:
        session.execute(update(Upload).values(created_at=0))
    assert uploads.sweep(context) == [], "it is being read, however old it is"
    with context.database.read() as session:
        upload_id = session.scalars(select(Upload.id)).one()
    with pytest.raises(Conflict, match="a model is being imported"):
        uploads.remove(context, ADA, upload_id)
    end_import(context, "weights")
    assert len(uploads.sweep(context)) == 1
    begin_import(context)
    end_import(context, "weights")
    assert len(uploads.sweep(context)) == 1, "the same content again"
    assert not [key for key in keys(context) if key.startswith("uploads/")]
    refused = begin_import(context)
    model_version = models.get_version(context.database, ADA, str(refused["id"]))
    jobs.cancel(context.database, str(model_version["job"]))
    assert uploads.sweep(context) == [], "who sent it may try again for a week"


def test_an_import_that_was_refused_or_cancelled_says_why_and_has_no_number(context: Context) -> None:
    made = begin_import(context, "key")
    assert begin_import(context, "key")["id"] == made["id"]
    claim = jobs.claim(context.database, "w", Offer(["any"]), 30)
    assert claim is not None
    found = [{"level": "refused", "where": "model.pt", "what": "can run code", "rows": [], "count": 0}]
    jobs.fail(context.database, claim.lease, "invalid_input", "it can run code", findings=found)
    refused = models.get_version(context.database, ADA, str(made["id"]))
    assert (refused["state"], refused["error"], refused["version"]) == ("refused", "it can run code", None)
    assert refused["findings"] == found
    cancelled = begin_import(context)
    jobs.cancel(context.database, str(cancelled["job"]))
    assert "cancelled" in str(models.get_version(context.database, ADA, str(cancelled["id"]))["error"])
    with pytest.raises(Conflict, match="import the model again"):
        jobs.retry(context.database, str(cancelled["job"]))
