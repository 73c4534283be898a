"""docker-compose.yml against its schema, the product's own commands and variables, and the rules of a safe host."""

import ipaddress
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from services import settings
from services.cli import app
from services.provision import make_secrets
from services.settings import Settings
from tests.support.deployment import COMPOSE, OURS, ROOT, Place, compose, default_of

SERVICES: dict[str, Any] = compose()["services"]
STANDARD = {"AWS_SHARED_CREDENTIALS_FILE", "AWS_DEFAULT_REGION"}  # botocore's own
each = pytest.mark.parametrize("name", sorted(SERVICES))
each_of_ours = pytest.mark.parametrize("name", OURS)


def test_it_is_what_the_specification_of_compose_files_allows() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def verbs() -> dict[str, Any]:
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return commands


@each_of_ours
def test_every_command_is_a_verb_with_options_that_it_has(name: str) -> None:
    first, verb, *arguments = SERVICES[name]["command"]
    assert first == "bgpanet"
    known = verbs()[verb]
    known.make_context(verb, list(arguments))  # raises on what it does not know


@each_of_ours
def test_every_health_check_of_ours_is_a_verb_too(name: str) -> None:
    test = SERVICES[name].get("healthcheck", {}).get("test", [])
    if test[1:2] == ["bgpanet"]:
        verbs()[test[2]].make_context(test[2], list(test[3:]))
    else:
        assert name in ("api", "prepare")


def variables() -> set[str]:
    return set(re.findall(r'"(BGPANET_\w+)"', Path(settings.__file__).read_text(encoding="utf-8")))


@each_of_ours
def test_every_variable_is_one_that_the_settings_read(name: str) -> None:
    given = set(SERVICES[name]["environment"]) - STANDARD
    assert {variable.removesuffix("_FILE") for variable in given} <= variables()


@each_of_ours
def test_the_settings_take_the_values(name: str, tmp_path: Path) -> None:
    make_secrets(tmp_path)
    loaded = Settings.load(Place(tmp_path).environment(SERVICES[name]))
    assert loaded.database_url.startswith("postgresql+psycopg://bgpanet:")
    assert loaded.redis_url.startswith("redis://:")
    assert loaded.artifacts_url == "s3://bgpanet"


@each
def test_every_secret_that_is_read_is_given_to_the_service_and_made_by_the_command(name: str, tmp_path: Path) -> None:
    service, declared = SERVICES[name], compose()["secrets"]
    read = set(re.findall(r"/run/secrets/([\w.]+)", repr(service)))
    assert read == set(service.get("secrets", []))
    made = make_secrets(tmp_path)
    for secret in read:
        assert declared[secret]["file"] == f"./secrets/{secret}"
        assert secret in made


@each
def test_no_secret_stands_in_the_file_itself(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if re.search(r"PASSWORD|SECRET|TOKEN|KEY|DATABASE_URL|REDIS_URL", variable):
            assert variable.endswith("_FILE"), variable
            assert value.startswith("/run/secrets/")


@each
def test_no_container_is_root_or_could_become_it(name: str) -> None:
    service = SERVICES[name]
    user, _ = service["user"].split(":")
    assert int(user) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"}


@each
def test_nothing_is_published_beyond_loopback_unless_asked(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        address, _, _ = default_of(port).split(":")
        assert ipaddress.ip_address(address).is_loopback


def test_databases_and_queue_can_be_reached_from_no_other_network() -> None:
    assert compose()["networks"]["data"]["internal"] is True
    for name in ("postgres", "redis"):
        assert SERVICES[name]["networks"] == ["data"]
        assert "ports" not in SERVICES[name]


def test_the_scheduler_reaches_receivers_of_webhooks() -> None:
    assert "outside" in SERVICES["scheduler"]["networks"]


@each
def test_every_image_has_a_version(name: str) -> None:
    _, _, tag = SERVICES[name]["image"].rpartition(":")
    assert re.match(r"v?\d+\.\d+", tag)


@each
def test_every_container_tells_whether_it_is_well(name: str) -> None:
    assert ("healthcheck" in SERVICES[name]) is (name != "prepare")


@each
def test_it_waits_for_what_it_needs_to_be_well(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        once = SERVICES[needed].get("restart") == "no"
        assert how["condition"] == ("service_completed_successfully" if once else "service_healthy")


@each
def test_what_is_mounted_is_there(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        assert (ROOT / source).exists() if source.startswith(".") else source in compose()["volumes"]


def test_a_worker_may_finish_its_checkpoint_before_it_is_killed() -> None:
    for name in ("worker", "worker-cpu"):
        service = SERVICES[name]
        grace = float(service["environment"]["BGPANET_GRACE_SECONDS"])
        assert float(service["stop_grace_period"].removesuffix("s")) > grace + 4  # to store it and to give the job back


def test_prometheus_looks_where_the_parts_tell_their_figures() -> None:
    """Host names are those of services, and ports those of the API's command and of the others' variables."""
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    looked = {
        (name, where["port"])
        for job in config["scrape_configs"]
        for where in job["dns_sd_configs"]
        for name in where["names"]
    }
    told = {
        (name, int(service["environment"]["BGPANET_METRICS_PORT"]))
        for name, service in SERVICES.items()
        if "BGPANET_METRICS_PORT" in service.get("environment", {})
    }
    assert looked == told | {("api", 8080)}
    networks = set(SERVICES["prometheus"]["networks"])
    assert all(networks & set(SERVICES[name]["networks"]) for name, _ in looked)


def test_scaled_workers_have_neither_ports_nor_names_that_could_clash() -> None:
    for name in ("worker", "worker-cpu"):
        assert not SERVICES[name].keys() & {"ports", "container_name", "hostname"}
    assert "--free-gpus" in SERVICES["worker"]["command"]
