"""Tokens, projects and the audit trail from the command line, against a service that listens."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from services import fleet
from services.commands.common import FAILED, FORBIDDEN, MISSING, USAGE
from services.fleet import Member, Weights
from services.fleet_use import Use
from tests.unit.services.api.test_api import api as api  # a fixture
from tests.unit.services.test_cli_jobs import SUBMIT, Shell
from tests.unit.services.test_cli_jobs import shell as shell  # a fixture


def test_a_token_is_made_with_scopes_and_expiry_used_listed_and_revoked(shell: Shell) -> None:
    made = json.loads(shell.run("token", "create", "nightly", "--scope", "read", "--expires", "90d", "--json"))
    expires = datetime.fromisoformat(made["expires_at"])
    assert timedelta(days=89) < expires - datetime.now(UTC) < timedelta(days=91)
    reader = Shell(shell.api, {**shell.environment, "BGPANET_TOKEN": made["token"]})
    assert json.loads(reader.run("jobs", "--json")) == []
    status, said = reader.refused(*SUBMIT)
    assert (status, "scope `submit`" in said) == (FORBIDDEN, True)
    assert "nightly" in shell.run("token", "list")
    assert shell.run("token", "revoke", made["id"]) == f"revoked {made['id']}"
    assert reader.refused("jobs")[0] == FORBIDDEN


@pytest.mark.parametrize("when", ["soon", "12", "3w", "2027-13-01"])
def test_an_expiry_that_is_no_time_is_refused_before_anything_is_asked(shell: Shell, when: str) -> None:
    assert shell.refused("token", "create", "n", "--expires", when)[0] == USAGE


def test_a_project_is_made_shared_and_left(shell: Shell) -> None:
    assert shell.run("project", "create", "derma", "--title", "Dermoscopy") == "derma"
    assert shell.run("project", "add", "derma", "bob", "--role", "viewer") == "bob is a viewer of derma"
    job_id = shell.run(*SUBMIT, "--project", "derma")
    bob = Shell(shell.api, {**shell.environment, "BGPANET_TOKEN": shell.api.tokens["bob"]})
    assert bob.job(job_id)["project"] == "derma"
    assert [row["id"] for row in json.loads(bob.run("project", "list", "--json"))] == ["derma"]
    assert [row["user"] for row in json.loads(bob.run("project", "members", "derma", "--json"))] == ["ada", "bob"]
    assert shell.run("project", "drop", "derma", "bob") == "bob is no member of derma any more"
    assert bob.refused("job", job_id)[0] == MISSING
    assert shell.refused("project", "remove", "derma")[0] == FAILED


def test_the_trail_is_listed_and_verified_and_a_change_of_it_ends_with_status_1(shell: Shell) -> None:
    job_id = shell.run(*SUBMIT)
    shell.run("cancel", job_id)
    root = Shell(shell.api, {**shell.environment, "BGPANET_TOKEN": shell.api.tokens["root"]})
    told = json.loads(root.run("audit", "list", "--subject", job_id, "--json"))
    assert [entry["action"] for entry in told] == ["job.cancel", "job.submit"]
    head = shell.run("audit", "verify")
    assert head.startswith("2:")
    assert shell.run("audit", "verify", "--head", head) == head
    assert shell.refused("audit", "verify", "--head", "2")[0] == USAGE
    with shell.api.context.database.write() as session:
        session.execute(text("DROP TRIGGER audit_update"))  # as one may who owns the database
        session.execute(text("UPDATE audit SET user = 'bob' WHERE number = 1"))
    status, said = shell.refused("audit", "verify")
    assert (status, "entry 1 is not what was written" in said) == (FAILED, True)
    answer = json.loads(shell.refused("audit", "verify", "--json")[1])
    assert (answer["holds"], answer["broken"]) == (False, 1)


def test_an_admin_has_a_worker_leave(shell: Shell) -> None:
    member = Member("gpu-1/0", "host", 1, "0.1.0", "CPU", ["any"])
    fleet.beat(shell.api.context.database, member, None, {}, Weights())
    assert shell.refused("workers", "drain", "gpu-1")[0] == FORBIDDEN
    assert json.loads(shell.run("workers", "--json"))[0]["state"] == "idle"
    root = Shell(shell.api, {**shell.environment, "BGPANET_TOKEN": shell.api.tokens["root"]})
    assert "draining" in root.run("workers", "drain", "gpu-1/0")
    assert json.loads(root.run("workers", "drain", "gpu-1", "--json"))[0]["why"] == "root asked it to leave"
    assert "root asked it to leave" in shell.run("workers")
    assert root.refused("workers", "drain", "gpu-2")[0] == MISSING


def test_how_busy_workers_were_is_drawn(shell: Shell) -> None:
    database = shell.api.context.database
    for name, use in (("gpu-1/0", Use(0.5, 100.0, 25.0)), ("cpu-1/0", Use(0.5))):
        fleet.beat(database, Member(name, "host", 1, "0.1.0", "CPU", ["any"]), None, {}, Weights(), use=use)
    said = shell.run("workers", "use", "--hours", "3").splitlines()
    rows = {line.split()[0]: line.rstrip() for line in said if "/0" in line}
    assert rows["gpu-1/0"].endswith("█")
    assert [part in rows["gpu-1/0"] for part in ("50 %", "100 %", "25 %")] == [True] * 3
    assert rows["cpu-1/0"].endswith("▅")
    told = json.loads(shell.run("workers", "use", "--json"))
    assert [(row["name"], row["use"][-1]["busy"]) for row in told] == [("cpu-1/0", 0.5), ("gpu-1/0", 0.5)]


def test_a_webhook_is_switched_off_and_on_and_hears_of_what_it_is_told_to(shell: Shell) -> None:
    hook = json.loads(shell.run("webhook", "create", "https://lab.example.org/hook", "--json"))["id"]
    assert "is off" in shell.run("webhook", "change", hook, "--off")
    assert " off " in shell.run("webhook", "list")
    status, said = shell.refused("webhook", "ping", hook)
    assert (status, "switch it on" in said) == (FAILED, True)
    changed = json.loads(shell.run("webhook", "change", hook, "--state", "failed", "--children", "--json"))
    assert (changed["active"], changed["states"], changed["children"]) == (False, ["failed"], True)
    said = shell.run("webhook", "change", hook, "--on", "--no-children")
    assert said.strip() == f"webhook {hook} is on and hears of jobs that failed"
    assert json.loads(shell.run("webhook", "show", hook, "--json")) == {**changed, "active": True, "children": False}
    assert shell.refused("webhook", "change", hook, "--everyone")[0] == FORBIDDEN
    assert shell.refused("webhook", "change", hook, "--state", "running")[0] == FAILED
    assert "at least one of active" in shell.refused("webhook", "change", hook)[1]
    assert "is on" in shell.run("webhook", "change", hook, "--state", "cancelled")
