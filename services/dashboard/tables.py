"""Tables of figures as files: CSV, Markdown, LaTeX."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bgpanet.text import figure

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet takes a cell for a formula
TEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
       "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A figure, and for each job its value with its 95 % interval, None where there is none. is_baseline: what the
    constant predictor reaches of the figure above."""

    label: str
    cells: Sequence[tuple[float, tuple[float, float] | None] | None]
    is_baseline: bool = False


def _csv(header: Sequence[str], rows: Sequence[Row]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([_safe(header[0]), *(name for job in header[1:] for name in (_safe(job), "low", "high"))])
    for row in rows:
        cells: list[object] = []
        for cell in row.cells:
            value, bounds = cell or ("", None)
            cells += [value, *(bounds or ("", ""))]
        table.writerow([row.label, *cells])
    return text.getvalue()


def _safe(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _markdown(header: Sequence[str], rows: Sequence[Row]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', '&#124;').replace('<', '&lt;') for cell in cells)} |"

    body = [line([row.label, *map(_told, row.cells)]) for row in rows]
    return "\n".join([line(header), line(["---", *["---:"] * (len(header) - 1)]), *body]) + "\n"


def _latex(header: Sequence[str], rows: Sequence[Row]) -> str:
    def line(cells: Sequence[str]) -> str:
        escaped = ["".join(TEX.get(letter, letter) for letter in cell).replace("\N{EN DASH}", "--") for cell in cells]
        return f"{' & '.join(escaped)} \\\\"

    body = [line([row.label, *map(_told, row.cells)]) for row in rows]
    begin = [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\hline", line(header), r"\hline"]
    return "\n".join([*begin, *body, r"\hline", r"\end{tabular}"]) + "\n"


def _told(cell: tuple[float, tuple[float, float] | None] | None) -> str:
    return figure(None) if cell is None else figure(*cell)


FORMATS = {"csv": "text/csv", "md": "text/markdown", "tex": "application/x-tex"}
_WRITERS: dict[str, Callable[[Sequence[str], Sequence[Row]], str]] = {"csv": _csv, "md": _markdown, "tex": _latex}


def written(kind: str, header: Sequence[str], rows: Sequence[Row]) -> str:
    """The table in one of `FORMATS`. header: a word for the figures, then a name for each job."""
    return _WRITERS[kind](header, rows)
