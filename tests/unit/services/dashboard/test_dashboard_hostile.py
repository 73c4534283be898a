"""Forms and addresses as no page makes them: each is refused in words, and none ends as a fault of the server."""

import io
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update
from werkzeug.datastructures import FileStorage
from werkzeug.test import TestResponse

from services import audit, projects, trials
from services.audit import Head
from services.dashboard import submit
from services.dashboard.forms import groups_of, read_spec
from services.projects import NewProject
from services.tables import ModelVersion
from services.tokens import Principal, Role
from tests.unit.services.dashboard.browsing import csrf_of, words_of
from tests.unit.services.dashboard.conftest import SignIn
from tests.unit.services.dashboard.full_service import Service, add_datasets
from tests.unit.services.dashboard.test_dashboard_models import register
from tests.unit.services.dashboard.test_dashboard_statements import counted

JSON_FIELD = next(one.name for group in groups_of("study", {}) for one in group.fields if one.kind == "json")


def post(client: FlaskClient, path: str, **form: Any) -> TestResponse:
    return client.post(path, data={"csrf": csrf_of(client.get("/jobs")), **form})


@pytest.mark.parametrize("name", ["job", "jo\0b"])
def test_nul_is_refused_in_every_value_and_name_of_a_form(sign_in: SignIn, name: str) -> None:
    form = {"job": ["fine"], "action": "cancel"}
    form[name] = ["fine", "x\0y"] if name == "job" else "fine"
    answer = post(sign_in("ada", "researcher"), "/jobs/selected", **form)
    assert (answer.status_code, "must not contain NUL" in words_of(answer)) == (400, True)


@pytest.mark.parametrize(
    "path", ["/compare?job=a&job=%00", "/submit?after=a&after=b%00", "/jobs?%00=a", "/login?a&a=%00"]
)
def test_nul_is_refused_in_every_value_and_name_of_an_address(sign_in: SignIn, path: str) -> None:
    assert sign_in("ada", "researcher").get(path).status_code == 400


@pytest.mark.parametrize("field", ["priority", "time_limit"])
def test_a_number_of_too_many_digits_is_told_at_its_field(made: Service, sign_in: SignIn, field: str) -> None:
    add_datasets(made)
    form = {"kind": "train", "dataset": "lesions-id", field: "1" * 5000}
    for path, status in (("/submit", 422), ("/submit/check", 200)):
        answer = post(sign_in("ada", "researcher"), path, **form)
        assert (answer.status_code, "must be a whole number from" in words_of(answer)) == (status, True)


@pytest.mark.parametrize("text", ['{"a": "\\ud800"}', '{"a\\u0000": 1}', '{"a": NaN}', '{"a": 1e999}', '"\\ud800"'])
def test_json_that_no_database_keeps_stays_the_text_that_was_filled_in(
    made: Service, sign_in: SignIn, text: str
) -> None:
    add_datasets(made)
    form = {"kind": "study", "dataset": "lesions-id", JSON_FIELD: text}
    *places, last = JSON_FIELD.split(".")[1:]
    spec = read_spec("study", form)
    for place in places:
        spec = spec[place]
    assert spec[last] == text
    assert post(sign_in("ada", "researcher"), "/submit", **form).status_code == 422


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have_are_refused(made: Service, sign_in: SignIn, text: str) -> None:
    add_datasets(made)
    form = {"kind": "train", "dataset": "lesions-id", "spec.training.learning_rate": text}
    answer = post(sign_in("ada", "researcher"), "/submit", **form)
    assert (answer.status_code, "learning_rate" in words_of(answer)) == (422, True)


def test_more_jobs_to_wait_for_than_may_be_are_not_looked_up(
    made: Service, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_datasets(made)
    monkeypatch.setattr(submit, "MOST_AFTER", 3)
    client = sign_in("ada", "researcher")
    csrf = csrf_of(client.get("/submit"))

    def asked(jobs: int) -> int:
        with counted(made) as statements:
            form = {"csrf": csrf, "kind": "train", "dataset": "lesions-id", "after": "x," * jobs}
            answer = client.post("/submit", data=form)
        assert (answer.status_code, f"are {jobs} jobs; 3 at most" in words_of(answer)) == (422, True)
        return len(statements)

    assert asked(4) == asked(400)


def test_a_head_from_before_the_part_that_is_read_is_compared_too(made: Service, sign_in: SignIn) -> None:
    client = sign_in()
    client.get("/jobs")
    sign_in("ada", "researcher")
    sign_in("bob", "researcher")
    whole = audit.verify(made.context.database)
    assert whole.head.number == 3
    first = audit.verify(made.context.database, most=1).head
    begin = str(audit.verify(made.context.database, most=2).head)
    good = words_of(post(client, "/settings/audit/verify", begin=begin, kept=str(first)))
    assert "The trail holds." in good
    for kept in (Head(1, "0" * 64), Head(2, "0" * 64)):
        told = words_of(post(client, "/settings/audit/verify", begin=begin, kept=str(kept)))
        assert f"The trail is broken. Entry {kept.number} is another one than the head that was kept" in told


@pytest.mark.parametrize("role", ["researcher", "admin"])
def test_the_form_for_a_model_asks_as_often_for_many_projects_as_for_few(
    made: Service, sign_in: SignIn, role: Role
) -> None:
    client, asked = sign_in("ada", role), []
    for number in range(8):
        projects.create(made.context.database, Principal("ada", role), NewProject(f"p{number}", "Project"))
        projects.create(made.context.database, Principal("bob", "researcher"), NewProject(f"seen{number}", "Project"))
        projects.put_member(made.context.database, Principal("bob", "researcher"), f"seen{number}", "ada", "viewer")
        with counted(made) as statements:
            page = client.get("/models/new")
        assert (f"<option>p{number}</option>" in page.text, f"<option>seen{number}</option>" in page.text) == (
            True,
            role == "admin",
        )
        asked.append(len(statements))
    assert set(asked) == {asked[0]}


def test_an_image_is_read_when_it_is_looked_at_and_no_further_than_it_may_be_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trials, "MOST_IMAGE_BYTES", 5)
    streams = [io.BytesIO(b"x" * 100), io.BytesIO(b"1234")]
    images = trials.sent([FileStorage(stream, filename=f"{n}.png") for n, stream in enumerate(streams)])
    assert [stream.tell() for stream in streams] == [0, 0]
    first = next(images)
    assert (len(first.content), [stream.tell() for stream in streams]) == (6, [6, 0])
    assert trials._checked(first.content)[0] == "has more than 5 bytes"
    assert next(images).content == b"1234"


@pytest.mark.parametrize(
    "metrics",
    [
        {"figures": 5},
        {"pooled": "0.9", "intervals": [1]},
        {"figures": {"balanced_accuracy": 0.987, "confusion_matrix": [[1]], "per_class": [1]}, "intervals": {"a": 1}},
        {"figures": {"balanced_accuracy": 0.987}, "intervals": {"balanced_accuracy": [0.98, 0.99]}},
    ],
)
def test_figures_that_an_imported_model_tells_of_itself_are_no_figures_of_ours(
    made: Service, sign_in: SignIn, metrics: dict[str, Any]
) -> None:
    add_datasets(made)
    register(made)
    told = {"kind": "imported", "file": "ours.zip", "told": {"metrics": metrics}}
    with made.context.database.write() as session:
        session.execute(update(ModelVersion).values(source="imported", metrics=metrics, provenance=told))
    client = sign_in("ada", "researcher")
    for path in ("/models", "/models/lesions", "/models/lesions/versions/1"):
        page = client.get(path)
        assert (page.status_code, "not evaluated here" in words_of(page)) == (200, True)
        assert "0.987" not in words_of(page).partition("What its files say of themselves, unchecked")[0]


def test_all_versions_of_a_model_are_removed_only_where_the_form_says_so(made: Service, sign_in: SignIn) -> None:
    add_datasets(made)
    register(made)
    client = sign_in("ada", "researcher")
    assert post(client, "/models/lesions/remove").status_code == 400
    assert "1 version, the newest 1" in words_of(client.get("/models"))
