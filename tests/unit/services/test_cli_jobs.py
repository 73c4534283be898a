"""Jobs steered from the command line, against a service that listens: the client, the API and the database are real."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner
from werkzeug.serving import make_server

from bgpanet.evaluation.predictions import PredictionTable
from services import jobs
from services.artifacts import sha256_of
from services.claims import Batch, Claim, NewArtifact, StoredFile
from services.cli import app
from services.commands.common import FAILED, FORBIDDEN, MISSING, USAGE
from services.order import Offer
from tests.unit.services.api.test_api import Api
from tests.unit.services.api.test_api import api as api  # a fixture

SUBMIT = ("submit", "train", "--dataset", "lesions", "--model", "bgpanet_micro")


class Shell:
    """Ada's command line."""

    def __init__(self, api: Api, environment: dict[str, str]) -> None:
        self.api, self.environment = api, environment

    def refused(self, *arguments: str) -> tuple[int, str]:
        answer = CliRunner().invoke(app, list(arguments), env=self.environment)
        return answer.exit_code, answer.output

    def run(self, *arguments: str) -> str:
        answer = CliRunner().invoke(app, list(arguments), env=self.environment)
        assert answer.exit_code == 0, answer.output
        return answer.stdout.strip()

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("job", job_id, "--json"))
        return found

    def claim(self) -> Claim:
        claimed = jobs.claim(self.api.context.database, "w", Offer(["any"]), 60)
        assert claimed is not None
        return claimed


@pytest.fixture
def shell(api: Api, tmp_path: Path) -> Iterator[Shell]:
    server = make_server("127.0.0.1", 0, api.client.application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    url = f"http://127.0.0.1:{server.port}"
    yield Shell(api, {"BGPANET_URL": url, "BGPANET_TOKEN": api.tokens["ada"], "BGPANET_HOME": str(tmp_path)})
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_job_is_submitted_with_all_that_steers_it(shell: Shell) -> None:
    first = shell.run(*SUBMIT)
    options = ("--after", first, "--time-limit", "2h", "--on-failure", "fail_fast", "--priority", "4")
    second = shell.run("submit", "cross_validate", *SUBMIT[2:], *options)
    job = shell.job(second)
    assert (job["after"], job["time_limit"], job["on_failure"], job["priority"]) == ([first], 7200, "fail_fast", 4)
    assert f"waits: job {first}" in shell.run("job", second)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("2d", 172_800), ("45", 45)])
def test_a_time_limit_has_a_unit(shell: Shell, text: str, seconds: int) -> None:
    assert shell.job(shell.run(*SUBMIT, "--time-limit", text))["time_limit"] == seconds


@pytest.mark.parametrize("text", ["0", "2w", "h", "1.5h", "-3s", ""])
def test_a_time_limit_that_is_none_is_told(shell: Shell, text: str) -> None:
    status, told = shell.refused(*SUBMIT, "--time-limit", text)
    assert (status, "whole number with s, m, h or d" in told) == (USAGE, True)


def test_a_job_is_paused_resumed_and_moved_and_tells_its_place(shell: Shell) -> None:
    first, second = shell.run(*SUBMIT), shell.run(*SUBMIT)
    assert "number 2 in the queue" in shell.run("job", second)
    assert shell.run("priority", second, "5") == "5"
    assert "number 1 in the queue" in shell.run("job", second)
    assert shell.run("pause", second) == "paused"
    assert "waits: it is paused" in shell.run("job", second)
    assert shell.claim().lease.job_id == first
    assert json.loads(shell.run("resume", second, "--json"))["state"] == "queued"
    assert shell.claim().lease.job_id == second


def test_what_failed_is_tried_again_and_both_tell_of_each_other(shell: Shell) -> None:
    job_id = shell.run(*SUBMIT)
    assert shell.refused("retry", job_id)[0] == FAILED
    jobs.fail(shell.api.context.database, shell.claim().lease, "stalled", "silent")
    again = shell.run("retry", job_id)
    assert shell.run("retry", job_id) == again
    assert f"superseded by: {again}" in shell.run("job", job_id)
    assert "failed (stalled, tried again)" in shell.run("job", job_id)
    assert f"retry of: {job_id}" in shell.run("job", again)


def test_a_job_is_watched_and_its_log_followed_to_the_end(shell: Shell) -> None:
    job_id = shell.run(*SUBMIT)
    database, lease = shell.api.context.database, shell.claim().lease
    jobs.renew(database, lease, 60, Batch(logs=[("info", "one"), ("warning", "two")]))
    jobs.fail(database, lease, "stalled", "silent")
    for options in ((), ("-f",)):
        assert [line.split()[1:] for line in shell.run("logs", job_id, *options).splitlines()] == (
            [["info", "one"], ["warning", "two"]]
        )
    lines = [json.loads(line) for line in shell.run("logs", job_id, "-f", "--json").splitlines()]
    assert [line["message"] for line in lines] == ["one", "two"]
    status, told = shell.refused("watch", job_id)
    assert (status, f"`bgpanet retry {job_id}`" in " ".join(told.split())) == (FAILED, True)


def test_scripts_learn_from_the_exit_status_what_went_wrong(shell: Shell) -> None:
    assert shell.refused("job", "nothing")[0] == MISSING
    status, told = shell.refused("watch", "nothing", "--json")
    problem = json.loads(told)
    assert (status, problem["status"], problem["problem"]["status"]) == (MISSING, MISSING, 404)
    for token, words in (("wrong", ("jobs",)), (shell.api.tokens["eve"], SUBMIT)):  # eve may look alone
        shell.environment["BGPANET_TOKEN"] = token
        assert shell.refused(*words)[0] == FORBIDDEN


def test_a_clone_changes_what_was_set_and_nothing_else(shell: Shell) -> None:
    job_id = shell.run(*SUBMIT, "--name", "mine")
    clone = shell.job(shell.run("clone", job_id, "--set", "training.seed=7", "--set", "model.placement=stage"))
    first = shell.job(job_id)
    assert (clone["cloned_from"], clone["name"]) == (job_id, "mine")
    assert (clone["spec"]["training"].pop("seed"), clone["spec"]["model"].pop("placement")) == (7, "stage")
    assert (first["spec"]["training"].pop("seed"), first["spec"]["model"].pop("placement")) == (0, None)
    assert clone["spec"] == first["spec"]


def test_a_cross_validation_is_compared_by_the_folds_that_count(shell: Shell, tmp_path: Path) -> None:
    found = [_cross_validated(shell, tmp_path, fails) for fails in (True, False)]
    rows = json.loads(shell.run("compare", *found, "--json"))
    assert {row["difference"] for row in rows} == {0}


def _cross_validated(shell: Shell, folder: Path, fails: bool) -> str:
    """A cross-validation of two folds; where `fails`, one of them failed and was tried again alone."""
    database = shell.api.context.database
    folds = ("--set", "split.folds=2")
    parent = shell.run("submit", "cross_validate", *SUBMIT[2:], *folds)
    if fails:
        lost = shell.claim().lease
        jobs.fail(database, lost, "internal", "broken")
        shell.run("retry", lost.job_id)
    for _ in range(2):
        claim = shell.claim()
        fold = claim.spec["split"]["fold"]
        jobs.finish(database, claim.lease, {}, _tested(shell, folder, fold))
    jobs.finish(database, shell.claim().lease, {"classes": ["mel", "nv"]}, [])
    return parent


def _tested(shell: Shell, folder: Path, fold: int) -> list[NewArtifact]:
    ids = [f"{fold}-{n}" for n in range(20)]
    right = np.random.default_rng(fold).uniform(0.2, 0.9, 20)
    PredictionTable(
        classes=["mel", "nv"],
        image_ids=ids,
        groups=ids,
        folds=[fold] * 20,
        truths=["mel", "nv"] * 10,
        errors=[""] * 20,
        probabilities=np.where(np.arange(20)[:, None] % 2 == [0, 1], right[:, None], 1 - right[:, None]),
    ).write(folder / "predictions.csv", folder / "predictions.parquet")
    (folder / "report.json").write_text(json.dumps({"split": {"images": {"train": 60, "validation": 20}}}))
    made = []
    for name in ("report.json", "predictions.parquet"):
        file = StoredFile(f"files/{fold}-{name}", sha256_of(folder / name), (folder / name).stat().st_size)
        shell.api.context.store.put_file(file.key, folder / name, file.sha256)
        made.append(NewArtifact(name, "application/octet-stream", file))
    return made
