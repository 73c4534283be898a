"""The Helm chart, rendered by Helm's own library: valid against Kubernetes' schemas, safe, and the same product as
docker-compose.yml starts."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml
from helm_python import chart as helm
from helm_python.errors import HelmError

from services import settings
from services.cli import app
from services.provision import make_secrets
from tests.support.deployment import OURS, ROOT, compose

CHART = ROOT / "deploy" / "chart"
CPU_POOL = {
    "name": "cpu",
    "gpus": 0,
    "resourceClasses": ["cpu"],
    "replicas": 1,
    "minReplicas": 0,
    "maxReplicas": 2,
    "labels": ["room=2", "slow"],
    "nodeSelector": {"disk": "fast"},
    "tolerations": [],
    "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "4Gi"}},
}
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
EVERYTHING: dict[str, Any] = {
    "image": {"pullSecrets": ["registry"]},
    "artifacts": {"endpointUrl": "http://s3.storage:8333", "publicUrl": "https://s3.example.org"},
    "environment": {"BGPANET_QUEUED_PER_USER": "50"},
    "api": {
        "publicUrl": "https://lesions.example.org",
        "ingress": {"enabled": True, "host": "lesions.example.org", "className": "nginx", "tlsSecretName": "tls"},
    },
    "worker": {"pools": [*DEFAULTS["worker"]["pools"], CPU_POOL]},
    "autoscaling": {"enabled": True},
    "networkPolicy": {
        "weights": False,
        "webhooks": False,
        "apiFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
        "objects": {"port": 8333, "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
    },
}
BOTH = pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])


def rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Every object of a release `r`."""
    with helm.Chart.load(CHART) as chart:
        files = chart.render(values, name="r", namespace="n", is_install=True)
    texts = [text for path, text in files.items() if path.endswith(".yaml")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pod templates, by the name of what makes them."""
    made = {found["metadata"]["name"]: found for found in objects if found["kind"] in ("Deployment", "Job")}
    return {name: found["spec"]["template"] for name, found in made.items()}


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def test_helm_finds_nothing_to_complain_about() -> None:
    report = helm.lint(CHART, EVERYTHING)
    assert report["errors"] is None or report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] >= 2] == []


@BOTH
def test_every_object_is_valid_in_old_and_new_kubernetes(values: dict[str, Any]) -> None:
    kinds = set()
    for found in rendered(values):
        kinds.add(found["kind"])
        if found["apiVersion"].startswith("keda.sh/"):
            continue  # its schema is no part of Kubernetes; see the tests of autoscaling
        for version in ("1.27", "1.34"):
            kubernetes_validate.validate(found, version, strict=True)
    wanted = {"Deployment", "Service", "Job", "PodDisruptionBudget", "NetworkPolicy"}
    assert kinds == wanted | ({"Ingress", "ScaledObject", "TriggerAuthentication"} if values else set())


@BOTH
def test_no_name_is_there_twice(values: dict[str, Any]) -> None:
    names = [(found["kind"], found["metadata"]["name"]) for found in rendered(values)]
    assert len(names) == len(set(names))


@BOTH
def test_no_pod_is_root_or_could_become_it(values: dict[str, Any]) -> None:
    for pod in pods(rendered(values)).values():
        spec, inside = pod["spec"], container(pod)["securityContext"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert inside["allowPrivilegeEscalation"] is False
        assert inside["readOnlyRootFilesystem"] is True
        assert inside["capabilities"] == {"drop": ["ALL"]}
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}


@BOTH
def test_every_command_and_probe_is_a_verb(values: dict[str, Any]) -> None:
    verbs: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for pod in pods(rendered(values)).values():
        probes = [container(pod).get(name, {}) for name in ("readinessProbe", "livenessProbe", "startupProbe")]
        commands = [probe["exec"]["command"] for probe in probes if "exec" in probe]
        for first, verb, *arguments in [container(pod)["command"], *commands]:
            assert first == "bgpanet"
            verbs[verb].make_context(verb, list(arguments))


@BOTH
def test_every_variable_is_read_and_every_secret_made(values: dict[str, Any], tmp_path: Path) -> None:
    read = set(re.findall(r'"(BGPANET_\w+)"', Path(settings.__file__).read_text(encoding="utf-8")))
    made = make_secrets(tmp_path)
    for pod in pods(rendered(values)).values():
        names = [variable["name"] for variable in container(pod)["env"]]
        assert len(names) == len(set(names))
        others = {"AWS_SHARED_CREDENTIALS_FILE", "AWS_DEFAULT_REGION", "NVIDIA_VISIBLE_DEVICES"}
        assert {name.removesuffix("_FILE") for name in names} - {name.removesuffix("_FILE") for name in others} <= read
        (mounted,) = [volume["secret"] for volume in pod["spec"]["volumes"] if volume["name"] == "secrets"]
        keys = {item["key"] for item in mounted["items"]}
        used = {
            value.removeprefix("/run/secrets/bgpanet/") for value in _values(container(pod)) if "/secrets/" in value
        }
        assert keys == used
        assert keys <= set(made)


def _values(inside: dict[str, Any]) -> list[str]:
    return [variable["value"] for variable in inside["env"]] + list(inside["command"])


def test_it_starts_the_parts_that_the_compose_file_starts() -> None:
    started = {tuple(container(pod)["command"][:2]) for pod in pods(rendered({})).values()}
    assert started == {tuple(compose()["services"][name]["command"][:2]) for name in OURS}


def test_a_gpu_pod_has_one_gpu_and_time_to_drain_and_a_cpu_pod_sees_none() -> None:
    found = pods(rendered(EVERYTHING))
    gpu, cpu = container(found["r-worker-gpu"]), container(found["r-worker-cpu"])
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in cpu["resources"]["limits"]
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in cpu["env"]
    assert {"name": "BGPANET_WORKER_LABELS", "value": "room=2,slow"} in cpu["env"]
    for name in ("r-worker-gpu", "r-worker-cpu"):
        (grace,) = [v["value"] for v in container(found[name])["env"] if v["name"] == "BGPANET_GRACE_SECONDS"]
        # The grace, and what it takes to store the last checkpoint and to give the job back.
        assert found[name]["spec"]["terminationGracePeriodSeconds"] >= int(grace) + 10


def test_a_pool_for_jobs_on_several_gpus_has_slots_of_several() -> None:
    pool = {**CPU_POOL, "name": "four", "gpus": 4, "resourceClasses": ["gpu-2", "gpu-3", "gpu-4"]}
    worker = container(pods(rendered({"worker": {"pools": [pool]}}))["r-worker-four"])
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert worker["command"][-2:] == ["--gpus-per-slot", "4"]


def test_migrations_run_before_every_release() -> None:
    (job,) = [found for found in rendered({}) if found["kind"] == "Job"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert container(job["spec"]["template"])["command"][:2] == ["bgpanet", "prepare"]


def test_autoscaling_leaves_the_number_of_pods_to_keda() -> None:
    objects = rendered(EVERYTHING)
    for found in objects:
        if found["kind"] == "Deployment" and "worker" in found["metadata"]["name"]:
            assert "replicas" not in found["spec"]
    scaled = {
        found["spec"]["scaleTargetRef"]["name"]: found["spec"] for found in objects if found["kind"] == "ScaledObject"
    }
    assert scaled.keys() == {name for name in pods(objects) if "worker" in name}
    (authentication,) = [found for found in objects if found["kind"] == "TriggerAuthentication"]
    for spec in scaled.values():
        (trigger,) = spec["triggers"]
        assert trigger["type"] == "postgresql"
        assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
        assert spec["minReplicaCount"] < spec["maxReplicaCount"]


OF_KEDA: dict[str, Any] = {
    "ScaledObject": {
        "scaleTargetRef": {"name": str},
        "pollingInterval": int,
        "cooldownPeriod": int,
        "minReplicaCount": int,
        "maxReplicaCount": int,
        "advanced": {
            "horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": int}}},
        },
        "triggers": [
            {
                "type": str,
                "metadata": {"query": str, "targetQueryValue": str, "activationTargetQueryValue": str},
                "authenticationRef": {"name": str},
            }
        ],
    },
    "TriggerAuthentication": {"secretTargetRef": [{"parameter": str, "name": str, "key": str}]},
}
"""The fields that the chart uses of KEDA's objects and of its scaler for PostgreSQL, and their types there."""


def shape(value: Any) -> Any:
    """A value with types in the place of what is no list or object."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return [shape(inner) for inner in value] if isinstance(value, list) else type(value)


def test_objects_of_keda_have_the_fields_that_it_knows() -> None:
    found = [each for each in rendered(EVERYTHING) if each["apiVersion"].startswith("keda.sh/")]
    assert {each["apiVersion"] for each in found} == {"keda.sh/v1alpha1"}
    assert len(found) == 3
    for each in found:
        assert shape(each["spec"]) == OF_KEDA[each["kind"]]
        # The window is Kubernetes', which takes an hour at most.
        wait = each["spec"].get("advanced", {}).get("horizontalPodAutoscalerConfig", {}).get("behavior", {})
        assert wait.get("scaleDown", {}).get("stabilizationWindowSeconds", 0) <= 3600


def test_disruptions_take_one_pod_of_a_part_at_a_time() -> None:
    objects = rendered(EVERYTHING)
    budgets = [found["spec"] for found in objects if found["kind"] == "PodDisruptionBudget"]
    assert all(budget["maxUnavailable"] == 1 for budget in budgets)
    deployments = [found["spec"]["selector"] for found in objects if found["kind"] == "Deployment"]
    assert sorted(map(repr, (budget["selector"] for budget in budgets))) == sorted(map(repr, deployments))


def test_who_may_ask_for_figures_is_let_in_to_their_port_alone() -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    objects = rendered({"networkPolicy": {"metricsFrom": peers}})
    (rule,) = next(found for found in objects if found["metadata"]["name"] == "r-all")["spec"]["ingress"]
    assert rule == {"ports": [{"protocol": "TCP", "port": 9464}], "from": peers}
    for name in ("r-scheduler", "r-worker-gpu"):
        inside = container(pods(objects)[name])
        assert {"name": "BGPANET_METRICS_PORT", "value": "9464"} in inside["env"]
        assert inside["ports"] == [{"name": "metrics", "containerPort": 9464}]


def test_only_the_api_can_be_reached_and_workers_fetch_no_weights_where_they_may_not() -> None:
    policies = {
        found["metadata"]["name"]: found["spec"] for found in rendered(EVERYTHING) if found["kind"] == "NetworkPolicy"
    }
    assert policies.keys() == {"r-all", "r-api"}
    assert policies["r-all"]["ingress"] == []
    assert {port["port"] for rule in policies["r-all"]["egress"] for port in rule["ports"]} == {53, 5432, 6379, 8333}
    ((port,),) = [rule["ports"] for rule in policies["r-api"]["ingress"]]
    assert port["port"] == 8080
    worker = container(pods(rendered(EVERYTHING))["r-worker-gpu"])
    assert {"name": "BGPANET_OFFLINE", "value": "1"} in worker["env"]
    for pod in pods(rendered(EVERYTHING)).values():
        assert policies["r-all"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_schedulers_alone_reach_receivers_of_webhooks() -> None:
    values = {**EVERYTHING, "networkPolicy": {**EVERYTHING["networkPolicy"], "webhooks": True}}
    objects = rendered(values)
    (spec,) = [found["spec"] for found in objects if found["metadata"]["name"] == "r-webhooks"]
    assert [port["port"] for rule in spec["egress"] for port in rule["ports"]] == [443]
    chosen = {
        name
        for name, pod in pods(objects).items()
        if spec["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    }
    assert chosen == {"r-scheduler"}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"worker": {"pools": [{**CPU_POOL, "gpus": 100}]}}, "gpus"),
        ({"worker": {"pools": []}}, "pools"),
        ({"artifacts": {"url": "file:///data"}}, "url"),
        ({"environment": {"BGPANET_DATABASE_URL": "postgresql://u:p@h/d"}}, "BGPANET_DATABASE_URL"),
        ({"replicas": 3}, "replicas"),
        ({"api": {"publicUrl": "http://lesions.example.org"}}, "publicUrl"),
        ({"api": {"ingress": {"enabled": True}}}, "host"),
        ({"image": {"api": {"tag": "latest"}}}, "tag"),
        ({"autoscaling": {"cooldownSeconds": 3601}}, "cooldownSeconds"),
    ],
)
def test_values_that_could_not_work_are_refused_by_name(values: dict[str, Any], told: str) -> None:
    with helm.Chart.load(CHART) as chart, pytest.raises(HelmError, match=told):
        chart.validate_schema(chart.merge_values(values))


def test_chart_images_and_product_have_one_version() -> None:
    version = str(yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"])
    for name in ("api", "worker"):
        assert f"ARG VERSION={version}\n" in (ROOT / "deploy" / f"{name}.Dockerfile").read_text(encoding="utf-8")
    assert {image["tag"] for image in (DEFAULTS["image"]["api"], DEFAULTS["image"]["worker"])} == {version}
    for service in compose()["services"].values():
        if "build" in service:
            assert service["image"].endswith(f":{version}")
