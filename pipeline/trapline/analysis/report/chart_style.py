"""The style of all charts, and their rendering to SVG, so that a page needs neither scripts nor a network.

Each chart is drawn twice, wide and for a telephone, because text that is scaled down cannot be read. Text and lines use
only the colours below, so that a page's style sheet can replace them in its dark mode.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import altair as alt
import vl_convert

from trapline.analysis.sql import Table
from trapline.display_text import drawable

INK, QUIET, LINE, ACCENT, WARNING, OTHER = "#1d2420", "#66706a", "#dcd9cf", "#2f7d5b", "#c2571a", "#98a09b"
# Of one lightness, to be told apart on paper-white and on near-black alike.
HUES = ("#2f7d5b", "#d08a2e", "#4f7cac", "#b5525c", "#8b6bb1", "#7f8f33", "#3f9d9d", "#a3765a")

# Pixels: of a page's column and half of one, and of a telephone's.
WIDE, HALF, NARROW = 930, 424, 296
# Pixels for the names at the left, which a browser's letters may exceed a little; and for numbers there.
LABEL = {WIDE: 150, HALF: 124, NARROW: 96}
SLACK = 0.86
NUMBERS = 52
# Pixels of a title beside an axis.
_TITLE = 18
# Pixels of a letter in a legend, at most, and around an entry.
_LETTER, _AROUND = 7.5, 44

GRID = alt.Scale(paddingInner=0.06)

_numbers = count()


@dataclass(frozen=True)
class Chart:
    """A chart as SVG, in words and in numbers.

    Attributes:
        wide, narrow: SVG.
        told: what it shows, in a sentence.
        table: what it was drawn from.
    """

    wide: str
    narrow: str
    told: str
    table: Table


def chart(rows: list[dict[str, Any]]) -> alt.Chart:
    """Return a chart of these rows, without marks."""
    return alt.Chart(alt.InlineData(values=rows))


def axis(**values: Any) -> alt.Axis:
    """Return an axis that has only labels."""
    return alt.Axis(**{"grid": False, "domain": False, "ticks": False, "labelPadding": 8, "labelFlush": False} | values)


def colours(field: str, labels: Sequence[str], width: int) -> alt.Color:
    """Return a colour for each label, with a legend; `others` are grey."""
    range_ = [OTHER if label == "others" else HUES[place % len(HUES)] for place, label in enumerate(labels)]
    limit = SLACK * LABEL[width]
    entry = _AROUND + min(limit, _LETTER * max(map(len, labels), default=0))
    legend = alt.Legend(
        orient="top",
        title=None,
        columns=max(1, int(width // entry)),
        symbolType="square",
        columnPadding=22,
        labelLimit=limit,
    )
    return alt.Color(f"{field}:N", scale=alt.Scale(domain=list(labels), range=range_), legend=legend)


def counts(most: int, breadth: int = 0) -> alt.Axis:
    """Return an axis of counts up to `most`, `breadth` pixels wide with its title; Vega also labels halves."""
    few = {"values": list(range(most + 1))} if most < 5 else {"tickCount": 4}
    if not breadth:
        return axis(grid=True, format="~s", **few)
    labels = breadth - _TITLE
    return axis(grid=True, format="~s", minExtent=labels, maxExtent=labels, titlePadding=3, **few)


def names(width: int, **values: Any) -> alt.Axis:
    """Return an axis of names, equally wide in all charts."""
    return axis(labelLimit=SLACK * LABEL[width] - 8, minExtent=LABEL[width], maxExtent=LABEL[width], **values)


def drawn(draw: Callable[[int], Any], width: int, told: str, table: Table) -> Chart:
    """Return the chart that a function of the width draws, in the given width and for a telephone."""
    return Chart(_svg(draw(width)), _svg(draw(NARROW)), told, table)


def _svg(drawing: Any) -> str:
    spec = drawing.to_dict()
    spec["config"] = _STYLE
    svg: str = vl_convert.vegalite_to_svg(drawable(spec), allowed_base_urls=[])
    # What it shows is said by the sentence and the table around it; roles of single marks would be read aloud.
    svg = svg.replace("<svg ", '<svg aria-hidden="true" ', 1)
    # Names of clip paths are good for one picture only; a page has many.
    mark = f"c{next(_numbers)}-"
    return re.sub(r'(<clipPath id="|url\(#)', rf"\g<1>{mark}", svg)


_STYLE: dict[str, Any] = {
    "background": None,
    "aria": False,  # the figure around it has a sentence and a table
    "font": "Helvetica, Arial, sans-serif",
    "padding": {"left": 0, "right": 14, "top": 4, "bottom": 4},
    "view": {"stroke": None},
    "axis": {"labelColor": QUIET, "titleColor": QUIET, "gridColor": LINE, "labelFontSize": 12, "titleFontSize": 12,
             "titleFontWeight": "normal"},
    "axisY": {"labelColor": INK},
    "legend": {"labelColor": INK, "labelFontSize": 12, "symbolStrokeWidth": 0, "offset": 12},
    "text": {"fontSize": 12},
}  # fmt: skip
