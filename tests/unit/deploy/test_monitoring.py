"""Alert rules and dashboard: checked by Prometheus' own tool, and against what the product exports."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from services.telemetry.catalogue import ALL

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARD = ROOT / "deploy/grafana/dashboards/bgpanet.json"
NOT_OURS = {"up"}  # Prometheus' own


def promtool(*arguments: str | Path, folder: Path = PROMETHEUS) -> subprocess.CompletedProcess[str]:
    """Debian's package `prometheus` has it."""
    return subprocess.run(["promtool", *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False)


def rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
    return found


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def exprs() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", ())]


def exported() -> set[str]:
    suffixes = {"histogram": ("_bucket", "_sum", "_count")}
    return {series.name + suffix for series in ALL for suffix in suffixes.get(series.kind, ("",))}


def series_in(expr: str) -> set[str]:
    """The series that an expression names, without labels, functions and what stands in quotes."""
    bare = re.sub(r"\b(by|on|without|ignoring) *\([^)]*\)", "", re.sub(r"\{[^}]*\}|\[[^]]*\]|\"[^\"]*\"", "", expr))
    words = {match[1] for match in re.finditer(r"\b([a-z][a-z_]*)\b(?! *\()", bare)}
    return words - {"and", "or", "unless", "on", "by", "e"}


def test_the_configuration_and_the_rules_are_sound() -> None:
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_where_it_must_and_none_where_all_is_well() -> None:
    done = promtool("test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    told = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    cases = [case for test in told for case in test["alert_rule_test"]]
    for fires in (True, False):
        tested = {case["alertname"] for case in cases if bool(case["exp_alerts"]) == fires}
        assert tested == {rule["alert"] for rule in rules()}


def test_a_rule_that_is_broken_fails_its_test(tmp_path: Path) -> None:
    for name in ("alerts.yml", "alerts_test.yml"):
        shutil.copy(PROMETHEUS / name, tmp_path)
    text = (tmp_path / "alerts.yml").read_text()
    assert text.count("< 20e9") == 1
    (tmp_path / "alerts.yml").write_text(text.replace("< 20e9", "< 2e9"))
    done = promtool("test", "rules", "alerts_test.yml", folder=tmp_path)
    assert done.returncode != 0
    assert "DiskFillsUp" in done.stdout + done.stderr


def test_every_series_of_rules_and_dashboard_is_exported() -> None:
    named = set().union(*(series_in(expr) for expr in [*exprs(), *(rule["expr"] for rule in rules())]))
    assert len(named) > 30
    assert named - exported() - NOT_OURS == set()


def test_the_labels_that_rules_and_dashboard_name_are_those_of_their_series() -> None:
    labels = {label for series in ALL for label in series.labels} | {"job", "instance", "le"}
    for expr in [*exprs(), *(rule["expr"] for rule in rules())]:
        grouped = {label for group in re.findall(r"\bby \(([^)]*)\)", expr) for label in group.split(", ")}
        selected = set(re.findall(r"[{,](\w+)[=!]", expr))
        assert grouped | selected <= labels, expr


def test_every_expression_of_the_dashboard_can_be_evaluated(tmp_path: Path) -> None:
    groups = [{"name": "all", "rules": [{"record": f"r:{n}", "expr": expr} for n, expr in enumerate(exprs())]}]
    (tmp_path / "exprs.yml").write_text(yaml.safe_dump({"groups": groups}))
    done = promtool("check", "rules", "exprs.yml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(exprs())} rules found" in done.stdout


def test_panels_have_ids_of_their_own_and_places_that_do_not_overlap() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids)) > 20
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_grafana_is_told_where_dashboard_and_prometheus_are() -> None:
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    used = {target["datasource"]["uid"] for panel in panels() for target in panel.get("targets", ())}
    assert used == {entry["uid"] for entry in source["datasources"]}


def test_every_alert_has_its_entry_in_the_runbook_and_every_entry_its_alert() -> None:
    text = (ROOT / "docs/operations.md").read_text().partition("\n## Alerts\n")[2].partition("\n## ")[0]
    entries = re.findall(r"^### (\w+)\n\n(.+)$", text, re.MULTILINE)
    assert [name for name, _ in entries] == [rule["alert"] for rule in rules()]
    for rule, (name, first) in zip(rules(), entries, strict=True):
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert first.startswith("*" + rule["annotations"]["summary"][:60])
