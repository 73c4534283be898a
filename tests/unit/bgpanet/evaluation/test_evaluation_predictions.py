"""The table of predictions, as CSV and Parquet."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bgpanet.errors import InvalidInput
from bgpanet.evaluation.predictions import PredictionTable, PredictionWriter


def _table(dtype: type = np.float32, **changes: Any) -> PredictionTable:
    columns: dict[str, Any] = {
        "classes": ["mel", "nv, other"],
        "image_ids": ["ISIC_3", "ISIC_1", "ISIC_2"],
        "groups": ["HAM_7", "", "HAM_7"],
        "folds": [2, None, 0],
        "truths": ["mel", "", "scc"],
        "errors": ["", "=cmd|' /C calc'!A0", ""],
        "probabilities": np.array([[0.1, 0.9], [np.nan, np.nan], [2 / 3, 1 / 3]], dtype=dtype),
    }
    return PredictionTable(**{**columns, **changes})


def _written(table: PredictionTable, folder: Path) -> tuple[list[list[str]], Path]:
    table.write(folder / "predictions.csv", folder / "predictions.parquet")
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file)), folder / "predictions.parquet"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_read_is_what_was_written_in_the_same_order(dtype: type, tmp_path: Path) -> None:
    table = _table(dtype)
    back = PredictionTable.read(_written(table, tmp_path)[1])
    for name in ("classes", "image_ids", "groups", "folds", "truths", "errors", "predicted"):
        assert getattr(back, name) == getattr(table, name)
    assert back.probabilities.dtype == dtype
    np.testing.assert_array_equal(back.probabilities, table.probabilities)


def test_the_csv_has_the_promised_columns_and_rows(tmp_path: Path) -> None:
    rows, _ = _written(_table(np.float64), tmp_path)
    assert rows == [
        ["image_id", "group", "fold", "truth", "predicted", "error", "p_mel", "p_nv, other"],
        ["ISIC_3", "HAM_7", "2", "mel", "nv, other", "", "0.1", "0.9"],
        ["ISIC_1", "", "", "", "", "'=cmd|' /C calc'!A0", "", ""],
        ["ISIC_2", "HAM_7", "0", "scc", "mel", "", "0.6666666666666666", "0.3333333333333333"],
    ]


def test_what_is_unknown_is_null_in_parquet(tmp_path: Path) -> None:
    row = pq.read_table(_written(_table(), tmp_path)[1]).to_pylist()[1]
    assert [name for name, value in row.items() if value is None] == [
        "group",
        "fold",
        "truth",
        "predicted",
        "p_mel",
        "p_nv, other",
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_csv_and_parquet_hold_the_same_probabilities_to_the_last_bit(dtype: type, tmp_path: Path) -> None:
    p: npt.NDArray[Any] = np.random.default_rng(0).dirichlet([0.01, 1], size=10_000).astype(dtype)
    n = len(p)
    names = [f"i{i}" for i in range(n)]
    table = PredictionTable(["a", "b"], names, [""] * n, [None] * n, [""] * n, [""] * n, p)
    rows, parquet = _written(table, tmp_path)
    from_csv = np.array([[float(cell) for cell in row[-2:]] for row in rows[1:]])
    from_parquet = PredictionTable.read(parquet).probabilities
    np.testing.assert_array_equal(from_csv, from_parquet.astype(np.float64))
    np.testing.assert_array_equal(from_csv.astype(dtype), p)
    assert [row[0] for row in rows[1:]] == names


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_text_is_never_written_so_that_a_spreadsheet_runs_it(start: str, tmp_path: Path) -> None:
    cell = f'{start}HYPERLINK("x";"y")'
    table = _table(
        classes=[cell, "nv"], image_ids=[cell, "b", "c"], groups=[cell] * 3, truths=[cell] * 3, errors=["", cell, ""]
    )
    rows, parquet = _written(table, tmp_path)
    assert (rows[1][0], rows[1][1], rows[1][3], rows[2][5], rows[3][4]) == (f"'{cell}",) * 5
    assert not any(text.startswith(start) for row in rows for text in row)
    assert PredictionTable.read(parquet).errors[1] == cell


def test_small_numbers_stay_numbers(tmp_path: Path) -> None:
    table = _table(np.float64, folds=[-1, 0, 1], probabilities=np.array([[1e-300, 1], [np.nan] * 2, [0, 1]]))
    rows, _ = _written(table, tmp_path)
    assert (rows[1][2], rows[1][6], rows[3][6]) == ("-1", "1e-300", "0.0")


def test_an_error_that_quotes_an_odd_file_name_is_kept(tmp_path: Path) -> None:
    rows, parquet = _written(_table(errors=["", 'cannot open b\udcff.jpg,\n"x"', ""]), tmp_path)
    assert rows[2][5] == PredictionTable.read(parquet).errors[1] == 'cannot open b\\udcff.jpg,\n"x"'


def test_the_predicted_class_is_the_first_of_the_most_probable_and_empty_for_an_unreadable_image() -> None:
    assert _table(probabilities=np.array([[0.5, 0.5], [np.nan, np.nan], [0.2, 0.8]])).predicted == [
        "mel",
        "",
        "nv, other",
    ]


def test_a_table_of_an_index_has_the_records_in_the_order_asked_for() -> None:
    records = [SimpleNamespace(image_id=f"i{n}", group=f"g{n}", label=label) for n, label in enumerate([1, None, 0])]
    index: Any = SimpleNamespace(classes=("nv", "mel"), records=records)
    p = np.array([[0.2, 0.7, 0.1], [np.nan] * 3])
    table = PredictionTable.of(
        index, np.array([2, 1]), p, fold=3, classes=("mel", "bcc", "nv"), errors={0: "not asked for", 1: "damaged"}
    )
    assert (table.image_ids, table.groups, table.folds) == (["i2", "i1"], ["g2", "g1"], [3, 3])
    assert (table.truths, table.predicted, table.errors) == (["nv", ""], ["bcc", ""], ["", "damaged"])
    same = PredictionTable.of(index, np.array([0]), np.array([[0.5, 0.5]]))
    assert (same.classes, same.truths, same.folds, same.errors) == (["nv", "mel"], ["mel"], [None], [""])


def test_truth_labels_point_into_the_models_classes() -> None:
    """The truths are mel, unknown, and scc, which the model does not know."""
    assert _table().truth_labels().tolist() == [0, -1, -1]
    assert _table(truths=["nv, other", "mel", ""]).truth_labels().tolist() == [1, 0, -1]


def test_tables_are_put_one_after_the_other() -> None:
    other = _table(image_ids=["a", "b", "c"], folds=[7, 8, 9], errors=["", "gone", ""])
    both = PredictionTable.concatenate([_table(), other])
    assert both.image_ids == ["ISIC_3", "ISIC_1", "ISIC_2", "a", "b", "c"]
    assert both.folds == [2, None, 0, 7, 8, 9]
    assert [len(column) for column in (both.groups, both.truths, both.predicted)] == [6, 6, 6]
    assert both.errors[1::3] == [_table().errors[1], "gone"]
    np.testing.assert_array_equal(both.probabilities[3:], other.probabilities)


def test_tables_of_other_classes_are_not_put_together() -> None:
    with pytest.raises(InvalidInput, match=r"tables\[1\]: has other classes"):
        PredictionTable.concatenate([_table(), _table(classes=["nv, other", "mel"])])


def test_a_table_of_no_images_is_written_and_read(tmp_path: Path) -> None:
    empty = PredictionTable(["a", "b"], [], [], [], [], [], np.empty((0, 2), dtype=np.float32))
    rows, parquet = _written(empty, tmp_path)
    assert len(rows) == 1
    assert PredictionTable.read(parquet).probabilities.shape == (0, 2)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"probabilities": np.zeros((3, 3), np.float32)}, ["float32 or float64 of shape (3, 2)"]),
        ({"probabilities": np.zeros((3, 2), np.int64)}, ["got int64"]),
        ({"groups": [], "folds": [0], "truths": [""], "errors": []}, ["groups", "folds", "truths", "errors"]),
        ({"classes": ["mel", "mel"]}, ["classes"]),
        ({"image_ids": ["a", "", "c"]}, ["image_ids"]),
        ({"errors": ["", "", ""]}, ["image 'ISIC_1' has no finite probabilities"]),
        ({"errors": ["bad", "bad", ""]}, ["image 'ISIC_3' has an error and yet probabilities"]),
    ],
)
def test_columns_that_do_not_fit_are_refused(changes: dict[str, Any], told: list[str]) -> None:
    with pytest.raises(InvalidInput) as refusal:
        _table(**changes)
    assert len(refusal.value.problems) == len(told)
    for part in told:
        assert part in str(refusal.value)


def test_files_that_hold_no_table_of_predictions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and then nothing")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(InvalidInput, match="cannot be read as Parquet"):
        PredictionTable.read(tmp_path / "damaged.parquet")
    with pytest.raises(InvalidInput, match="cannot be read as Parquet"):
        PredictionTable.read(tmp_path / "missing.parquet")
    with pytest.raises(InvalidInput, match="is no table of predictions"):
        PredictionTable.read(tmp_path / "other.parquet")


def test_tables_written_one_after_the_other_in_blocks_are_one_table(tmp_path: Path) -> None:
    parts = [_table(image_ids=[f"{n}-{row}" for row in range(3)]) for n in range(5)]
    files = tmp_path / "blocks.csv", tmp_path / "blocks.parquet"
    with PredictionWriter(*files, rows=5) as writer:
        for part in parts:
            writer.append(part)
        assert not files[0].exists()
    whole = PredictionTable.concatenate(parts)
    whole.write(tmp_path / "whole.csv", tmp_path / "whole.parquet")
    assert pq.ParquetFile(files[1]).num_row_groups == 3
    assert files[0].read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert pq.read_table(files[1]).equals(pq.read_table(tmp_path / "whole.parquet"))


def test_a_writing_that_fails_leaves_what_was_there_before(tmp_path: Path) -> None:
    files = tmp_path / "a.csv", tmp_path / "a.parquet"
    _table().write(*files)
    before = [path.read_bytes() for path in files]

    def write(*tables: PredictionTable | None) -> None:
        with PredictionWriter(*files, rows=1) as writer:
            for table in tables:
                if table is None:
                    raise KeyboardInterrupt
                writer.append(table)

    with pytest.raises(InvalidInput, match="other classes"):
        write(_table(), _table(classes=["a", "b"]))
    with pytest.raises(KeyboardInterrupt):
        write(_table(), None)
    assert [path.read_bytes() for path in files] == before
    assert len(list(tmp_path.iterdir())) == 2
