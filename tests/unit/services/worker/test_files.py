"""What an attempt finds in its folder before it starts."""

from pathlib import Path

from services.worker.files import Workbench
from tests.unit.services.dashboard.full_service import SPEC, add_datasets, service


def test_a_cross_validation_finds_the_pictures_of_its_folds_where_they_left_some(tmp_path: Path) -> None:
    """Folds of older versions left none, and are pooled all the same."""
    with service(tmp_path) as made:
        add_datasets(made)
        made.submit("cross_validate", spec={**SPEC, "split": {"folds": 2}})
        files = {"report.json": b"{}", "predictions.parquet": b"table", "model.safetensors": b"weights"}
        made.finish(made.claim(), {}, {**files, "gallery.json": b"pictures"})
        made.finish(made.claim(), {}, files)
        bench = Workbench(made.context, made.claim())
        bench.prepare()
        found = [sorted(path.name for path in (bench.output / f"fold-{n}").iterdir()) for n in (0, 1)]
        assert found == [["gallery.json", "predictions.parquet", "report.json"], ["predictions.parquet", "report.json"]]
        assert (bench.output / "fold-0" / "gallery.json").read_bytes() == b"pictures"
