"""Bad requests: each gets an answer that tells what is wrong, and nothing is stored, run or asked of other hosts."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from services import tokens
from services.database import Database
from services.errors import StorageError
from services.tables import Dataset, Job
from services.web import create_app
from tests.support.databases import make_schema
from tests.unit.services.api.test_api import Api, finished_job, serving
from tests.unit.services.api.test_api import api as api  # a fixture
from tests.unit.services.api.test_api import shared as shared  # a fixture

PATHS = ["jobs", "datasets", "uploads", "tokens", "jobs/x/clone"]
ELSEWHERE = [
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fe80::1]/",
    "http://[::ffff:169.254.169.254]/",
    "http://127.0.0.1:6379/",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "s3://169.254.169.254/latest",
    "//169.254.169.254/share",
]


def stored(api: Api) -> tuple[list[str], list[str]]:
    with api.context.database.read() as session:
        return list(session.scalars(select(Job.id))), list(session.scalars(select(Dataset.id)))


def told(answer: Any) -> dict[str, str]:
    assert answer.status_code == 422, answer.json
    assert answer.content_type == "application/problem+json"
    return {error["field"]: error["detail"] for error in answer.json["errors"]}


# ── Names ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "field", "meant"),
    [
        ({"spec": {"trainig": {"epochs": 3}}}, "spec.trainig", "training"),
        ({"spec": {"training": {"epoch": 3}}}, "spec.training.epoch", "epochs"),
        ({"spec": {"learning_rate": 0.1}}, "spec.learning_rate", "training.learning_rate"),
        ({"spec": {"model": "bgpanet_mirco"}}, "spec.model", "bgpanet_micro"),
        ({"spec": {"model": {"nam": "swin_t"}}}, "spec.model.nam", "name"),
        ({"spec": {"loss": "dual_taild"}}, "spec.loss", "dual_tailed"),
        ({"spec": {"loss": {"name": "ldam"}}}, "spec.loss.name", "ldam_drw"),
        ({"spec": {"training": {"precision": "bfloat16"}}}, "spec.training.precision", "bf16"),
        ({"prioritty": 3}, "prioritty", "priority"),
        ({"kind": "trian"}, "kind", "train"),
        ({"kind": "Cross-Validate"}, "kind", "cross_validate"),
        ({"dataset": "lesion"}, "dataset", "lesions"),
        ({"on_failure": "fail-fast"}, "on_failure", "fail_fast"),
    ],
)
def test_a_wrong_name_is_told_with_the_nearest_that_would_do(shared: Api, changes: Any, field: str, meant: str) -> None:
    assert f"did you mean '{meant}" in told(shared.submit(**changes))[field]
    assert stored(shared) == ([], ["d"])


def test_a_name_that_is_near_to_none_gets_the_list(shared: Api) -> None:
    detail = told(shared.submit(spec={"model": "zzz"}))["spec.model"]
    assert "did you mean" not in detail
    assert "known: bgpanet, bgpanet_s" in detail
    assert "registered: lesions" in told(shared.submit(dataset="zzz"))["dataset"]


def test_a_wrong_format_is_told_with_the_nearest(shared: Api) -> None:
    body = {"name": "n", "format": "ham1000", "path": "/data"}
    assert "did you mean 'ham10000'?" in told(shared.call("POST", "datasets", json=body))["format"]


@pytest.mark.parametrize(
    ("path", "field", "meant"),
    [
        ("jobs?stat=failed", "stat", "state"),
        ("jobs?state=faild", "state", "failed"),
        ("jobs?kind=trainn", "kind", "train"),
        ("datasets?frmat=csv", "frmat", "format"),
        ("jobs/x/events?topic=metric", "topic.0", "metrics"),
    ],
)
def test_a_wrong_parameter_is_told_with_the_nearest(api: Api, path: str, field: str, meant: str) -> None:
    path = path.replace("/x/", f"/{api.submit().json['id']}/")
    assert f"did you mean '{meant}'?" in told(api.call("GET", path))[field]


def test_a_model_that_there_is_not_is_told_with_the_nearest(api: Api) -> None:
    answer = api.call("GET", "models/bgpanet-s")
    assert (answer.status_code, "did you mean 'bgpanet_s'?" in answer.json["detail"]) == (404, True)


def test_all_that_is_wrong_is_told_at_once(shared: Api) -> None:
    spec = {"modl": 1, "training": {"epochs": 0, "batch_size": "x", "seeed": 1}}
    found = told(shared.submit(dataset="nope", spec=spec, after=["x"]))
    assert found.keys() == {
        "spec.modl",
        "spec.training.epochs",
        "spec.training.batch_size",
        "spec.training.seeed",
        "dataset",
        "after.0",
    }


# ── Fields that are not a user's to set ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "field",
    [
        "id", "state", "reason", "error", "attempt", "max_attempts", "losses", "worker", "lease_expires_at", "summary",
        "progress", "created_by", "created_at", "finished_at", "parent", "parent_id", "superseded_by", "cloned_from",
        "resource_class", "wants_worker", "idempotency_key", "dataset_id",
    ],
)  # fmt: skip
def test_what_the_service_alone_knows_cannot_be_set(api: Api, field: str) -> None:
    assert field in told(api.submit(**{field: "x"}))
    job_id = api.submit().json["id"]
    assert field in told(api.call("POST", f"jobs/{job_id}/clone", json={field: "x"}))
    assert field in told(api.call("PATCH", f"jobs/{job_id}", json={"priority": 1, field: "x"}))
    assert stored(api) == ([job_id], ["d"])


@pytest.mark.parametrize("field", ["id", "version", "state", "digest", "files", "created_by", "synthetic", "job_id"])
def test_what_is_found_out_of_a_data_set_cannot_be_set(shared: Api, field: str) -> None:
    body = {"name": "n", "format": "csv", "path": "/data", field: "x"}
    assert field in told(shared.call("POST", "datasets", json=body))
    assert stored(shared) == ([], ["d"])


def test_where_data_lies_and_other_jobs_kinds_are_not_for_a_spec(api: Api) -> None:
    assert "spec.data" in told(api.submit(spec={"data": {"format": "folder", "path": "/etc"}}))
    assert "kind" in told(api.submit(kind="register"))


@pytest.mark.parametrize("field", ["id", "digest", "created_at", "revoked_at", "token"])
def test_a_token_is_not_made_to_measure(shared: Api, field: str) -> None:
    assert field in told(shared.call("POST", "tokens", json={"name": "n", "user": "u", field: "x"}))


# ── What is no JSON, and text that cannot be stored ───────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def with_a_job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, str]]:
    """For requests that are refused, and the id of the only job."""
    with serving(tmp_path_factory.mktemp("with_a_job")) as made:
        yield made, made.submit().json["id"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"1", b'"x"', b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1e309}', b'{"a": -1e309}',
        b'{"name": "a\\u0000b"}', b'{"a\\u0000b": 1}', b'{"name": "\\ud800"}', b'{"\\udfff": 1}', b"\xff\xfe",
        b'{"a": ' + b"9" * 5000 + b"}", b"[" * 100_000, b'{"a":' * 100_000,
    ],
    ids=lambda body: repr(body[:24]),
)  # fmt: skip
def test_a_body_that_is_no_json_to_be_used_is_refused(with_a_job: tuple[Api, str], path: str, body: bytes) -> None:
    api, job_id = with_a_job
    path = path.replace("x/clone", f"{job_id}/clone")
    answer = api.call("POST", path, data=body, content_type="application/json")
    assert answer.status_code == 422
    assert "the body is not JSON that can be used" in answer.json["errors"][0]["detail"]
    assert stored(api) == ([job_id], ["d"])


@pytest.mark.parametrize("value", ["\0", "\ud800"])
@pytest.mark.parametrize("where", ["name", "dataset", "spec"])
def test_text_that_no_database_stores_is_refused_wherever_it_stands(shared: Api, where: str, value: str) -> None:
    changes = {"spec": {"model": {"weights": value}}} if where == "spec" else {where: f"a{value}b"}
    assert shared.submit(**changes).status_code == 422


@pytest.mark.parametrize(
    "query", ["q=%00", "cursor=%00", "dataset=a%00", "color=red", "limit=1e3", "limit=-1", "q=%FF%00"]
)
def test_a_query_of_that_kind_is_refused_too(shared: Api, query: str) -> None:
    assert shared.call("GET", f"jobs?{query}").status_code == 422


@pytest.mark.parametrize("key", ["", " ", "k" * 201, "ä", "a\tb"])
def test_a_key_that_is_none_is_refused(shared: Api, key: str) -> None:
    body = {"kind": "train", "dataset": "lesions"}
    assert shared.call("POST", "jobs", json=body, headers={"Idempotency-Key": key}).status_code == 422
    assert stored(shared) == ([], ["d"])


# ── Addresses ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("address", ELSEWHERE)
def test_no_address_is_taken_for_a_data_set_but_buckets_that_are_allowed(shared: Api, address: str) -> None:
    for source in ({"s3": address}, {"upload": address}):
        assert shared.call("POST", "datasets", json={"name": "n", "format": "csv", "source": source}).status_code == 422
    if not address.startswith("/"):
        assert "path" in told(shared.call("POST", "datasets", json={"name": "n", "format": "csv", "path": address}))
    assert stored(shared) == ([], ["d"])


@pytest.mark.parametrize("address", ELSEWHERE)
def test_no_address_is_taken_for_weights_or_a_model(shared: Api, address: str) -> None:
    assert "spec.model.weights" in told(shared.submit(spec={"model": {"name": "bgpanet_t", "weights": address}}))
    assert "spec.model" in told(shared.submit(kind="predict", spec={"model": address}))
    assert stored(shared) == ([], ["d"])


# ── Too much ──────────────────────────────────────────────────────────────────────────────────────────────────────


def multipart(parts: int) -> tuple[bytes, str]:
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'
    return part * parts + b"--x--\r\n", "multipart/form-data; boundary=x"


@pytest.mark.parametrize("path", PATHS)
def test_a_hundred_thousand_parts_are_not_even_read(shared: Api, path: str) -> None:
    data, content_type = multipart(100_000)
    assert shared.call("POST", path, data=data, content_type=content_type).status_code in (404, 413)
    data, content_type = multipart(20_000)  # of a size that is allowed
    assert shared.call("POST", path, data=data, content_type=content_type).status_code in (404, 422)
    assert stored(shared) == ([], ["d"])


@pytest.mark.parametrize("parts", [20_000, 100_000])
def test_the_form_to_sign_in_reads_no_such_thing_either(shared: Api, parts: int) -> None:
    data, content_type = multipart(parts)
    assert shared.client.post("/login", data=data, content_type=content_type).status_code == 413


# ── Tokens ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer \x01", "Bearer bgp_ä", f"Bearer {'x' * 5000}", "Token abc", "bearer"]
)
def test_what_is_no_token_is_401(shared: Api, header: str) -> None:
    answer = shared.client.get("/api/v1/me", headers={"Authorization": header})
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_a_token_of_another_installation_is_401(api: Api, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Database(f"sqlite:///{tmp_path_factory.mktemp('other') / 'bgpanet.db'}")
    make_schema(other.url)
    _, secret = tokens.create(other, "test", "root", "admin")
    other.close()
    answer = api.client.get("/api/v1/me", headers={"Authorization": f"Bearer {secret}"})
    assert (answer.status_code, answer.content_type) == (401, "application/problem+json")


# ── Busy ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_more_than_may_wait_is_429_with_when_to_try_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = api.context.settings.__class__(**{**vars(api.context.settings), "queued_per_user": 1})
    crowded = Api(create_app(settings).test_client(), api.context)
    crowded.tokens = api.tokens
    assert crowded.submit("ada").status_code == 201
    answer = crowded.submit("ada")
    assert (answer.status_code, answer.headers["Retry-After"].isdigit()) == (429, True)
    assert crowded.submit("bob").status_code == 201


def test_a_store_that_does_not_answer_is_503_with_when_to_try_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = finished_job(api, "ada")

    def down(*_: object) -> None:
        raise StorageError("no route to host")

    monkeypatch.setattr(api.context.store, "local_path", down)
    answer = api.call("GET", f"jobs/{job_id}/artifacts/report.json", "ada")
    assert (answer.status_code, answer.headers["Retry-After"].isdigit()) == (503, True)


def test_a_database_that_does_not_answer_is_503_with_when_to_try_again(api: Api) -> None:
    answer = api.call("GET", "jobs")
    assert answer.status_code == 200
    with api.context.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs RENAME TO gone")
    answer = api.call("GET", "jobs")
    assert (answer.status_code, answer.headers["Retry-After"].isdigit()) == (503, True)
    assert "gone" not in answer.text
