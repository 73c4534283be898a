"""Tables of data sets: CSV of every kind that people save."""

import csv
import string
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpanet.data.readers.tables import MOST_CHARACTERS, Table, read_table
from bgpanet.errors import InvalidInput


def table(folder: Path, content: bytes) -> Table:
    (folder / "t.csv").write_bytes(content)
    return read_table(folder / "t.csv", ("a", "b"))


def refusal(folder: Path, content: bytes) -> str:
    with pytest.raises(InvalidInput) as caught:
        table(folder, content)
    return str(caught.value)


def test_cells_are_stripped_and_rows_know_their_line(tmp_path: Path) -> None:
    read = table(tmp_path, b'\xef\xbb\xbfa, b,c\r\n1, x ,\r\n\r\n"two\nlines",y,z\r\n=cmd|x,y,z\r\n')
    assert read.columns == ("a", "b", "c")
    assert [(row.where, row["a"]) for row in read.rows] == [
        ("t.csv:2", "1"),
        ("t.csv:4", "two\nlines"),
        ("t.csv:6", "=cmd|x"),
    ]
    assert read.rows[0].cells == {"a": "1", "b": "x", "c": ""}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "t.csv: has no column a, b; it needs a, b"),
        (b"a;b\n1;2\n", "has no column a, b; it needs a, b; its cells must be separated by commas"),
        (b"a,b,b,a\n1,2,3,4\n", "has a column twice: 'a', 'b'"),
        (b"a,b,\n1,2,3\n", "has a column without a name"),
        (b"a,b\n", "has no rows"),
        ("a,b\nx,é\n".encode("latin-1"), "line 2 is not UTF-8 (it may be Latin-1); save it as CSV in UTF-8"),
        ("a,b\nx,y\n".encode("utf-16"), "it is UTF-16; save it as CSV in UTF-8"),
        (b"a,b\nx,\0\n", "it contains NUL"),
        (b'a,b\nx,"y\nz,q\n', "can't be read as a table: unexpected end of data"),
        (b'a,b\nx,"y"z\n', "can't be read as a table: "),
        (b"a,b\n1,2\n3\n4,5,6\n", "t.csv:3 (1), t.csv:4 (3): the row has not the 2 cells that the header has"),
        (b"a,b\n1," + b"x" * (MOST_CHARACTERS + 1), "t.csv:2: a cell has more than 1000 characters"),
        (b"a,b\n1," + b"x" * 200_000, "can't be read as a table: field larger than field limit"),
    ],
)
def test_what_is_no_table_is_refused_with_the_reason(tmp_path: Path, content: bytes, told: str) -> None:
    assert told in refusal(tmp_path, content)


def test_a_table_too_large_to_be_one_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("wb") as file:
        file.truncate(2**29)
    with pytest.raises(InvalidInput, match="larger than 256 MiB"):
        read_table(tmp_path / "t.csv")


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=5))
def test_whatever_is_written_as_csv_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "property.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("a", "b"), *rows])
    read = read_table(path, ("a", "b"))
    assert [(row["a"], row["b"]) for row in read.rows] == [(a.strip(), b.strip()) for a, b in rows]


@given(st.text(string.printable, max_size=60).map(str.encode) | st.binary(max_size=60))
def test_whatever_stands_in_a_file_it_is_a_table_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.csv"
    path.write_bytes(content)
    with suppress(InvalidInput):
        assert read_table(path).rows
