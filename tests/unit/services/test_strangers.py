"""What is not yours does not exist, on any route: the table of routes is walked with another user's ids.

A new route is tried by itself where its arguments are known here. Where they are not, the test fails and says what to
enter: in `OWNED` an id of Ada's for that argument, in `PLAIN` a value that belongs to nobody, or in `SAME_FOR_ALL` a
route that shows the same to everyone.
"""

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import insert, select
from werkzeug.routing import Rule

from services import jobs, projects, tokens, uploads
from services.claims import NewArtifact, StoredFile
from services.ids import new_id
from services.order import Offer
from services.projects import NewProject
from services.tables import (
    AuditEntry,
    Dataset,
    Delivery,
    Job,
    ModelAlias,
    ModelVersion,
    RegisteredModel,
    Upload,
    Webhook,
    personal,
)
from services.tokens import Principal
from services.uploads import NewUpload
from tests.unit.services.dashboard.browsing import csrf_of
from tests.unit.services.dashboard.full_service import Service, service

ADA = Principal("ada", "researcher")
NOBODYS = "00000000-0000-7000-8000-000000000000"
SAME_FOR_ALL = {
    "/compare/figures.<kind>": "its jobs are not in its path: see the test of comparisons",
    "/static/<path:filename>": "files of the product",
    "/workers/<path:worker>/drain": "everyone sees workers; that admins alone drain them has tests of its own",
    "/api/v1/workers/<path:worker>/drain": "the same",
    "/static/vendor/plotly-<version>.min.js": "files of the product",
}
NOT_THERE = {  # nor for Ada, in this house: tests of their own try them with what they show
    "/api/v1/models/<model_id>/predict": "a worker answers",
    "/datasets/<dataset_id>/images/<image_id>": "a packed data set",
    "/jobs/<job_id>/pictures/<name>": "a picture",
    "/jobs/<job_id>/cell": "a confusion matrix",
}
PLAIN: dict[str, Any] = {"name": "report.json", "number": 1, "user": "ada", "image_id": "ISIC_0000001"}
PLAIN |= {"version": "1", "alias": "champion"}
CONTENT = b"abcd"
DIGEST = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
ARGUMENTS: dict[str, dict[str, Any]] = {  # what a route needs to be asked rightly, by method and the end of its path
    "PATCH <job_id>": {"json": {"priority": 3}},
    "PATCH <webhook_id>": {"json": {"active": False}},
    "POST clone": {"json": {"name": "mine"}},
    "PUT <int:number>": {"data": CONTENT, "headers": {"Content-Digest": f"sha-256=:{DIGEST}:"}},
    "PUT <user>": {"json": {"role": "admin"}},
    "PUT <alias>": {"json": {"version": 1}},
    "POST export": {"json": {"format": "onnx"}},
    "POST predict": {"data": {"images": b"an image"}},
}


@dataclass
class House:
    """A service in which everything is Ada's. owned: her ids by the argument of routes that takes them."""

    made: Service
    owned: dict[str, str]
    secrets: dict[str, str]

    def ask(self, user: str, method: str, path: str, **arguments: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.secrets[user]}", **arguments.pop("headers", {})}
        if isinstance(data := arguments.get("data"), bytes):
            arguments["data"] = io.BytesIO(data)
            headers["Content-Length"] = str(len(data))
        if isinstance(data, dict):
            arguments["data"] = {name: (io.BytesIO(content), "a.png") for name, content in data.items()}
        return self.made.app.test_client().open(path, method=method, headers=headers, buffered=True, **arguments)

    def browser(self, user: str) -> tuple[FlaskClient, str]:
        """Somebody's session, and what its forms carry."""
        client = self.made.app.test_client()
        form = {"token": self.secrets[user], "csrf": csrf_of(client.get("/login"))}
        assert client.post("/login", data=form).status_code == 303
        return client, csrf_of(client.get("/jobs"))

    def without_ids(self, told: str) -> str:
        """An answer without what was asked for, which it may repeat."""
        for value in self.owned.values():
            told = told.replace(value, "")
        return told

    def path(self, rule: Rule) -> str:
        """A route's path with Ada's ids in it."""
        known = {**PLAIN, **self.owned}
        if unknown := sorted(rule.arguments - known.keys()):
            pytest.fail(
                f"{rule.rule} takes {', '.join(unknown)}, unknown here: enter into {Path(__file__).name}"
                " an id of Ada's for it (house, `owned`), or a value that is nobody's (PLAIN), or, if the route shows"
                " the same to everyone, the route (SAME_FOR_ALL)"
            )
        built = rule.build({name: known[name] for name in rule.arguments}, append_unknown=False)
        assert built is not None
        return built[1]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with service(tmp_path) as made:
        yield furnished(made)


def furnished(made: Service) -> House:
    """Ada's job with a file, her data set, upload, project and token; Bob, who has nothing."""
    database = made.context.database
    counts = [{"class": name, "images": 60, "groups": 30} for name in ("mel", "nv")]
    with database.write() as session:
        session.execute(
            insert(Dataset).values(
                id="11111111-0000-7000-8000-000000000001",
                project=personal("ada"),
                name="adas-lesions",
                format="ham10000",
                digest="0" * 64,
                synthetic=True,
                classes=["mel", "nv"],
                images=120,
                groups=60,
                group_unit="lesion",
                class_counts=counts,
                findings=[],
                files={},
                created_by="ada",
                created_at=0,
            )
        )
    dataset = "11111111-0000-7000-8000-000000000001"
    job = made.submit(user="ada", name="adas-training", dataset_id=dataset)
    claim = jobs.claim(database, "w", Offer(["any"]), 30)
    assert claim is not None
    file = made.context.settings.home / "file"
    file.write_bytes(b"hello")
    stored = StoredFile(f"jobs/{job}/x", hashlib.sha256(b"hello").hexdigest(), 5)
    made.context.store.put_file(stored.key, file, stored.sha256)
    jobs.finish(database, claim.lease, {"figures": {}}, [NewArtifact("report.json", "application/json", stored)])
    upload, _ = uploads.begin(made.context, ADA, NewUpload("adas.zip", 4, hashlib.sha256(CONTENT).hexdigest()))
    projects.create(database, ADA, NewProject("adas-study", "Hers"))
    owned = {"job_id": job, "dataset_id": dataset, "upload_id": upload["id"], "project_id": "adas-study"}
    owned |= _told_and_kept(made, job)
    secrets = {user: made.token(user)[1] for user in ("ada", "bob")} | {"root": made.token("root", "admin")[1]}
    return House(made, {**owned, "token_id": made.token("ada")[0]}, secrets)


def _told_and_kept(made: Service, job: str) -> dict[str, str]:
    """Ada's webhook with a delivery, and her model with a version and an alias."""
    ids = {name: new_id() for name in ("webhook_id", "delivery_id", "model", "version")}
    hook = {"url": "https://adas-host.example/", "states": ["failed"], "children": False, "everyone": False}
    told = {"event": "ping", "facts": {}, "state": "given_up", "tries": 1, "tries_left": 0, "next_at": 0}
    kept = {"number": 1, "state": "ready", "source": "trained", "job_id": job, "findings": [], "digest": "0" * 64}
    kept |= {"members": 1, "card": {}, "metrics": {}, "provenance": {}, "files": {}, "ready_at": 1_760_000_000_000}
    by = {"created_by": "ada", "created_at": 0}
    with made.context.database.write() as session:
        session.execute(insert(Webhook).values(id=ids["webhook_id"], secret="adas-secret", **hook, **by))
        values = {"id": ids["delivery_id"], "webhook_id": ids["webhook_id"], "created_at": 0, **told}
        session.execute(insert(Delivery).values(**values))
        session.execute(insert(RegisteredModel).values(id=ids["model"], project="~ada", name="adas-model", **by))
        session.execute(insert(ModelVersion).values(id=ids["version"], model_id=ids["model"], **kept, **by))
        alias = {"model_id": ids["model"], "alias": "champion", "version_id": ids["version"]}
        session.execute(insert(ModelAlias).values(**alias, moved_by="ada", moved_at=0))
    return {"webhook_id": ids["webhook_id"], "delivery_id": ids["delivery_id"], "model_id": "adas-model"}


def routes(house: House, prefix: str) -> list[tuple[Rule, str]]:
    """All routes with arguments below a prefix or outside it (dashboard), with each method; removals last, and of
    those the innermost first."""
    found = []
    for rule in house.made.app.url_map.iter_rules():
        is_api = rule.rule.startswith("/api/v1/")
        if rule.arguments and is_api == (prefix == "api") and rule.rule not in SAME_FOR_ALL:
            found += [(rule, method) for method in sorted((rule.methods or set()) - {"OPTIONS"})]
    assert len(found) > 8, "there are routes to try"

    def removes(rule: Rule, method: str) -> bool:
        return method == "DELETE" or (method == "POST" and rule.rule.endswith(("/remove", "/revoke")))

    return sorted(found, key=lambda each: (removes(*each), -each[0].rule.count("/"), each[0].rule, each[1]))


def arguments_of(rule: Rule, method: str) -> dict[str, Any]:
    return {**ARGUMENTS.get(f"{method} {rule.rule.rpartition('/')[2]}", {})}


def with_csrf(method: str, csrf: str) -> dict[str, Any]:
    """What a page sends with its requests: forms in a field, scripts that send files in a header."""
    return {"data": {"csrf": csrf}} if method == "POST" else {"headers": {"X-CSRF": csrf}}


def state(house: House) -> list[Any]:
    """What there is of Ada's, and in which state."""
    with house.made.context.database.read() as session:
        rows: list[Any] = [session.scalars(select(table.id)).all() for table in (Delivery, RegisteredModel)]
        rows += [session.execute(select(Webhook.id, Webhook.active)).all()]
        rows += [session.execute(select(ModelVersion.id, ModelVersion.state)).all()]
        rows += [session.execute(select(ModelAlias.alias, ModelAlias.version_id)).all()]
        rows += [
            session.execute(select(table.id, table.state).order_by(table.id)).all() for table in (Job, Dataset, Upload)
        ]
    database = house.made.context.database
    held = [token["revoked_at"] for token in tokens.list_tokens(database, "ada")]
    return [*rows, projects.list_members(database, ADA, "adas-study"), held]


def test_a_stranger_finds_nothing_on_any_route_of_the_api(house: House) -> None:
    before = state(house)
    for rule, method in routes(house, "api"):
        path = house.path(rule)
        theirs = house.ask("bob", method, path, **arguments_of(rule, method))
        assert theirs.status_code == 404, f"{method} {rule.rule} answered {theirs.status_code} to a stranger"
        assert "adas-" not in house.without_ids(theirs.text), f"{method} {rule.rule}: {theirs.text}"
    assert state(house) == before


def test_what_a_stranger_does_not_find_is_there(house: House) -> None:
    """Else the test before would pass for routes that find nothing for anybody."""
    for rule, method in routes(house, "api"):
        if rule.rule in NOT_THERE:
            continue
        mine = house.ask("ada", method, house.path(rule), **arguments_of(rule, method))
        assert mine.status_code not in (401, 403, 404, 500), f"{method} {rule.rule}: {mine.status_code} {mine.text}"
        assert mine.status_code != 422, f"{method} {rule.rule} needs an entry in ARGUMENTS: {mine.text}"


def test_a_stranger_finds_nothing_on_any_page(house: House) -> None:
    client, csrf = house.browser("bob")
    before = state(house)
    for rule, method in routes(house, "dashboard"):
        path = house.path(rule)
        answer = client.open(path, method=method, buffered=True, **with_csrf(method, csrf))
        assert answer.status_code == 404, f"{method} {rule.rule} answered {answer.status_code} to a stranger"
        assert "adas-" not in house.without_ids(answer.text)
    assert state(house) == before


def test_every_page_that_a_stranger_does_not_find_is_there(house: House) -> None:
    client, csrf = house.browser("ada")
    for rule, method in routes(house, "dashboard"):
        if rule.rule in NOT_THERE:
            continue
        path = house.path(rule)
        answer = client.open(path, method=method, buffered=True, **with_csrf(method, csrf))
        assert answer.status_code not in (401, 403, 404, 500), f"{method} {rule.rule}: {answer.status_code}"


def test_no_list_tells_a_stranger_of_anything(house: House) -> None:
    client, _ = house.browser("bob")
    tried = 0
    for rule in house.made.app.url_map.iter_rules():
        if rule.arguments or "GET" not in (rule.methods or set()):
            continue
        answers = [client.get(rule.rule, buffered=True)]
        if rule.rule.startswith("/api/v1/"):
            answers = [house.ask("bob", "GET", rule.rule)]
        for answer in answers:
            tried += 1
            told = [value for value in (*house.owned.values(), "adas-") if value in answer.text]
            assert not told, f"GET {rule.rule} tells a stranger of {told}"
    assert tried > 10


@pytest.mark.parametrize("path", ["/compare", "/compare/curves", "/compare/figures.csv"])
def test_a_stranger_compares_nothing_of_another(house: House, path: str) -> None:
    asked = f"{path}?job={house.owned['job_id']}"
    if path.endswith("csv"):  # the page and its curves show nothing of one job alone
        assert "adas-" in house.browser("ada")[0].get(asked).text
    assert "adas-" not in house.browser("bob")[0].get(asked).text


def test_a_stranger_hears_no_stream(house: House) -> None:
    path = f"/api/v1/jobs/{house.owned['job_id']}/events"
    assert house.ask("bob", "GET", path, headers={"Accept": "text/event-stream"}).status_code == 404


@pytest.mark.parametrize(
    ("path", "field", "owned", "body"),
    [
        ("jobs", "dataset", "dataset_id", {"kind": "train", "spec": {"model": "bgpanet_micro"}}),
        ("jobs", "project", "project_id", {"kind": "train", "dataset": "x", "spec": {"model": "bgpanet_micro"}}),
        ("jobs", "after", "job_id", {"kind": "train", "dataset": "x", "spec": {"model": "bgpanet_micro"}}),
        ("jobs", "spec", "job_id", {"kind": "predict", "dataset": "x"}),
        ("datasets", "source", "upload_id", {"name": "x", "format": "ham10000"}),
        ("datasets", "project", "project_id", {"name": "x", "format": "ham10000", "source": {"upload": NOBODYS}}),
        ("uploads", "project", "project_id", {"name": "x.zip", "size": 4, "sha256": "0" * 64}),
    ],
)
def test_an_id_of_another_in_a_body_is_refused_as_one_that_nobody_has(
    house: House, path: str, field: str, owned: str, body: dict[str, Any]
) -> None:
    def ask(value: str) -> Any:
        shaped: dict[str, Any] = {"after": [value], "spec": {"model": value}, "source": {"upload": value}}
        answer = house.ask("bob", "POST", f"/api/v1/{path}", json={**body, field: shaped.get(field, value)})
        assert answer.status_code == 422, answer.text
        told = {name: what for name, what in answer.json.items() if name != "request_id"}
        return json.dumps(told).replace(value, "…")

    assert ask(house.owned[owned]) == ask("nobodys-id" if owned == "project_id" else NOBODYS)


def test_what_a_stranger_tries_to_change_stands_in_the_audit_trail(house: House) -> None:
    path = f"/api/v1/jobs/{house.owned['job_id']}/cancel"
    house.ask("bob", "POST", path)
    with house.made.context.database.read() as session:
        entry = session.scalars(select(AuditEntry).order_by(AuditEntry.number.desc()).limit(1)).one()
    assert (entry.user, entry.subject, entry.outcome) == ("bob", path, "refused")
