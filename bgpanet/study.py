"""A study: every variant, seed and fold is a training; then the table, and the tests against the reference.

    study:  train each cell that is not done yet → for each variant its figures → paired tests → tables

A cell that failed is told, and so is every variant that lacks one; those are not tested against the others.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bgpanet.data.index import Index
from bgpanet.data.sources import describe
from bgpanet.errors import BGPANetError, DeviceMissing, Interrupted
from bgpanet.evaluation.comparison import FIGURES, System, TestedFold, compare, fold_scores, mean_draws, read_fold
from bgpanet.events import Log, Result
from bgpanet.experiment import REPORT, Workplace, is_done, part_of, read_data, train
from bgpanet.models.zoo import check_weights
from bgpanet.provenance import environment, written_at
from bgpanet.report.publish import publish_study
from bgpanet.specs import Cell, StudySpec

FAILED = "failed.json"
LABELS = {
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "accuracy": "accuracy",
    "auroc_macro": "macro AUROC",
}


def study(spec: StudySpec, place: Workplace) -> dict[str, Any]:
    """Returns the summary, which is also reported as `Result`; each cell's own files lie in `cell-<n>/`.

    Writes `table.md`, `table.csv`, `table.tex`, `tests.csv`, figures (`variants` and `differences`, as SVG and PNG),
    `report.html` and `report.json`. A service puts the cells there itself, and `failed.json` with `reason` and `error`
    where one failed.

    Raises:
        Interrupted: asked to stop. BGPANetError: not one variant is complete.
    """
    cells = spec.cells()
    check_weights(cell.spec.model for n, cell in enumerate(cells) if not _is_over(place.output / f"cell-{n}"))
    index = read_data(spec)
    failures: dict[int, str] = {}
    for number, cell in enumerate(cells):
        folder = place.output / f"cell-{number}"
        if (folder / FAILED).is_file():
            told = json.loads((folder / FAILED).read_text(encoding="utf-8"))
            failures[number] = f"{told['reason']}: {told['error']}"
        elif not is_done(folder / REPORT, cell.spec, index.digest):
            name = f"cell {number + 1} of {len(cells)}, {cell.variant}, seed {cell.seed}, fold {cell.fold}"
            inner = part_of(place, folder, number, len(cells), name)
            try:
                train(cell.spec.model_copy(update={"data": spec.data}), inner)
            except (Interrupted, DeviceMissing):  # the next cell would fare no better
                raise
            except BGPANetError as error:
                if not place.processes.go_on_after(error):
                    raise
                failures[number] = f"{error.reason}: {error}"
                place.report(Log(level="error", message=f"{name} failed: {error}"))
    if not place.processes.leads:
        return {}
    summary = _summary(spec, place.output, cells, failures)
    summary["synthetic"] = index.synthetic
    _write(place, spec, index, summary)
    place.report(Result(summary=summary))
    return summary


def _is_over(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (REPORT, FAILED))


def _summary(spec: StudySpec, output: Path, cells: Sequence[Cell], failures: Mapping[int, str]) -> dict[str, Any]:
    missing = [
        {"variant": cells[n].variant, "seed": cells[n].seed, "fold": cells[n].fold, "why": why}
        for n, why in failures.items()
    ]
    incomplete = {str(cell["variant"]) for cell in missing}
    complete = [variant.name for variant in spec.variants if variant.name not in incomplete]
    if not complete:
        first = missing[0]
        raise BGPANetError(f"no variant is complete; the first failure, of {first['variant']}: {first['why']}")
    systems, reports = {}, {}
    for name in complete:
        numbers = [n for n, cell in enumerate(cells) if cell.variant == name]
        reports[name] = [json.loads((output / f"cell-{n}" / REPORT).read_text(encoding="utf-8")) for n in numbers]
        systems[name] = _system(name, output, cells, numbers, reports[name])
    others = [systems[name] for name in complete if name != spec.reference]
    return {
        "reference": spec.reference,
        "variants": [_row(systems[name], reports[name]) for name in complete],
        "tests": compare(systems[spec.reference], others) if spec.reference in systems and others else [],
        "missing": missing,
        "folds": spec.split.folds,
        "seeds": list(spec.seeds),
        "leakage": _leakage([report for name in complete for report in reports[name]]),
        "constant_predictor": _constant(reports[complete[0]]),
        "classes": reports[complete[0]][0]["classes"],
    }


def _system(
    name: str, output: Path, cells: Sequence[Cell], numbers: Sequence[int], reports: Sequence[Mapping[str, Any]]
) -> System:
    runs: dict[int, list[TestedFold]] = {}
    for n in sorted(numbers, key=lambda n: cells[n].fold):
        runs.setdefault(cells[n].seed, []).append(read_fold(output / f"cell-{n}"))
    return System(name, reports[0]["classes"], list(runs.values()))


def _row(system: System, reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A variant: of each figure the mean over folds (of the means over seeds), the deviation between folds, and the
    95 % interval over groups of all out-of-fold predictions."""
    scores, draws = fold_scores(system), mean_draws(system)
    figures = {}
    for figure in FIGURES:
        low, high = np.nanquantile(draws[figure], (0.025, 0.975))
        values = scores[figure]
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        bounds = [float(low), float(high)]
        figures[figure] = {"mean": float(np.mean(values)), "sd": sd, "interval": bounds, "folds": values}
    return {
        "variant": system.name,
        "figures": figures,
        "kept_epochs": [report["kept"]["epoch"] for report in reports],
        "loss_weight_focal": [report["kept"]["loss_weight_focal"] for report in reports],
    }


def _leakage(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    worst = max(reports, key=lambda report: report["leakage"]["share"])["leakage"]
    return dict(worst)


def _constant(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What always answering the commonest class reaches, mean over folds; the same for all variants."""
    found = [report["figures"]["constant_predictor"] for report in reports]
    means = {name: float(np.mean([one[name] for one in found])) for name in ("accuracy", "balanced_accuracy")}
    return {"class": found[0]["class"], **means}


# ── Tables ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _write(place: Workplace, spec: StudySpec, index: Index, summary: Mapping[str, Any]) -> None:
    """The report last: where it stands, the study is done."""
    rows = table_rows(summary)
    report = {
        **summary,
        "kind": "study",
        "spec": spec.model_dump(mode="json", exclude={"data"}),
        "data": describe(index),
        "environment": environment(),
        "written_at": written_at(),
    }
    texts = {
        "table.md": markdown(rows),
        "table.csv": _csv(rows),
        "table.tex": latex(rows),
        "tests.csv": _csv([[*TEST_COLUMNS], *map(_test_cells, summary["tests"])]),
    }
    place.output.mkdir(parents=True, exist_ok=True)
    for path in publish_study(report, rows, place.output, place.warn):
        place.hand_in(path)
    texts[REPORT] = json.dumps(report, indent=2)
    for name, text in texts.items():
        partial = place.output / f".{name}"
        partial.write_text(text, encoding="utf-8")
        place.hand_in(partial.rename(place.output / name))


TEST_COLUMNS = ("system", "figure", "mean", "reference_mean", "difference", "interval", "t", "p", "p_holm")


def _test_cells(row: Mapping[str, Any]) -> list[str]:
    return ["" if row[column] is None else str(row[column]) for column in TEST_COLUMNS]


def table_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """The table with its head: of each variant the figures with deviation between folds and interval, and what the test
    of its balanced accuracy against the reference says."""
    tests = {row["system"]: row for row in summary["tests"] if row["figure"] == "balanced_accuracy"}
    head = ["variant", *[LABELS[figure] for figure in FIGURES], f"against {summary['reference']}", "p", "p (Holm)"]
    rows = [head]
    for variant in summary["variants"]:
        cells = [_cell(variant["figures"][figure]) for figure in FIGURES]
        test = tests.get(variant["variant"])
        against = ["", "", ""]
        if test is not None:
            against = [f"{test['difference']:+.3f} ({test['interval'][0]:+.3f} to {test['interval'][1]:+.3f})",
                       _p(test["p"]), _p(test["p_holm"])]  # fmt: skip
        rows.append([variant["variant"], *cells, *against])
    rows += [[cell["variant"], f"seed {cell['seed']}, fold {cell['fold']} is missing: {cell['why']}", *[""] * 6]
             for cell in summary["missing"]]  # fmt: skip
    return rows


def _cell(figure: Mapping[str, Any]) -> str:
    spread = "" if figure["sd"] is None else f" ± {figure['sd']:.3f}"
    low, high = figure["interval"]
    return f"{figure['mean']:.3f}{spread} ({low:.3f}-{high:.3f})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    head, *rest = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines) + "\n"


def latex(rows: Sequence[Sequence[str]]) -> str:
    """A LaTeX tabular, for booktabs."""
    escapes = str.maketrans({**{c: f"\\{c}" for c in "&%$#_{}"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}",
                             "^": r"\textasciicircum{}", "±": r"$\pm$", "<": "$<$", "\n": " "})  # fmt: skip
    head, *rest = [" & ".join(cell.translate(escapes) for cell in row) + r" \\" for row in rows]
    begin = f"\\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}"
    return "\n".join([begin, r"\toprule", head, r"\midrule", *rest, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
