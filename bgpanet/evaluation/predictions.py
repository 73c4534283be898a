"""The table of predictions that a run leaves behind: one row an image, as CSV for people and Parquet for programs.

Columns: image_id, group, fold, truth, predicted, error; `disagreement` where several models answered together; then
`p_<class>` for each class in the model's order. Both files hold the same values: a float32 is written to CSV with the
digits of the equal float64, so it reads the same at either width. What is not known is an empty cell in CSV and a null
in Parquet.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bgpanet.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from bgpanet.data.index import Index

TEXT_COLUMNS = ("image_id", "group", "truth", "predicted", "error")
COLUMNS = ("image_id", "group", "fold", "truth", "predicted", "error")
DISAGREEMENT = "disagreement"
PROBABILITY_PREFIX = "p_"
# With these a spreadsheet takes a cell for a formula, or drops what stands before one.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
_CSV_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class PredictionTable:
    """Predictions for n images, in the order given.

    classes: the model's K class names. groups: lesion or patient, "" if unknown. folds: the test part that an image
    belongs to, None outside a cross-validation. truths: class name, "" if unknown; it may be one that the model does
    not know. errors: "" or why the image could not be read. probabilities: (n, K), float32 or float64; rows of NaN
    where there is an error. disagreement: (n,) float64, nats, of models that answered together, see
    `bgpanet.ensemble`; NaN where there is an error; None: one model answered.

    Raises:
        InvalidInput: when built of columns that do not fit together.
    """

    classes: Sequence[str]
    image_ids: Sequence[str]
    groups: Sequence[str]
    folds: Sequence[int | None]
    truths: Sequence[str]
    errors: Sequence[str]
    probabilities: npt.NDArray[np.float32] | npt.NDArray[np.float64]
    disagreement: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        problems = self._problems()
        if problems:
            raise InvalidInput(problems)

    @classmethod
    def of(
        cls,
        index: "Index",
        positions: npt.NDArray[np.int64],
        probabilities: npt.NDArray[np.float32] | npt.NDArray[np.float64],
        *,
        fold: int | None = None,
        classes: Sequence[str] | None = None,
        errors: Mapping[int, str] | None = None,
        disagreement: npt.NDArray[np.float64] | None = None,
    ) -> "PredictionTable":
        """The table of the index's records at `positions`, (n,), with a row of `probabilities`, (n, K), for each.

        classes: the model's, if they are not the index's. errors: by position, why an image could not be read.
        """
        records = [index.records[position] for position in positions]
        return cls(
            classes=list(index.classes if classes is None else classes),
            image_ids=[record.image_id for record in records],
            groups=[record.group for record in records],
            folds=[fold] * len(records),
            truths=["" if record.label is None else index.classes[record.label] for record in records],
            errors=[(errors or {}).get(int(position), "") for position in positions],
            probabilities=probabilities,
            disagreement=disagreement,
        )

    @classmethod
    def concatenate(cls, tables: Sequence["PredictionTable"]) -> "PredictionTable":
        """All rows of at least one table, in the tables' order.

        Raises:
            InvalidInput: tables of different classes, or of the same in a different order.
        """
        classes = list(tables[0].classes)
        first = classes, tables[0].disagreement is None
        unlike = [n for n, table in enumerate(tables) if (list(table.classes), table.disagreement is None) != first]
        if unlike:
            raise InvalidInput(Problem(f"tables[{n}]", "has other classes than the first table") for n in unlike)
        disagreements = [table.disagreement for table in tables if table.disagreement is not None]
        return cls(
            classes=classes,
            image_ids=[cell for table in tables for cell in table.image_ids],
            groups=[cell for table in tables for cell in table.groups],
            folds=[cell for table in tables for cell in table.folds],
            truths=[cell for table in tables for cell in table.truths],
            errors=[cell for table in tables for cell in table.errors],
            probabilities=np.concatenate([table.probabilities for table in tables]),
            disagreement=np.concatenate(disagreements) if disagreements else None,
        )

    def truth_labels(self) -> npt.NDArray[np.int64]:
        """(n,) positions of the truths among `classes`; -1 where it is unknown or no class of the model."""
        positions = {name: k for k, name in enumerate(self.classes)}
        return np.array([positions.get(truth, -1) for truth in self.truths], dtype=np.int64)

    @property
    def predicted(self) -> list[str]:
        """The most probable class of each image, the first among equals; "" where the image could not be read."""
        best = self.probabilities.argmax(axis=1).tolist()
        return ["" if error else self.classes[k] for k, error in zip(best, self.errors, strict=True)]

    def write(self, csv_path: Path, parquet_path: Path) -> None:
        """Both files, replacing what is there; see `PredictionWriter`."""
        with PredictionWriter(csv_path, parquet_path) as writer:
            writer.append(self)

    @classmethod
    def read(cls, parquet_path: Path) -> "PredictionTable":
        """The table in a Parquet file that `write` wrote.

        Raises:
            InvalidInput: the file cannot be read, or is no table of predictions.
        """
        try:
            table = pq.read_table(parquet_path)
        except (OSError, pa.ArrowException) as error:
            raise InvalidInput.one(str(parquet_path), f"cannot be read as Parquet: {error}") from None
        return cls._of_arrow(table, parquet_path)

    @classmethod
    def stream(cls, parquet_path: Path, rows: int) -> Iterator["PredictionTable"]:
        """The same in parts of so many rows, one of them in memory at a time. Raises InvalidInput."""
        try:
            with pq.ParquetFile(parquet_path) as file:
                for batch in file.iter_batches(batch_size=rows):
                    yield cls._of_arrow(pa.Table.from_batches([batch]), parquet_path)
        except (OSError, pa.ArrowException) as error:
            raise InvalidInput.one(str(parquet_path), f"cannot be read as Parquet: {error}") from None

    @classmethod
    def _of_arrow(cls, table: Any, parquet_path: Path) -> "PredictionTable":
        names = list(table.column_names)
        disagrees = DISAGREEMENT in names[len(COLUMNS) : len(COLUMNS) + 1]
        probability_columns = names[len(COLUMNS) + disagrees :]
        if tuple(names[: len(COLUMNS)]) != COLUMNS or not all(
            name.startswith(PROBABILITY_PREFIX) for name in probability_columns
        ):
            expected = f"{', '.join(COLUMNS)} and then {PROBABILITY_PREFIX}<class> for each class"
            raise InvalidInput.one(str(parquet_path), f"is no table of predictions; its columns must be {expected}")
        text = {name: [cell or "" for cell in table.column(name).to_pylist()] for name in TEXT_COLUMNS}
        # Nulls come back as NaN, at the width that was written.
        probabilities = [table.column(name).to_numpy() for name in probability_columns]
        return cls(
            classes=[name.removeprefix(PROBABILITY_PREFIX) for name in probability_columns],
            image_ids=text["image_id"],
            groups=text["group"],
            folds=table.column("fold").to_pylist(),
            truths=text["truth"],
            errors=text["error"],
            probabilities=np.stack(probabilities, axis=1) if probabilities else np.empty((table.num_rows, 0)),
            disagreement=table.column(DISAGREEMENT).to_numpy().astype(np.float64) if disagrees else None,
        )

    def arrow(self) -> Any:
        """The table as Parquet holds it."""
        texts = {
            "image_id": self.image_ids,
            "group": self.groups,
            "truth": self.truths,
            "predicted": self.predicted,
            # A message may quote a file's name, and that need not be Unicode.
            "error": [error.encode("utf-8", "backslashreplace").decode() for error in self.errors],
        }
        columns = {name: pa.array([cell or None for cell in cells], pa.string()) for name, cells in texts.items()}
        columns["fold"] = pa.array(self.folds, pa.int32())
        unreadable = np.array([bool(error) for error in self.errors], dtype=bool)
        probabilities = {
            f"{PROBABILITY_PREFIX}{name}": pa.array(np.ascontiguousarray(self.probabilities[:, k]), mask=unreadable)
            for k, name in enumerate(self.classes)
        }
        if self.disagreement is not None:
            probabilities = {DISAGREEMENT: pa.array(self.disagreement, mask=unreadable)} | probabilities
        return pa.table({name: columns[name] for name in COLUMNS} | probabilities)

    def _problems(self) -> list[Problem]:
        p = self.probabilities
        n = len(self.image_ids)
        if p.shape != (n, len(self.classes)) or p.dtype not in (np.float32, np.float64):
            expected = f"float32 or float64 of shape ({n}, {len(self.classes)})"
            return [Problem("probabilities", f"must be {expected}, one row an image; got {p.dtype} {p.shape}")]
        columns: dict[str, Sequence[object]] = {
            "groups": self.groups,
            "folds": self.folds,
            "truths": self.truths,
            "errors": self.errors,
        }
        problems = [
            Problem(name, f"has {len(column)} entries for {n} images")
            for name, column in columns.items()
            if len(column) != n
        ]
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            problems.append(Problem("classes", "must be at least 2 names, each once"))
        if not all(self.image_ids):
            problems.append(Problem("image_ids", "must not be empty"))
        return problems or _value_problems(self.image_ids, self.errors, p)


class PredictionWriter:
    """Writes tables of the same classes one after the other into one pair of files, in blocks of rows, so that memory
    does not grow with them. Both files appear, or replace what is there, when it ends well; else nothing changes.

    In CSV a text cell that a spreadsheet would take for a formula gets an apostrophe before it; Parquet keeps it.
    """

    def __init__(self, csv_path: Path, parquet_path: Path, rows: int = 65_536) -> None:
        self._paths = [csv_path, parquet_path]
        self._partial = [path.with_name(f".{path.name}") for path in self._paths]
        self._file = self._partial[0].open("w", newline="", encoding="utf-8")
        self._csv = csv.writer(self._file, lineterminator="\n")
        self._parquet: Any = None
        self._classes: Sequence[str] | None = None
        self._rows, self._waiting = rows, list[PredictionTable]()

    def append(self, table: PredictionTable) -> None:
        """Adds the rows of a table. Raises InvalidInput where its classes are not those of the first."""
        self._classes = table.classes if self._classes is None else self._classes
        if list(table.classes) != list(self._classes):
            raise InvalidInput.one("classes", "are other classes than those of the first table")
        self._waiting.append(table)
        if sum(len(waiting.image_ids) for waiting in self._waiting) >= self._rows:
            self._flush()

    def _flush(self) -> None:
        table = PredictionTable.concatenate(self._waiting).arrow()
        self._waiting.clear()
        if self._parquet is None:
            self._parquet = pq.ParquetWriter(self._partial[1], table.schema)
            self._csv.writerow(table.column_names)
        self._parquet.write_table(table)
        for batch in table.to_batches(max_chunksize=_CSV_BLOCK):
            self._csv.writerows(zip(*map(_csv_cells, batch.schema.names, batch.columns), strict=True))

    def __enter__(self) -> "PredictionWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        whole = False
        try:
            with self._file:
                if kind is None and self._waiting:
                    self._flush()
            if self._parquet is not None:
                self._parquet.close()
            whole = kind is None
        finally:
            for partial, path in zip(self._partial, self._paths, strict=True):
                if whole:
                    partial.rename(path)
                else:
                    partial.unlink(missing_ok=True)


def _value_problems(image_ids: Sequence[str], errors: Sequence[str], p: npt.NDArray[Any]) -> list[Problem]:
    unreadable = np.array([bool(error) for error in errors], dtype=bool)
    faults = [
        (~unreadable & ~np.isfinite(p).all(axis=1), "has no finite probabilities and no error that says why"),
        (unreadable & ~np.isnan(p).all(axis=1), "has an error and yet probabilities; they must be NaN"),
    ]
    return [
        Problem("probabilities", f"image {image_ids[np.flatnonzero(rows)[0]]!r} {what}; {rows.sum()} such rows in all")
        for rows, what in faults
        if rows.any()
    ]


def _csv_cells(name: str, column: Any) -> Iterable[object]:
    cells: list[Any] = column.to_pylist()
    if name not in TEXT_COLUMNS:
        return cells
    return [no_formula(cell) if cell else cell for cell in cells]


def no_formula(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell
