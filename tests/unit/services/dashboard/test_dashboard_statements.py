"""However much a service has, a page or a list asks the database as often as before: what is shown of many rows is
read at once. A test never asserts a time; `benchmarks/pages.py` and `benchmarks/api.py` measure it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import event, insert

from services.tables import Dataset, ModelVersion, RegisteredModel, Worker
from tests.support.clocked import DATASET, MODEL, VERSION
from tests.unit.services.dashboard.conftest import SignIn
from tests.unit.services.dashboard.full_service import Service, add_datasets

FEW, MORE = 14, 40
PAGES = {  # how often each may ask; once of that is who looks
    "/overview": 37,  # of them 12 for curves of running jobs
    "/jobs": 5,
    "/jobs?state=failed": 4,
    "/jobs?q=training": 5,
    "/jobs?sort=name": 5,
    "/jobs?kind=cross_validate&sort=oldest&open={parent}": 7,
    "/jobs/{running}": 21,
    "/jobs/{running}/curves": 11,  # one each for six series
    "/jobs/{parent}": 34,
    "/compare?job={running}&job={waiting}": 5,
    "/datasets": 3,
    "/workers": 4,
    "/models": 6,
    "/settings/tokens": 2,
    "/settings/audit": 2,
}
LISTS = {
    "jobs?limit=100": 4,
    "jobs?limit=100&state=running": 3,
    "jobs/{running}": 3,
    "jobs/{parent}/children": 3,
    "jobs/{running}/metrics": 3,
    "jobs/{running}/events": 3,
    "datasets?limit=100": 3,
    "models": 4,
    "workers": 4,
    "projects": 3,
    "tokens": 2,
    "webhooks": 2,
    "audit": 2,
}


@contextmanager
def counted(made: Service) -> Iterator[list[str]]:
    """The statements that are executed meanwhile."""
    found: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith(("BEGIN", "UPDATE tokens")):  # the latter beside requests, once a minute
            found.append(statement)

    engine = made.context.database.engine
    event.listen(engine, "before_cursor_execute", note)
    yield found
    event.remove(engine, "before_cursor_execute", note)


def grow(made: Service, count: int, label: str) -> dict[str, str]:
    """So many data sets, models, tokens, jobs that run on a worker each, that wait, and parents; one's id of each."""
    common = {**DATASET, "version": 1}
    sets = [{**common, "id": f"{label}-{n}", "name": f"{label}-{n}", "digest": f"{n:064}"} for n in range(count)]
    offer = {"resource_classes": ["any"], "labels": [], "version": "1", "device": "cpu", "host": "h", "pid": 1}
    slots = [f"{label}/{n}" for n in range(count)]
    claims = []
    for slot in slots:
        made.submit(priority=1)
        claims.append(made.claim(slot))
    for claim in claims:
        made.say(claim, epochs=2)
    rows = [
        {**offer, "name": slot, "job_id": claim.lease.job_id, "figures": {}, "started_at": 0, "seen_at": 2**42}
        for slot, claim in zip(slots, claims, strict=True)
    ]
    with made.context.database.write() as session:
        session.execute(insert(Dataset), sets)
        session.execute(insert(Worker), rows)
        session.execute(insert(RegisteredModel), [{**MODEL, "id": name, "name": name} for name in slots])
        session.execute(insert(ModelVersion), [{**VERSION, "id": name, "model_id": name} for name in slots])
    for _ in range(count):
        made.token("root", "admin")
        parent = made.submit("cross_validate", spec={"split": {"folds": 3}}, name="a training of folds")
        waiting = made.submit()
    return {"running": claims[0].lease.job_id, "parent": parent, "waiting": waiting}


def statements(made: Service, client: FlaskClient, secret: str, ids: dict[str, str]) -> dict[str, int]:
    """How often each page and list asks, once it is warm."""
    asked: dict[str, tuple[str, dict[str, str]]] = {path: (path.format(**ids), {}) for path in PAGES}
    bearer = {"Authorization": f"Bearer {secret}"}
    asked |= {path: (f"/api/v1/{path.format(**ids)}", bearer) for path in LISTS}
    found = {}
    for name, (path, headers) in asked.items():
        assert client.get(path, headers=headers).status_code == 200, path
        with counted(made) as told:
            client.get(path, headers=headers)
        found[name] = len(told)
    return found


def test_pages_and_lists_ask_as_often_for_much_as_for_little(
    made: Service, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.overview.LEAST", 3600.0)  # what is warm stays so, however slow the machine
    add_datasets(made)
    client, secret = sign_in(), made.token("root", "admin")[1]
    ids = grow(made, FEW, "few")
    of_few = statements(made, client, secret, ids)
    grow(made, MORE, "more")
    assert statements(made, client, secret, ids) == of_few
    most = PAGES | LISTS
    assert not {path: found for path, found in of_few.items() if found > most[path]}
