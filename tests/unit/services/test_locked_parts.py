"""The locked part of a data set: no training is handed it, and every use of it can be told."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bgpanet.data import synthetic
from bgpanet.data.pack import read_pack
from bgpanet.errors import InvalidInput
from bgpanet.specs import LockSpec
from services import jobs, submission, views
from services.artifacts import sha256_of
from services.claims import Claim, NewArtifact, StoredFile
from services.context import Context
from services.order import Offer
from services.settings import Settings
from services.submission import Request
from services.worker.files import MODEL_FILES, Workbench
from tests.support.databases import make_schema
from tests.support.registering import ADA, register

# By image: of so few drawn lesions no class has enough for folds by lesion.
TRAINING = {"model": "bgpanet_micro", "split": {"unit": "image", "folds": 2, "validation_folds": 2}}


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    settings = Settings.load({"BGPANET_HOME": str(tmp_path / "home"), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"})
    made = Context(settings)
    make_schema(made.database.url)
    yield made
    made.database.close()
    made.celery.close()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    synthetic.draw(folder, lesions=60)
    return folder


def submit(context: Context, kind: str, spec: dict[str, Any]) -> str:
    job, _ = submission.submit(context, ADA, Request(kind=kind, dataset="lesions", spec=spec))
    return str(job["id"])


def claimed(context: Context) -> Claim:
    claim = jobs.claim(context.database, "w", Offer(["any"]), 3600)
    assert claim is not None
    return claim


def trained(context: Context, tmp_path: Path, classes: list[str]) -> str:
    """A training that succeeded, with files of the names that evaluating needs."""
    job_id = submit(context, "train", TRAINING)
    claim = claimed(context)
    artifacts = []
    for name in MODEL_FILES["evaluate"]:
        path = tmp_path / name
        path.write_text(name)
        file = StoredFile(f"jobs/{job_id}/{name}", sha256_of(path), path.stat().st_size)
        context.store.put_file(file.key, path, file.sha256)
        artifacts.append(NewArtifact(name, "text/plain", file))
    jobs.finish(context.database, claim.lease, {"classes": classes}, artifacts)
    return job_id


def test_trainings_are_handed_the_open_part_and_only_an_evaluation_that_asks_gets_the_locked_one(
    context: Context, drawn: Path, tmp_path: Path
) -> None:
    made = register(context, "lesions", drawn, locked=LockSpec(share=0.5, seed=0))
    whole = register(context, "whole", drawn)
    locked = made["locked"]
    assert made["images"] + locked["images"] == whole["images"]
    assert made["groups"] + locked["groups"] == whole["groups"]
    assert [c["images"] > 0 for c in locked["class_counts"]] == [True] * len(made["classes"])
    submit(context, "train", TRAINING)
    bench = Workbench(context, claimed(context))
    bench.prepare()
    handed = json.loads(bench.spec.read_text())["data"]
    opened = read_pack(Path(handed["path"]))
    assert (handed["holds"], len(opened.records)) == ("open", made["images"])
    assert sorted(file.name for file in Path(handed["path"]).iterdir()) == ["images.tar", "index.json"]
    submit(context, "evaluate", {"model": trained(context, tmp_path, made["classes"]), "part": "locked"})
    bench = Workbench(context, claimed(context))
    bench.prepare()
    handed = json.loads(bench.spec.read_text())["data"]
    kept = read_pack(Path(handed["path"]))
    assert (handed["holds"], len(kept.records), kept.digest) == ("locked", locked["images"], locked["digest"])
    assert not {record.sha256 for record in opened.records} & {record.sha256 for record in kept.records}
    assert not set(opened.groups) & set(kept.groups)


def test_every_use_of_the_locked_part_is_told(context: Context, drawn: Path, tmp_path: Path) -> None:
    made = register(context, "lesions", drawn, locked=LockSpec(share=0.5, seed=0))
    assert made["locked_uses"] == []
    model = trained(context, tmp_path, made["classes"])
    first = submit(context, "evaluate", {"model": model, "part": "locked"})
    submit(context, "evaluate", {"model": model})
    second = submit(context, "evaluate", {"model": model, "part": "locked"})
    jobs.cancel(context.database, second)
    uses = views.get_dataset(context.database, ADA, "lesions")["locked_uses"]
    assert [(use["job"], use["model"], use["by"], use["state"]) for use in uses] == [
        (first, model, "ada", "queued"),
        (second, model, "ada", "cancelled"),
    ]


def test_a_data_set_without_a_locked_part_has_none_to_evaluate_on(
    context: Context, drawn: Path, tmp_path: Path
) -> None:
    made = register(context, "lesions", drawn)
    assert (made["locked"], made["locked_uses"]) == (None, None)
    model = trained(context, tmp_path, made["classes"])
    with pytest.raises(InvalidInput, match="has no locked part"):
        submit(context, "evaluate", {"model": model, "part": "locked"})


def test_classes_that_are_too_small_to_be_cut_are_told(context: Context, drawn: Path) -> None:
    refused = register(context, "lesions", drawn, locked=LockSpec(share=0.1, seed=0))
    assert refused["state"] == "refused"
    assert "fewer than 10 folds" in refused["error"]
