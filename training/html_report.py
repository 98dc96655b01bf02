"""A report as one HTML file that holds its tables and pictures, runs no script and fetches nothing from anywhere."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from features.bundle import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNDEFINED = "–"
SHORT = 15  # rows up to which a table is shown whole
SHOWN = 10  # rows of a longer one that are shown before it is unfolded
MOST_ROWS = 1000  # a browser does not like more; they are in the run's own files
DOTS_PER_INCH = 110
PROBABILITY = re.compile(r"(^|[ _])[pq]([ _](values?|adjusted|holm))?$", re.IGNORECASE)


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes
    ----------
    title : str
    paragraphs : tuple of str
        Plain words; what looks like HTML is shown as it is written.
    tables : tuple of (str, DataFrame)
        Each with its caption. The index is shown where it says something, that is where it is no mere count of rows.
    figures : tuple of (str, bytes or Figure)
        Each with its caption, which is also what is read to those who do not see; bytes are those of a PNG file.
    warnings : tuple of str
        What a reader of this part must know.
    """

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[tuple[str, pd.DataFrame], ...] = ()
    figures: tuple[tuple[str, bytes | Figure], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Table:
    """A table in words."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    named: int
    length: int

    @property
    def fold(self) -> str:
        """What unfolds the rest of a long table; empty for a short one."""
        if len(self.rows) <= SHORT:
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
    return {
        "title": section.title,
        "paragraphs": section.paragraphs,
        "warnings": section.warnings,
        "tables": [_in_words(caption, frame) for caption, frame in section.tables],
        "figures": [(caption, _data_uri(drawn)) for caption, drawn in section.figures],
    }


def _in_words(caption: str, frame: pd.DataFrame) -> _Table:
    named = 0 if isinstance(frame.index, pd.RangeIndex) and frame.index.name is None else frame.index.nlevels
    head = frame.iloc[:MOST_ROWS]
    index: list[pd.Index[Any]] = [head.index.get_level_values(level) for level in range(named)]
    columns = [*("" if one.name is None else str(one.name) for one in index), *(_heading(name) for name in head.columns)]
    values = [*(one.to_series() for one in index), *(head.iloc[:, position] for position in range(head.shape[1]))]
    cells = [[shown(value, name) for value in column] for name, column in zip(columns, values, strict=True)]
    numeric = tuple(pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column) for column in values)
    return _Table(caption, tuple(columns), tuple(zip(*cells, strict=True)), numeric, named, len(frame))


def _heading(name: Any) -> str:
    return ", ".join(str(part) for part in name if str(part)) if isinstance(name, tuple) else str(name)


def shown(value: Any, column: str = "") -> str:
    """A value of a table as it is printed: p and q values with two digits, other fractions with four, gaps as a dash.

    Parameters
    ----------
    value : object
    column : str
        Name of its column, by which p and q values are known.

    Examples
    --------
    >>> shown(0.0123456, "p_value"), shown(3.14e-6, "q_value"), shown(3.14159, "hazard_ratio"), shown(float("nan"))
    ('0.012', '3.1e-06', '3.142', '–')
    >>> shown(1234.5678), shown(12.0), shown(True), shown("stage <b>")
    ('1235', '12', 'yes', 'stage <b>')
    """
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, tuple | list | set | frozenset):
        return ", ".join(shown(one) for one in value)
    if pd.isna(value):
        return UNDEFINED
    if not isinstance(value, float | np.floating):
        return str(value)
    return _shown_number(float(value), probability=bool(PROBABILITY.search(column)))


def _shown_number(value: float, *, probability: bool) -> str:
    if probability:
        return f"{value:.2g}"
    if value.is_integer() and abs(value) < 1e15:
        return f"{value:.0f}"
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.4g}"


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
