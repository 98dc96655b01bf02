"""A report as one HTML file that holds its tables and pictures, runs no script and fetches nothing from anywhere."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from features.bundle import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNDEFINED, ENDLESS = "–", "∞"
SHORT = 15  # rows up to which a table is shown whole
SHOWN = 10  # rows of a longer one that are shown before it is unfolded
MOST_ROWS = 1000  # a browser does not like more; they are in the run's own files
DOTS_PER_INCH = 110
# What a column holds, by the words that its name begins with.
PROBABILITY = re.compile(r"^[pq](_value|_holm)?($|[ ,])")
SHARE = re.compile(r"^(share|risk|dissolved|together)($|[ ,])")
RATIO = re.compile(r"^(hazard ratio|odds ratio|fold change)($|[ ,])")
LOOKS_LIKE_NUMBER = re.compile(r"^(< )?[-−]?\d")
NO_NUMBER = ("", UNDEFINED, ENDLESS, f"-{ENDLESS}", "none", "not reached")


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes
    ----------
    caption : str
    frame : DataFrame
        Its columns called as a reader would. The index is shown where it says something, that is where it is no mere count of
        rows. Columns of shares, ratios, p and q are known by their names: see ``shown``.
    note : str
        How it is read, in a line.
    whole : bool
        Whether all rows are shown at once, however many there are.
    least : float
        Smallest p or q that there can be, as of permutations; what is below it is printed as less than it.
    """

    caption: str
    frame: pd.DataFrame
    note: str = ""
    whole: bool = False
    least: float = 0.0


@dataclass(frozen=True)
class Picture:
    """A figure of a report.

    Attributes
    ----------
    caption : str
        Which is also what is read to those who do not see.
    drawn : bytes or Figure
        Bytes are those of a PNG file.
    """

    caption: str
    drawn: bytes | Figure


@dataclass(frozen=True)
class Findings:
    """What was found, each with what it is about; those that follow each other under one title share it.

    Attributes
    ----------
    rows : tuple of (str, str)
        Title and words.
    """

    rows: tuple[tuple[str, str], ...]

    @property
    def by_title(self) -> list[tuple[str, list[str]]]:
        """Words under each title."""
        return [(title, [words for _, words in rows]) for title, rows in groupby(self.rows, key=itemgetter(0))]


Part = str | Table | Picture | Findings


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes
    ----------
    title : str
    parts : tuple of str, Table, Picture or Findings
        In the order of the page. Words are paragraphs; what looks like HTML is shown as it is written.
    warnings : tuple of str
        What a reader of this part must know.
    """

    title: str
    parts: tuple[Part, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Rows:
    """A table in words."""

    caption: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    named: int
    length: int
    whole: bool

    @property
    def fold(self) -> str:
        """What unfolds the rest of a long table; empty for one that is shown whole."""
        if self.whole or len(self.rows) <= SHORT:
            return ""
        first = "" if self.length == len(self.rows) else f"The first {len(self.rows)} of "
        return f"{first or 'All '}{self.length} rows"


def html_report(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Put sections into one HTML page.

    Parameters
    ----------
    title, subtitle : str
        The subtitle says of what and when: model, version, cohort.
    sections : sequence of Section

    Returns
    -------
    str
        To be written as UTF-8. Equal sections give an equal page.

    Examples
    --------
    >>> page = html_report("Profile", "132 patients", [Section("Clusters", ("Three <b>clusters</b>.",))])
    >>> "Three &lt;b&gt;clusters&lt;/b&gt;." in page, "<script" in page
    (True, False)
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("training"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("report.html").render(
        title=title,
        subtitle=subtitle,
        research_use_only=RESEARCH_USE_ONLY,
        shown=SHOWN,
        sections=[_rendered(section) for section in sections],
    )


def _rendered(section: Section) -> dict[str, object]:
    return {"title": section.title, "warnings": section.warnings, "parts": [_part(one) for one in section.parts]}


def _part(one: Part) -> tuple[str, object]:
    """Its kind, which the template asks for, and what is shown of it."""
    match one:
        case Table():
            return "table", _in_words(one)
        case Picture():
            return "picture", (one.caption, _data_uri(one.drawn))
        case Findings():
            return "findings", one.by_title
    return "words", one


def _in_words(table: Table) -> _Rows:
    frame = table.frame
    named = 0 if isinstance(frame.index, pd.RangeIndex) and frame.index.name is None else frame.index.nlevels
    head = frame.iloc[:MOST_ROWS]
    index: list[pd.Index[Any]] = [head.index.get_level_values(level) for level in range(named)]
    names = [*("" if one.name is None else str(one.name) for one in index), *(_name(name) for name in head.columns)]
    values = [*(one.to_series() for one in index), *(head.iloc[:, position] for position in range(head.shape[1]))]
    cells = [[shown(value, name, table.least) for value in column] for name, column in zip(names, values, strict=True)]
    numeric = tuple(_of_numbers(column) for column in cells)
    rows = tuple(zip(*cells, strict=True))
    return _Rows(table.caption, table.note, tuple(names), rows, numeric, named, len(frame), table.whole)


def _name(name: Any) -> str:
    return ", ".join(str(part) for part in name if str(part)) if isinstance(name, tuple) else str(name)


def _of_numbers(cells: Sequence[str]) -> bool:
    """Whether a column is set to the right: all its cells begin with a number, but for gaps."""
    told = [cell for cell in cells if cell not in NO_NUMBER]
    return bool(told) and all(LOOKS_LIKE_NUMBER.match(cell) for cell in told)


def shown(value: Any, column: str = "", least: float = 0.0) -> str:
    """A value of a table as it is printed: three digits, of p and q two, shares as %, ratios to hundredths, gaps as a dash.

    Parameters
    ----------
    value : object
    column : str
        Name of its column, by which p, q, shares and ratios are known.
    least : float
        Smallest p or q that there can be.

    Examples
    --------
    >>> shown(0.0123456, "p"), shown(3.14e-6, "q"), shown(0.0, "q", 0.001), shown(3.14159, "hazard ratio"), shown(float("nan"))
    ('0.012', '3.1e-06', '< 0.001', '3.14', '–')
    >>> shown(0.12821, "share of features"), shown(1234.5678), shown(12.0), shown(True), shown("stage <b>")
    ('13%', '1235', '12', 'yes', 'stage <b>')
    """
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, tuple | list | set | frozenset):
        return ", ".join(shown(one) for one in value)
    if pd.isna(value):
        return UNDEFINED
    if not isinstance(value, float | np.floating):
        return str(value)
    return _number(float(value), column, least)


def _number(value: float, column: str, least: float) -> str:
    if np.isinf(value):
        return ENDLESS if value > 0 else f"-{ENDLESS}"
    if PROBABILITY.search(column):
        return f"< {least:.2g}" if value < least else f"{value:.2g}"
    if SHARE.search(column):
        return f"{value:.0%}"
    if RATIO.search(column):
        return ratio(value)
    if value.is_integer() and abs(value) < 1e15:
        return f"{value:.0f}"
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"


def ratio(value: float) -> str:
    """A ratio to hundredths, but for large and very small ones.

    Examples
    --------
    >>> [ratio(value) for value in (3.9, 0.518, 0.0123, 136.2)]
    ['3.90', '0.52', '0.012', '136']
    """
    if 0.1 <= abs(value) < 10:
        return f"{value:.2f}"
    return f"{value:.3g}" if abs(value) >= 10 else f"{value:.2g}"


def _data_uri(drawn: bytes | Figure) -> str:
    written = drawn if isinstance(drawn, bytes) else _png(drawn)
    return f"data:image/png;base64,{base64.b64encode(written).decode('ascii')}"


def _png(figure: Figure) -> bytes:
    """A figure in a palette of 256 colours, which of a heat map is a quarter of the bytes."""
    from PIL import Image

    full, small = BytesIO(), BytesIO()
    figure.savefig(full, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    with Image.open(full) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()
