"""The REST API on SQLite and a folder, through Flask's test client. Redis is absent: submitting works all the same."""

import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import insert, update

from services import fleet, jobs, tokens
from services.api import create_blueprint
from services.artifacts import sha256_of
from services.claims import NewArtifact, StoredFile
from services.context import Context
from services.fleet import Member, Weights
from services.order import Offer
from services.settings import Settings
from services.tables import Dataset
from services.tokens import Role
from services.web import create_app
from tests.support.conformance import assert_as_documented
from tests.support.databases import make_schema
from tests.support.registering import work

CLASSES = ["mel", "nv"]


class Api:
    """The test client with tokens of several people."""

    def __init__(self, client: FlaskClient, context: Context) -> None:
        self.client, self.context = client, context
        self.tokens: dict[str, str] = {}

    def person(self, user: str, role: Role = "researcher") -> None:
        self.tokens[user] = tokens.create(self.context.database, "test", user, role)[1]

    def call(self, method: str, path: str, user: str = "root", **arguments: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.tokens[user]}", **arguments.pop("headers", {})}
        answer = self.client.open(f"/api/v1/{path}", method=method, headers=headers, buffered=True, **arguments)
        assert_as_documented(self.client.application, answer)
        return answer

    def submit(self, user: str = "root", **changes: Any) -> Any:
        body = {"kind": "train", "dataset": "lesions", "spec": {"model": "bgpanet_micro"}, **changes}
        return self.call("POST", "jobs", user, json=body)


@contextmanager
def serving(home: Path) -> Iterator[Api]:
    """With the data set `lesions`; nothing of it stays open."""
    settings = Settings.load(
        {
            "BGPANET_HOME": str(home),
            "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0",
            "BGPANET_SOURCE_BUCKETS": "allowed",
        }
    )
    app = create_app(settings)
    context: Context = app.extensions["bgpanet"]
    make_schema(context.database.url)
    counts = [{"class": name, "images": 60, "groups": 30} for name in CLASSES]
    with context.database.write() as session:
        session.execute(
            insert(Dataset).values(
                id="d",
                name="lesions",
                format="ham10000",
                digest="0" * 64,
                synthetic=True,
                classes=CLASSES,
                images=120,
                groups=60,
                group_unit="lesion",
                class_counts=counts,
                findings=[],
                files={},
                created_by="root",
                created_at=0,
            )
        )
    made = Api(app.test_client(), context)
    made.person("root", "admin")
    made.person("ada")
    made.person("bob")
    made.person("eve", "viewer")
    try:
        yield made
    finally:
        context.database.close()
        context.celery.close()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with serving(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One for many tests: for requests that are refused, and so leave it as it was."""
    with serving(tmp_path_factory.mktemp("shared")) as made:
        yield made


def finished_job(api: Api, user: str, content: bytes = b"hello", classes: Sequence[str] = CLASSES) -> str:
    """A training that succeeded with one artifact."""
    job_id: str = api.submit(user).json["id"]
    claim = jobs.claim(api.context.database, "w", Offer(["any"]), 30)
    assert claim is not None
    path = api.context.settings.home / "file"
    path.write_bytes(content)
    file = StoredFile(f"jobs/{job_id}/x", sha256_of(path), len(content))
    api.context.store.put_file(file.key, path, file.sha256)
    summary = {"figures": {}, "classes": list(classes)}
    jobs.finish(api.context.database, claim.lease, summary, [NewArtifact("report.json", "text/plain", file)])
    return job_id


# ── Who may ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _routes() -> list[tuple[str, str]]:
    """Every route of the API by method and path; ids in it are `x`, numbers 1."""
    app = Flask("routes")
    app.register_blueprint(create_blueprint())
    return sorted(
        (method, re.sub(r"<[^>]+>", "x", rule.rule.replace("<int:number>", "1")).removeprefix("/api/v1/"))
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/v1/")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    )


ROUTES = _routes()


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer nope"}, {"Authorization": "Basic eDp5"}])
def test_no_route_answers_without_a_valid_token(shared: Api, method: str, path: str, header: dict[str, str]) -> None:
    answer = shared.client.open(f"/api/v1/{path}", method=method, headers=header)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.content_type == "application/problem+json"


def test_a_revoked_token_is_worth_nothing(api: Api) -> None:
    made = api.call("POST", "tokens", json={"name": "n", "user": "zoe"}).json
    api.tokens["zoe"] = made["token"]
    assert api.call("GET", "me", "zoe").json == {
        "user": "zoe",
        "role": "researcher",
        "scopes": ["read", "submit", "manage"],
        "token_id": made["id"],
        "expires_at": None,
        "project": "~zoe",
    }
    assert api.call("DELETE", f"tokens/{made['id']}").status_code == 204
    assert api.call("GET", "me", "zoe").status_code == 401


@pytest.mark.parametrize("part", ["", "/metrics", "/logs", "/events", "/attempts", "/artifacts", "/children"])
def test_another_users_job_does_not_exist(api: Api, part: str) -> None:
    job_id = api.submit("ada").json["id"]
    assert api.call("GET", f"jobs/{job_id}{part}", "bob").status_code == 404
    assert api.call("GET", f"jobs/{job_id}{part}", "ada").status_code == 200
    assert api.call("GET", f"jobs/{job_id}{part}", "root").status_code == 200


def test_another_users_job_can_be_neither_cancelled_nor_used_nor_downloaded(api: Api) -> None:
    job_id = finished_job(api, "ada")
    assert api.call("POST", f"jobs/{job_id}/cancel", "bob").status_code == 404
    assert api.call("GET", f"jobs/{job_id}/artifacts/report.json", "bob").status_code == 404
    assert api.submit("bob", kind="predict", spec={"model": job_id}).status_code == 422
    assert api.submit("ada", kind="predict", spec={"model": job_id}).status_code == 201
    assert api.call("GET", "jobs", "bob").json["items"] == []


def test_a_model_is_evaluated_only_on_classes_that_it_knows(api: Api) -> None:
    job_id = finished_job(api, "ada", classes=("mel", "bkl"))
    answer = api.submit("ada", kind="evaluate", spec={"model": job_id})
    assert answer.status_code == 422
    assert "does not know: nv; it knows mel, bkl" in answer.json["errors"][0]["detail"]
    known = finished_job(api, "ada", classes=("mel", "nv", "bkl"))
    assert api.submit("ada", kind="evaluate", spec={"model": known}).status_code == 201


def test_a_viewer_reads_and_changes_nothing(api: Api) -> None:
    assert api.submit("eve").status_code == 403
    assert api.call("POST", "jobs/x/cancel", "eve").status_code == 403
    assert api.call("GET", "jobs", "eve").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "datasets"), ("DELETE", "datasets/d"), ("GET", "audit")],
)
def test_only_admins_register_folders_and_read_the_trail(api: Api, method: str, path: str) -> None:
    body = {"name": "x", "format": "folder", "path": "/x"}
    assert api.call(method, path, "ada", json=body).status_code == 403


# Viewers manage their own tokens and leave projects, too; test_access.py tells what else they may there.
CHANGING = [route for route in ROUTES if route[0] != "GET" and route[1].partition("/")[0] not in ("tokens", "projects")]


@pytest.mark.parametrize(("method", "path"), CHANGING)
def test_a_viewer_can_use_no_route_that_changes_something(shared: Api, method: str, path: str) -> None:
    assert shared.call(method, path, "eve", json={}).status_code == 403


# ── Submitting ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_job_is_created_with_its_address_and_every_field(api: Api) -> None:
    answer = api.submit(name="my run", priority=3)
    job = answer.json
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/api/v1/jobs/{job['id']}"
    assert api.client.get(answer.headers["Location"], headers={"Authorization": f"Bearer {api.tokens['root']}"}).json
    expected = (
        "id kind name state reason error project dataset spec priority attempt max_attempts time_limit memory_gb "
        "on_failure superseded_by cloned_from progress summary parent position children worker created_by created_at "
        "started_at finished_at dataset_id model_version_id dataset_version after labels retry_of"
    )
    assert list(job) == expected.split()
    assert list(job["progress"]) == ["fraction", "step", "steps", "epoch", "epochs", "eta_seconds", "message"]
    assert (job["state"], job["name"], job["priority"], job["dataset"]) == ("queued", "my run", 3, "lesions")
    assert job["spec"]["training"]["epochs"] == 180
    assert job["created_at"].endswith("Z")


def test_the_same_idempotency_key_gives_the_same_job(api: Api) -> None:
    body = {"kind": "train", "dataset": "lesions", "spec": {"model": "bgpanet_micro"}}
    first, again = (api.call("POST", "jobs", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json["id"] == again.json["id"]
    other = {**body, "spec": {"model": "swin_micro"}}
    assert api.call("POST", "jobs", json=other, headers={"Idempotency-Key": "k"}).status_code == 409


def test_every_wrong_field_is_named_at_once(api: Api) -> None:
    answer = api.submit(dataset="nope", spec={"model": "bgpanett", "training": {"epochs": 0, "speed": 9}})
    assert answer.status_code == 422
    assert answer.content_type == "application/problem+json"
    found = {error["field"] for error in answer.json["errors"]}
    assert found == {"dataset", "spec.model", "spec.training.epochs", "spec.training.speed"}
    assert api.call("GET", "jobs").json["items"] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "conquer"},
        {"state": "succeeded"},
        {"created_by": "root"},
        {"priority": 1000},
        {"priority": "high"},
        {"spec": []},
        {"spec": {"data": {"format": "folder", "path": "/etc"}}},
        {"spec": {"model": {"name": "bgpanet_micro", "weights": "/etc/passwd"}}},
        {"spec": {"split": {"folds": 20, "validation_folds": 20}}, "kind": "cross_validate", "dataset": "lesions"},
        {"kind": "predict", "spec": {"model": "no-such-job"}},
        {"kind": "explain", "spec": {"model": "no-such-job"}},
        {"kind": "explain", "spec": {"model": "no-such-job", "count": 1000}},
        {"name": "a\u0000b"},
    ],
)
def test_what_cannot_be_run_is_refused_before_it_is_queued(api: Api, changes: dict[str, Any]) -> None:
    if "split" in str(changes):
        changes = {**changes, "spec": {**changes["spec"], "subset": {"max_groups_per_class": 5}}}
    answer = api.submit(**changes)
    assert answer.status_code == 422, answer.json
    assert answer.json["errors"]
    assert api.call("GET", "jobs").json["items"] == []


SWIN_T = "swin_t-704ceda3.pth"
PRETRAINED: dict[str, Any] = {"spec": {"model": {"name": "bgpanet_t", "weights": "imagenet"}}}


def worker(api: Api, name: str, weights: Weights, *classes: str) -> None:
    member = Member(name, "node", 1, "0.1.0", "a device", classes or ("any", "cpu"))
    fleet.beat(api.context.database, member, None, {}, weights)


@pytest.mark.parametrize("kind", ["train", "cross_validate", "study"])
def test_weights_that_no_worker_can_have_are_refused_with_what_to_do(api: Api, kind: str) -> None:
    worker(api, "one/0", Weights("/cache/one", ["vgg16-397923af.pth"], reachable=False))
    worker(api, "two/0", Weights("/cache/two", [], reachable=False))
    changes: dict[str, Any] = PRETRAINED
    if kind == "study":
        variants = [{"name": "plain"}, {"name": "pretrained", "set": {"model": PRETRAINED["spec"]["model"]}}]
        changes = {"spec": {"model": "bgpanet_micro", "variants": variants, "reference": "plain"}}
        changes["spec"]["image_size"] = 64
    answer = api.submit(kind=kind, **changes)
    assert answer.status_code == 422
    (problem,) = answer.json["errors"]
    assert problem["field"] == "spec.model.weights"
    for part in (SWIN_T, "/cache/one", "/cache/two", "one/0 on node", "two/0 on node", "use null"):
        assert part in problem["detail"]
    assert api.call("GET", "jobs").json["items"] == []


@pytest.mark.parametrize(
    "second",
    [
        Weights("/cache", [SWIN_T], reachable=False),
        Weights("/cache", [], reachable=True),
        Weights("/cache", [], reachable=None),
    ],
    ids=["has the file", "reaches the host", "does not know yet"],
)
def test_weights_that_one_worker_can_have_are_accepted(api: Api, second: Weights) -> None:
    worker(api, "one/0", Weights("/cache", [], reachable=False))
    worker(api, "two/0", second)
    assert api.submit(**PRETRAINED).status_code == 201
    assert jobs.claim(api.context.database, "one/0", Offer(["any"], []), 30) is None
    assert jobs.claim(api.context.database, "two/0", Offer(["any"], second.obtainable), 30) is not None


def test_only_workers_that_could_take_the_job_are_asked_for_weights(api: Api) -> None:
    on_gpu: dict[str, Any] = {"spec": {**PRETRAINED["spec"], "resources": {"device": "gpu"}}}
    worker(api, "cpu/0", Weights("/cache", [], reachable=True))
    assert api.submit(**on_gpu).status_code == 201  # none is there yet
    worker(api, "gpu/0", Weights("/cache", [], reachable=False), "any", "gpu")
    assert api.submit(**on_gpu).status_code == 422
    assert api.submit(**PRETRAINED).status_code == 201


def labelled(api: Api, name: str, labels: list[str], memory_gb: float | None) -> fleet.Member:
    member = Member(name, "node", 1, "0.1.0", "a device", ("any", "cpu"), labels, memory_gb)
    fleet.beat(api.context.database, member, None, {}, Weights())
    return member


def asking(**resources: Any) -> dict[str, Any]:
    return {"spec": {"split": {"folds": 2, "validation_folds": 2}, "resources": resources}}


def test_labels_and_memory_that_no_worker_has_are_refused_with_those_that_there_are(api: Api) -> None:
    wanted = asking(labels=["fast", "room=2"], memory_gb=40)
    assert api.submit(**wanted).status_code == 201  # no worker is there yet; it may wait
    labelled(api, "one/0", ["fast"], 80.0)
    labelled(api, "two/0", ["fast", "room=2"], 24.0)
    answer = api.submit(**wanted)
    assert answer.status_code == 422
    (problem,) = answer.json["errors"]
    assert problem["field"] == "spec.resources.labels"
    for part in ("fast, room=2, 40 GB", "one/0 has fast, 80 GB", "two/0 has fast, room=2, 24 GB"):
        assert part in problem["detail"]
    assert api.submit(**asking(memory_gb=100)).json["errors"][0]["field"] == "spec.resources.memory_gb"
    labelled(api, "three/0", ["fast", "room=2"], None)
    assert api.submit(**wanted).status_code == 201
    assert [row["labels"] for row in api.call("GET", "workers").json["items"]] == [
        ["fast"], ["fast", "room=2"], ["fast", "room=2"]
    ]  # fmt: skip


def test_every_fold_goes_to_a_worker_with_the_labels_and_the_memory(api: Api) -> None:
    small, large = labelled(api, "small/0", ["fast"], 24.0), labelled(api, "large/0", ["fast"], 80.0)
    slow = labelled(api, "slow/0", [], 80.0)
    answer = api.submit(kind="cross_validate", **asking(labels=["fast"], memory_gb=40))
    assert answer.status_code == 201, answer.json
    for member, count in ((small, 0), (slow, 0), (large, 2)):
        claims = [jobs.claim(api.context.database, member.name, member.offer(Weights()), 60) for _ in range(3)]
        assert len([claim for claim in claims if claim is not None]) == count
    child = jobs_of(api, answer.json["id"])[0]
    (attempt,) = api.call("GET", f"jobs/{child['id']}/attempts").json["items"]
    assert (attempt["worker"], attempt["version"]) == ("large/0", "0.1.0")


@pytest.mark.parametrize("label", ["Fast", "", "a b", "x" * 101])
def test_a_label_that_no_worker_can_have_is_refused(api: Api, label: str) -> None:
    assert "lower-case" in api.submit(**asking(labels=[label])).json["errors"][0]["detail"]


def jobs_of(api: Api, parent: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = api.call("GET", f"jobs/{parent}/children").json["items"]
    return items


def test_every_training_of_a_cross_validation_needs_its_weights_and_what_pools_them_does_not(api: Api) -> None:
    api.submit(kind="cross_validate", spec={**PRETRAINED["spec"], "split": {"folds": 3}})
    assert jobs.claim(api.context.database, "w", Offer(["any"], []), 30) is None
    for _ in range(3):
        claim = jobs.claim(api.context.database, "w", Offer(["any"], [SWIN_T]), 30)
        assert claim is not None
        jobs.finish(api.context.database, claim.lease, {}, [])
    assert jobs.claim(api.context.database, "w", Offer(["any"], []), 30) is not None


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"a": NaN}', b'{"a": 1e309}', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(api: Api, body: bytes) -> None:
    answer = api.call("POST", "jobs", data=body, content_type="application/json")
    assert answer.status_code == 422
    assert answer.content_type == "application/problem+json"


def test_a_huge_body_is_refused(api: Api) -> None:
    body = json.dumps({"name": "x" * 3_000_000})
    assert api.call("POST", "jobs", data=body, content_type="application/json").status_code == 413


def test_a_training_that_has_not_succeeded_cannot_predict(api: Api) -> None:
    job_id = api.submit().json["id"]
    answer = api.submit(kind="predict", spec={"model": job_id})
    assert answer.status_code == 422
    assert "queued" in answer.json["errors"][0]["detail"]


def test_a_training_that_has_succeeded_can_be_explained_by_its_owner(api: Api) -> None:
    job_id = finished_job(api, "ada")
    assert api.submit("bob", kind="explain", spec={"model": job_id}).status_code == 422
    explaining = api.submit("ada", kind="explain", spec={"model": job_id, "images": ["ISIC_0024306"]}).json
    assert (explaining["kind"], explaining["name"]) == ("explain", f"explain {job_id[:8]} on lesions")
    assert explaining["spec"]["images"] == ["ISIC_0024306"]
    waiting = api.submit("ada").json["id"]
    answer = api.submit("ada", kind="explain", spec={"model": waiting})
    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "spec.model")


def test_a_cross_validation_has_a_child_for_each_fold(api: Api) -> None:
    parent = api.submit(kind="cross_validate", spec={"model": "bgpanet_micro", "split": {"folds": 4}}).json
    children = api.call("GET", f"jobs/{parent['id']}/children").json["items"]
    assert [child["spec"]["split"]["fold"] for child in children] == [0, 1, 2, 3]
    assert parent["children"]["queued"] == 4
    assert all(child["parent"] == parent["id"] for child in children)


def test_a_division_that_leaves_too_little_for_validation_is_refused_by_the_classs_name(api: Api) -> None:
    """Of 30 lesions of a class, one half is the test part; the other can be cut into 15 parts, but not into 16."""
    spec = {"model": "bgpanet_micro", "split": {"folds": 2, "validation_folds": 16}}
    answer = api.submit(spec=spec)
    assert answer.status_code == 422
    told = " ".join(error["detail"] for error in answer.json["errors"])
    assert f"class {CLASSES[0]!r} would have 30 lesions; 2 folds, each leaving 16 for validation" in told
    assert api.submit(spec={**spec, "split": {"folds": 2, "validation_folds": 15}}).status_code == 201


def test_a_long_name_leaves_room_for_the_folds(api: Api) -> None:
    parent = api.submit(kind="cross_validate", name="n" * 200).json
    names = [child["name"] for child in api.call("GET", f"jobs/{parent['id']}/children").json["items"]]
    assert max(map(len, names)) <= 200
    assert names[4].endswith(", fold 4")


# ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pages_cover_every_job_once_newest_first(api: Api) -> None:
    made = [api.submit().json["id"] for _ in range(7)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = api.call("GET", f"jobs?limit=3{f'&cursor={cursor}' if cursor else ''}").json
        seen += [job["id"] for job in page["items"]]
        cursor = page["next_cursor"]
    assert seen == made[::-1]


def test_filters_choose_by_state_kind_data_set_and_name(api: Api) -> None:
    wanted = api.submit(name="the 50% run").json["id"]
    other = api.submit(kind="cross_validate", name="second").json["id"]
    api.call("POST", f"jobs/{other}/cancel")
    for query in ("state=queued", "kind=train", "q=50%25", "q=THE", "dataset=lesions&kind=train"):
        assert [job["id"] for job in api.call("GET", f"jobs?{query}").json["items"]] == [wanted], query
    assert api.call("GET", "jobs?dataset=other").json["items"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=501", "color=red", "q=%00"])
def test_a_wrong_query_is_refused(api: Api, query: str) -> None:
    assert api.call("GET", f"jobs?{query}").status_code == 422


def test_an_artifact_comes_whole_in_parts_and_not_again(api: Api) -> None:
    job_id = finished_job(api, "root", b"0123456789")
    path = f"jobs/{job_id}/artifacts/report.json"
    whole = api.call("GET", path)
    assert (whole.data, whole.mimetype) == (b"0123456789", "text/plain")
    assert "attachment" in whole.headers["Content-Disposition"]
    part = api.call("GET", path, headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.data) == (206, b"234")
    assert api.call("GET", path, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    assert api.call("GET", f"jobs/{job_id}/artifacts/nope").status_code == 404


def test_cancelling_a_waiting_job_ends_it(api: Api) -> None:
    job_id = api.submit().json["id"]
    assert api.call("POST", f"jobs/{job_id}/cancel").json["state"] == "cancelled"


def test_a_data_set_that_jobs_wait_for_is_not_removed_and_one_that_they_used_can_still_be_told(api: Api) -> None:
    job_id = api.submit().json["id"]
    answer = api.call("DELETE", "datasets/lesions")
    assert answer.status_code == 409
    assert job_id in answer.json["detail"]
    api.call("POST", f"jobs/{job_id}/cancel")
    assert api.call("DELETE", "datasets/lesions@1").status_code == 204
    told = api.call("GET", "datasets/lesions").json
    assert (told["images"], told["state"], told["removed_by"]) == (120, "removed", "root")
    assert api.submit().status_code == 422


def test_who_registered_a_data_set_may_remove_it(api: Api) -> None:
    with api.context.database.write() as session:
        session.execute(update(Dataset).values(created_by="ada"))
    assert api.call("DELETE", "datasets/d", "bob").status_code == 403
    assert api.call("DELETE", "datasets/d", "eve").status_code == 403
    assert api.call("DELETE", "datasets/d", "ada").status_code == 204
    assert api.call("GET", "datasets/d").status_code == 404


def test_registering_answers_at_once_with_the_job_that_does_it(api: Api, tmp_path: Path) -> None:
    body = {"name": "x", "format": "ham10000", "path": str(tmp_path / "none")}
    answer = api.call("POST", "datasets", json=body)
    made = answer.json
    assert (answer.status_code, made["state"], made["version"]) == (201, "registering", None)
    assert answer.headers["Location"] == f"/api/v1/datasets/{made['id']}"
    assert api.call("GET", f"jobs/{made['job']}").json["kind"] == "register"
    assert api.submit(dataset="x").status_code == 201
    work(api.context)
    refused = api.call("GET", f"datasets/{made['id']}").json
    assert (refused["state"], refused["findings"][0]["level"]) == ("refused", "refused")
    assert "no folder that can be seen" in refused["error"]
    assert api.submit(dataset="x").status_code == 422


@pytest.mark.parametrize("preference", ["wait=60", "respond-async, wait=60", 'wait="60"'])
def test_registering_answers_when_it_is_done_where_that_is_preferred(api: Api, tmp_path: Path, preference: str) -> None:
    made: list[Any] = []

    def post() -> None:
        body = {"name": "x", "format": "ham10000", "source": {"path": str(tmp_path / "none")}}
        made.append(api.call("POST", "datasets", json=body, headers={"Prefer": preference}))

    asking = threading.Thread(target=post)
    asking.start()
    while asking.is_alive() and not jobs.count_waiting(api.context.database):
        time.sleep(0.01)
    work(api.context)
    asking.join()
    assert (made[0].status_code, made[0].json["state"]) == (201, "refused")
    assert made[0].headers["Preference-Applied"] == "wait=60"


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "relative"},
        {"path": "/x", "source": {"path": "/x"}},
        {"source": {}},
        {"source": {"url": "file:///etc/passwd"}},
        {"source": {"path": "/x", "s3": "s3://allowed/x"}},
        {"source": {"s3": "s3://other/x"}},
        {"source": {"s3": "file:///etc/passwd"}},
        {"source": {"s3": "http://169.254.169.254/latest/meta-data"}},
        {"source": {"s3": "s3://169.254.169.254/x"}},
        {"source": {"s3": "s3://allowed@127.0.0.1/x"}},
        {"source": {"upload": "nope"}},
        {"format": "nope", "path": "/x"},
        {"path": "/x", "state": "ready"},
        {"path": "/x", "version": 7},
    ],
)
def test_a_registration_that_can_not_be_is_refused_at_once(api: Api, changes: dict[str, Any]) -> None:
    answer = api.call("POST", "datasets", json={"name": "x", "format": "ham10000", **changes})
    assert answer.status_code == 422
    assert answer.json["errors"]
    assert len(api.call("GET", "datasets").json["items"]) == 1


@pytest.mark.parametrize("path", ["nope", "jobs/x", "datasets/x", "models/x", "jobs/%00", "datasets/a%00b"])
def test_what_does_not_exist_is_a_problem_document(api: Api, path: str) -> None:
    answer = api.call("GET", path)
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")


def test_a_wrong_method_is_a_problem_document(api: Api) -> None:
    assert api.call("PUT", "jobs").status_code == 405


def test_health_tells_what_is_missing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.readiness.PATIENCE_SECONDS", 120.0)  # of a busy machine
    assert api.client.get("/healthz").json == {"status": "ok"}
    ready = api.client.get("/readyz")
    assert ready.status_code == 503
    checks = ready.get_json()["checks"]
    assert checks["database"] == "ok"
    assert checks["redis"] != "ok"
