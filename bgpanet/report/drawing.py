"""From a figure of matplotlib to what a page holds: SVG in the page's own colours, text as text; or a PNG.

Colours of `INK`, `MUTED`, `LINE` and `SERIES` become the page's variables, so that a figure follows its light and dark
scheme. The same figure gives the same bytes.
"""

import io
import re
import warnings
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

INK, MUTED, LINE = "#18222d", "#576473", "#dce2e8"
SERIES = ("#0b7c7a", "#d1571b", "#4461c9", "#a8328c", "#6f7d16", "#5d6b7a", "#b3261e", "#1f8fc4", "#8a5a00", "#2f8a4c")
VARIABLES = {INK: "text", MUTED: "muted", LINE: "line"} | {hex: f"series-{n}" for n, hex in enumerate(SERIES, start=1)}
STYLES = ("-", "--", ":")
LONGEST = 26  # characters of a name in a figure; it stands in full in the tables

STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "legend.borderaxespad": 0.2,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "bgpanet",
    "text.color": INK,
    "text.parse_math": False,  # a class may be called $x
    "xtick.color": LINE,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.color": LINE,
    "ytick.labelcolor": MUTED,
    "ytick.labelsize": 8,
}
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def style() -> AbstractContextManager[None]:
    """The context in which figures are made and written."""
    return mpl.rc_context(STYLE)


def colour(number: int) -> str:
    """Of series `number`, from 0."""
    return SERIES[number % len(SERIES)]


def line_style(number: int) -> str:
    """Of series `number`: another one when the colours begin again."""
    return STYLES[number // len(SERIES) % len(STYLES)]


def short(name: str) -> str:
    """A name as it fits beside a line, without line breaks."""
    plain = " ".join(name.split())
    return plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 1]}…"


def inline_svg(figure: Figure, name: str) -> str:
    """The figure as an `<svg>` element to be put into a page, its colours those of the page.

    `name` begins every id, of which a page may hold no two that are equal.
    """
    text = _written(figure, "svg").decode()
    text = text[text.index("<svg") :]
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="([\d.]+)pt"', r'\1 style="max-width: \2pt" aria-hidden="true"', text, count=1)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", text)
    for value, variable in VARIABLES.items():
        text = text.replace(value, f"var(--{variable})")
    return text


def svg_file(figure: Figure) -> bytes:
    """The figure as a file of its own, on white."""
    return _written(figure, "svg", facecolor="white")


def png_file(figure: Figure) -> bytes:
    """The same in pixels, for slides."""
    return _written(figure, "png", facecolor="white", dpi=160)


def _written(figure: Figure, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    metadata = NO_METADATA if kind == "svg" else {"Software": None}
    with warnings.catch_warnings():
        # A name in a script that the font lacks: the browser has another font, and a PNG shows a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format=kind, metadata=metadata, **options)
    return file.getvalue()
