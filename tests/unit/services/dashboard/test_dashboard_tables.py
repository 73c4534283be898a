"""Tables of figures as files."""

import csv
import io

from services.dashboard.tables import Row, written

HEADER = ["Figure", "=evil|<b>", "50 % & more_of"]
ROWS = [Row("Balanced accuracy", [(0.5, (0.25, 0.75)), None]), Row("MCC", [(0.125, None), (1.0, None)])]


def test_csv_has_every_digit_its_interval_and_no_formula() -> None:
    rows = list(csv.reader(io.StringIO(written("csv", HEADER, ROWS))))
    assert rows[0] == ["Figure", "'=evil|<b>", "low", "high", "50 % & more_of", "low", "high"]
    assert rows[1] == ["Balanced accuracy", "0.5", "0.25", "0.75", "", "", ""]
    assert rows[2] == ["MCC", "0.125", "", "", "1.0", "", ""]


def test_markdown_keeps_its_columns() -> None:
    lines = written("md", HEADER, ROWS).splitlines()
    assert [line.count("|") for line in lines] == [4, 4, 4, 4]
    assert lines[0] == "| Figure | =evil&#124;&lt;b> | 50 % & more_of |"
    assert lines[2] == "| Balanced accuracy | 0.500 (0.250\N{EN DASH}0.750) | \N{EN DASH} |"


def test_latex_escapes_what_it_would_obey() -> None:
    text = written("tex", HEADER, ROWS)
    assert r"50 \% \& more\_of" in text
    assert r"Balanced accuracy & 0.500 (0.250--0.750) & -- \\" in text
    assert text.startswith(r"\begin{tabular}{lrr}")
