"""Tables of data sets: CSV in UTF-8 with commas, read whole, every row with its place. Cells are text and stay text."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bgpanet.data.readers.files import Complaints
from bgpanet.errors import InvalidInput, Problem

MOST_BYTES = 256 * 2**20  # of a table
MOST_CHARACTERS = 1000  # of a cell
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Line:
    """A row's cells by column, stripped. where: `<table>:<line>`."""

    where: str
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]


@dataclass(frozen=True)
class Table:
    """name: the file's. columns: as they stand in it. At least one row."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[Line, ...]


def read_table(path: Path, needed: tuple[str, ...] = ()) -> Table:
    """The table in a file; columns that are not needed are read as well.

    Raises:
        InvalidInput: no such file, no CSV in UTF-8, columns missing or doubled, no rows, rows of another length than
            the header's, cells of more than 1,000 characters; all that can be known at once.
    """
    try:
        lines = list(_lines(path))
    except FileNotFoundError:
        raise InvalidInput.one(path.name, f"is missing in {path.parent}; name the folder that holds it") from None
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidInput.one(path.name, f"can't be read as a table: {error}") from None
    columns = tuple(cell.strip() for cell in lines[0][1]) if lines else ()
    if problems := list(_column_problems(path.name, columns, needed)):
        raise InvalidInput(problems)
    refused = Complaints()
    rows = []
    for line, cells in lines[1:]:
        where = f"{path.name}:{line}"
        if len(cells) != len(columns):
            refused.add(f"the row has not the {len(columns)} cells that the header has", f"{where} ({len(cells)})")
        elif any(len(cell) > MOST_CHARACTERS for cell in cells):
            refused.add(f"a cell has more than {MOST_CHARACTERS} characters", where)
        else:
            rows.append(Line(where, {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}))
    if problems := refused.problems() or ([] if rows else [Problem(path.name, "has no rows")]):
        raise InvalidInput(problems)
    return Table(path.name, columns, tuple(rows))


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, cells) of the header and every row that is not empty."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES // 2**20} MiB")
    reader = csv.reader(io.StringIO(_text(path.read_bytes()), newline=""), strict=True)
    line = 1
    for cells in reader:
        if cells:
            yield line, cells
        line = reader.line_num + 1


def _text(content: bytes) -> str:
    if content.startswith(UTF_16):
        raise ValueError("it is UTF-16; save it as CSV in UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8 (it may be Latin-1); save it as CSV in UTF-8") from None
    if "\0" in text:
        raise ValueError("it contains NUL")
    return text


def _column_problems(name: str, columns: tuple[str, ...], needed: tuple[str, ...]) -> Iterator[Problem]:
    if missing := [column for column in needed if column not in columns]:
        hint = "; its cells must be separated by commas" if len(columns) == 1 and ";" in columns[0] else ""
        yield Problem(name, f"has no column {', '.join(missing)}; it needs {', '.join(needed)}{hint}")
    if doubled := sorted({column for column in columns if columns.count(column) > 1}):
        yield Problem(name, f"has a column twice: {', '.join(map(repr, doubled))}")
    if any(not column.isprintable() or len(column) > MOST_CHARACTERS for column in columns):
        yield Problem(name, f"has a column whose name is not printable or longer than {MOST_CHARACTERS} characters")
    if len(columns) > 1 and "" in columns:
        yield Problem(name, "has a column without a name")
