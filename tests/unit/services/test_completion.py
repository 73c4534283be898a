"""What a shell is offered for the words of a command, asked of a service that listens."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services import fleet
from services.cli import app
from services.fleet import Member, Weights
from tests.support.listening import Line, listening
from tests.support.trained import trained
from tests.unit.services.api.test_api import Api, finished_job
from tests.unit.services.api.test_api import api as api  # a fixture


class Typed:
    """A shell in which Ada presses the tabulator after some words."""

    def __init__(self, environment: dict[str, str], line: Line) -> None:
        self.environment, self.line = environment, line

    def offers(self, *words: str) -> list[str]:
        """What is offered in place of the last word."""
        typed = {"COMP_WORDS": " ".join(["bgpanet", *words]).rstrip(), "COMP_CWORD": str(len(words))}
        answer = CliRunner().invoke(
            app, [], prog_name="bgpanet", env={**self.environment, **typed, "_BGPANET_COMPLETE": "complete_bash"}
        )
        assert answer.exit_code == 0, answer.output
        offered: list[str] = answer.output.split()
        return offered


@pytest.fixture
def typed(api: Api, tmp_path: Path) -> Iterator[Typed]:
    with listening(api.client.application) as (url, line):
        yield Typed({"BGPANET_URL": url, "BGPANET_TOKEN": api.tokens["ada"], "BGPANET_HOME": str(tmp_path)}, line)


@pytest.mark.parametrize("verb", ["job", "watch", "logs", "cancel", "pause", "resume", "retry", "clone", "artifacts"])
def test_ids_of_one_s_jobs_are_offered_the_newest_first(typed: Typed, api: Api, verb: str) -> None:
    mine = [api.submit("ada").json["id"] for _ in range(2)]
    api.submit("bob")
    assert typed.offers(verb, "") == mine[::-1]
    assert typed.offers(verb, mine[0]) == [mine[0]]
    assert typed.offers(verb, "zzz") == []


@pytest.mark.parametrize(
    "words", [("dataset", "show", "le"), ("submit", "train", "--dataset", ""), ("jobs", "--dataset", "les")]
)
def test_data_sets_are_offered(typed: Typed, words: tuple[str, ...]) -> None:
    assert typed.offers(*words) == ["lesions"]


@pytest.fixture
def kept(api: Api) -> None:
    """Ada's model with two versions, one of which is her champion, and Bob's."""
    for user, names in (("ada", ("lesions-net", "lesions-net", "moles-net")), ("bob", ("lesions-of-bob",))):
        for number, name in enumerate(names):
            body = {"name": name, "job": trained(api.context, user, f"weights {number}")}
            body |= {} if number else {"alias": "champion"}
            assert api.call("POST", "models", user, json=body).status_code == 201


@pytest.mark.parametrize("verb", ["show", "export", "predict", "remove"])
def test_registered_models_are_offered_with_their_aliases(typed: Typed, kept: None, verb: str) -> None:
    assert typed.offers("model", verb, "lesions") == ["lesions-net", "lesions-net@champion"]
    assert typed.offers("model", verb, "lesions-net@c") == ["lesions-net@champion"]


@pytest.mark.parametrize("verb", ["register", "alias", "import"])
def test_names_of_registered_models_are_offered(typed: Typed, kept: None, verb: str) -> None:
    assert typed.offers("model", verb, "") == ["moles-net", "lesions-net"]


def test_aliases_of_the_model_that_was_named_are_offered(typed: Typed, kept: None) -> None:
    assert typed.offers("model", "alias", "lesions-net", "") == ["champion"]
    assert typed.offers("model", "alias", "lesions-of-bob", "") == []


def test_projects_members_and_roles_are_offered(typed: Typed, api: Api) -> None:
    for user, project in (("ada", "derma"), ("ada", "detail"), ("bob", "demo")):
        assert api.call("POST", "projects", user, json={"id": project}).status_code == 201
    assert api.call("PUT", "projects/derma/members/eve", "ada", json={"role": "viewer"}).status_code == 200
    for verb in ("add", "drop", "members", "remove"):
        assert typed.offers("project", verb, "de") == ["derma", "detail"]
    assert typed.offers("project", "drop", "derma", "") == ["ada", "eve"]
    assert typed.offers("project", "drop", "demo", "") == []
    assert typed.offers("model", "register", "x", "y", "--project", "der") == ["derma"]
    assert typed.offers("project", "add", "derma", "eve", "--role", "") == ["viewer", "researcher", "admin"]


def test_workers_are_offered_each_once(typed: Typed, api: Api) -> None:
    for slot in ("gpu-1/0", "gpu-1/1", "cpu-1/0"):
        fleet.beat(api.context.database, Member(slot, "host", 1, "0.1.0", "CPU", ["any"]), None, {}, Weights())
    assert typed.offers("workers", "drain", "") == ["cpu-1", "gpu-1"]
    assert typed.offers("workers", "drain", "gpu") == ["gpu-1"]


def test_files_of_the_job_that_was_named_are_offered(typed: Typed, api: Api) -> None:
    assert typed.offers("download", finished_job(api, "ada"), "") == ["report.json"]


def test_kinds_networks_and_formats_are_offered_without_asking(typed: Typed) -> None:
    assert typed.offers("submit", "tr") == ["train"]
    assert "bgpanet_micro" in typed.offers("submit", "train", "--model", "bgpanet")
    assert "ham10000" in typed.offers("dataset", "add", "x", "--format", "ham")
    assert typed.line.asked == []


def test_a_service_that_is_busy_is_asked_once_and_nothing_is_said(typed: Typed) -> None:
    typed.line.refuse("503 BUSY", times=9)
    assert typed.offers("job", "") == []
    assert len(typed.line.asked) == 1


def test_where_no_service_is_known_nothing_is_said(typed: Typed) -> None:
    typed.environment |= {"BGPANET_URL": "", "BGPANET_TOKEN": ""}
    assert typed.offers("job", "") == []
