"""What a process of the API does before it answers."""

from types import SimpleNamespace

import pytest

from services import serving
from services.dashboard import NAVIGATION
from tests.unit.services.dashboard.conftest import SignIn
from tests.unit.services.dashboard.full_service import Service


def test_a_process_that_serves_compiles_no_template_within_a_request(
    ids: dict[str, str], made: Service, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving.post_worker_init(SimpleNamespace(wsgi=made.app, alive=True))

    def compiles(*_: object, **__: object) -> None:
        raise AssertionError("a template is compiled within a request")

    monkeypatch.setattr(made.app.jinja_env, "compile", compiles)
    client = sign_in()
    for path in (*[path for path, _ in NAVIGATION], *[f"/jobs/{job_id}" for job_id in ids.values()]):
        assert client.get(path, follow_redirects=True).status_code == 200, path
