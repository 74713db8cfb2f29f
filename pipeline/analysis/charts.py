"""Answers become pictures: Vega-Lite, drawn here into SVG, so that a page needs neither scripts nor a network.

Each is drawn twice, wide and for a telephone, because letters that are scaled down cannot be read. Colours of letters
and lines are the ones below and nothing else, so that the page's style can put others in their place for the dark.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import altair as alt
import vl_convert

from pipeline.analysis.report import Table

INK, QUIET, LINE, ACCENT, WARNING, OTHER = "#1d2420", "#66706a", "#dcd9cf", "#2f7d5b", "#c2571a", "#98a09b"
# Of one lightness, to be told apart on paper-white and on near-black alike.
_HUES = ("#2f7d5b", "#d08a2e", "#4f7cac", "#b5525c", "#8b6bb1", "#7f8f33", "#3f9d9d", "#a3765a")

# Pixels: of a page's column and half of one, and of a telephone's.
WIDE, HALF, NARROW = 930, 424, 296
# Columns and rows of a chart: more cannot be read; the table has the rest.
_COLUMNS = {WIDE: 16, HALF: 10, NARROW: 7}
_ROWS = 14
# Pixels for the names at the left, which a browser's letters may exceed a little; and for numbers there.
_LABEL = {WIDE: 150, HALF: 124, NARROW: 96}
_SLACK = 0.86
_NUMBERS = 34

_GRID = alt.Scale(paddingInner=0.06)

_numbers = count()


@dataclass(frozen=True)
class Chart:
    """A picture, and what it shows in words and in numbers.

    Attributes:
        wide, narrow: SVG.
        told: what there is to see, in a sentence.
        table: what it was drawn from.
    """

    wide: str
    narrow: str
    told: str
    table: Table


def by_site(table: Table, width: int = HALF) -> Chart:
    """Labels by site, as a grid of counts."""
    rows = table.records()
    labels, sites = _most(rows, "label"), _most(rows, "site")

    def draw(width: int) -> Any:
        shown, columns = labels[:_ROWS], sites[: _COLUMNS[width]]
        some = [row for row in rows if row["label"] in shown and row["site"] in columns]
        base = _chart(some).encode(
            x=alt.X(
                "site:N",
                sort=columns,
                title=None,
                scale=_GRID,
                axis=_axis(orient="top", labelAngle=_angle(columns), labelLimit=90),
            ),
            y=alt.Y("label:N", sort=shown, title=None, scale=_GRID, axis=_names(width)),
        )
        # Paler and not lighter: pale is near the page's colour by day and by night.
        shade = alt.Opacity("images:Q", scale=alt.Scale(type="sqrt", range=[0.08, 0.62], domainMin=0), legend=None)
        grid = base.mark_rect(color=ACCENT, cornerRadius=3).encode(opacity=shade)
        return (grid + base.mark_text(color=INK, fontSize=11).encode(text=alt.Text("images:Q", format=","))).properties(
            width=width - _LABEL[width], height=alt.Step(26)
        )

    told = f"Images by species and site. {_leaders(rows, 'label', 'site')}"
    return _drawn(draw, width, told, table)


def by_hour(table: Table, width: int = HALF) -> Chart:
    """Labels by hour of day, each as a row of bars of its own height."""
    rows = table.records()
    labels = _most(rows, "label")[:8]
    peak = Counter[str]()
    for row in rows:
        peak[row["label"]] = max(peak[row["label"]], row["images"])

    def draw(width: int) -> Any:
        some = []
        for row in rows:
            if row["label"] in labels:
                floor = len(labels) - 1 - labels.index(row["label"])
                top = floor + 0.82 * row["images"] / peak[row["label"]]
                some.append({**row, "floor": floor, "top": top, "end": row["hour"] + 0.86})
        hours = (
            _axis(values=list(range(0, 25, 3)), labelExpr="format(datum.value, '02') + ' h'")
            if width > NARROW
            else _axis(values=list(range(0, 25, 3)))
        )
        x = alt.X("hour:Q", title=None, scale=alt.Scale(domain=[0, 24], nice=False), axis=hours)
        floors = alt.Scale(domain=[0, len(labels)], nice=False)
        y = alt.Y("floor:Q", title=None, axis=_names(width, labels=False), scale=floors)
        base = _chart(
            [{"label": label, "floor": len(labels) - 1 - place, "hour": 0} for place, label in enumerate(labels)]
        )
        bars = _chart(some).mark_rect(color=ACCENT, cornerRadius=1.5).encode(x=x, x2="end:Q", y=y, y2="top:Q")
        lines = base.mark_rule(color=LINE).encode(y=y)
        words = base.mark_text(
            align="right", baseline="bottom", dx=-8, dy=-3, color=INK, limit=_SLACK * _LABEL[width]
        ).encode(x=x, y=y, text="label:N")
        return (lines + bars + words).properties(width=width - _LABEL[width], height=len(labels) * 34)

    busiest = [
        max((row for row in rows if row["label"] == label), key=lambda row: row["images"]) for label in labels[:3]
    ]
    told = "Images by species and hour of day. " + "; ".join(
        f"{row['label']} most between {row['hour']} and {row['hour'] + 1} h" for row in busiest
    )  # fmt: skip
    return _drawn(draw, width, f"{told}.", table)


def timeline(unit: str, table: Table, width: int = WIDE) -> Chart:
    """Images per day, week or month, by label."""
    rows = [{**row, "start": row["start"].isoformat()} for row in table.records()]
    labels = [label for label in _most(rows, "label") if label != "others"]
    if any(row["label"] == "others" for row in rows):
        labels.append("others")
    totals = Counter[str]()
    for row in rows:
        totals[row["start"]] += row["images"]

    def draw(width: int) -> Any:
        return (
            _chart([{**row, "order": labels.index(row["label"])} for row in rows])
            .mark_bar()
            .encode(
                x=alt.X(
                    "start:T", timeUnit=_UNITS[unit], title=None, axis=_axis(tickCount=width // 90, format=_DATES[unit])
                ),
                y=alt.Y("sum(images):Q", title=None, axis=_counts(max(totals.values(), default=0), _NUMBERS)),
                color=_colours("label", labels, width),
                order="order:Q",
            )
            .properties(width=width - _NUMBERS, height=240)
        )

    busiest, most = totals.most_common(1)[0] if totals else ("none", 0)
    return _drawn(draw, width, f"Images per {unit} by species; most in the {unit} of {busiest}: {most:,}.", table)


def energies(threshold: float, table: Table, width: int = WIDE) -> Chart:
    """The distribution of the energy, with its suspicious tail."""
    rows = table.records()

    def draw(width: int) -> Any:
        parts = [
            {"low": row["low"], "high": row["high"], "what": what, "images": images}
            for row in rows
            for what, images in (("suspicious", row["suspicious"]), ("others", row["images"] - row["suspicious"]))
            if images
        ]
        scale = alt.Scale(domain=["suspicious", "others"], range=[WARNING, ACCENT])
        return (
            _chart(parts)
            .mark_bar(binSpacing=1)
            .encode(
                x=alt.X("low:Q", bin="binned", title="energy", axis=_axis(tickCount=width // 90)),
                x2="high:Q",
                y=alt.Y("images:Q", title=None, axis=_counts(max(row["images"] for row in rows), _NUMBERS)),
                color=alt.Color("what:N", scale=scale, legend=None),
                order=alt.Order("what:N", sort="descending"),
            )
            .properties(width=width - _NUMBERS, height=190)
        )

    tail = sum(row["suspicious"] for row in rows)
    return _drawn(draw, width, f"Images by energy; {tail:,} at {threshold:.2f} or below are suspicious.", table)


def failures(table: Table, width: int = HALF) -> Chart:
    """What failed, by camera and reason."""
    rows = table.records()
    cameras, reasons = _most(rows, "camera"), _most(rows, "reason")
    totals = Counter[str]()
    for row in rows:
        totals[row["camera"]] += row["images"]
    named = [*reasons[: len(_HUES)], *(["others"] if len(reasons) > len(_HUES) else [])]

    def draw(width: int) -> Any:
        some = [row for row in rows if row["camera"] in cameras[:_ROWS]]
        return (
            _chart([{**row, "reason": row["reason"] if row["reason"] in named else "others"} for row in some])
            .mark_bar(cornerRadiusEnd=2)
            .encode(
                x=alt.X("sum(images):Q", title="images", axis=_counts(max(totals.values(), default=0))),
                y=alt.Y("camera:N", sort=cameras, title=None, axis=_names(width)),
                color=_colours("reason", named, width),
            )
            .properties(width=width - _LABEL[width], height=alt.Step(24))
        )

    return _drawn(draw, width, f"Failed and salvaged images. {_leaders(rows, 'camera', 'reason')}", table)


def presence(table: Table, cameras: Sequence[str], width: int = WIDE) -> Chart:
    """Which camera had images on which day."""
    rows = [{**row, "day": row["day"].isoformat()} for row in table.records()]

    def draw(width: int) -> Any:
        days = sorted({row["day"] for row in rows})[-(60 if width > NARROW else 28) :]
        ticks = _axis(tickCount=width // 110, format="%-d %b")
        shade = alt.Scale(type="sqrt", range=[0.25, 1], domainMin=0)
        return (
            _chart([row for row in rows if row["day"] in days])
            .mark_rect(color=ACCENT, cornerRadius=1.5)
            .encode(
                x=alt.X("day:T", timeUnit="yearmonthdate", title=None, axis=ticks),
                y=alt.Y("camera:N", sort=list(cameras), title=None, axis=_names(width), scale=_GRID),
                opacity=alt.Opacity("images:Q", scale=shade, legend=None),
            )
            .properties(width=width - _LABEL[width], height=alt.Step(18))
        )

    return _drawn(draw, width, "Images of each camera by day; a gap is a day without images.", table)


def speeds(table: Table, width: int = HALF) -> Chart:
    """Images per second, run by run, and what bound them."""
    rows = [{**row, "place": f"{place:04}"} for place, row in enumerate(table.records())]
    bounds = _most([{**row, "images": 1} for row in rows], "bound by")

    def draw(width: int) -> Any:
        return (
            _chart([{"place": row["place"], "speed": row["images/s"], "bound": row["bound by"]} for row in rows])
            .mark_bar(cornerRadiusEnd=2)
            .encode(
                x=alt.X("place:N", title="runs, the last at the right", axis=_axis(labels=False)),
                y=alt.Y("speed:Q", title=None, axis=_counts(10, _NUMBERS)),
                color=_colours("bound", bounds, width),
            )
            .properties(width=width - _NUMBERS, height=170)
        )

    return _drawn(draw, width, f"Images per second in {len(rows)} runs.", table)


_UNITS: dict[str, Any] = {"day": "yearmonthdate", "week": "yearweek", "month": "yearmonth"}
_DATES = {"day": "%-d %b", "week": "%-d %b %Y", "month": "%b %Y"}


def _chart(rows: list[dict[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.InlineData(values=rows))


def _axis(**values: Any) -> alt.Axis:
    return alt.Axis(**{"grid": False, "domain": False, "ticks": False, "labelPadding": 8, "labelFlush": False} | values)


def _colours(field: str, labels: Sequence[str], width: int) -> alt.Color:
    range_ = [OTHER if label == "others" else _HUES[place % len(_HUES)] for place, label in enumerate(labels)]
    legend = alt.Legend(
        orient="top",
        title=None,
        columns=0 if width > NARROW else 2,
        symbolType="square",
        columnPadding=22,
        labelLimit=_SLACK * _LABEL[width],
    )
    return alt.Color(f"{field}:N", scale=alt.Scale(domain=list(labels), range=range_), legend=legend)


def _counts(most: int, breadth: int = 0) -> alt.Axis:
    """An axis of counts up to this one; Vega by itself would halve few of them."""
    few = {"values": list(range(most + 1))} if most < 5 else {"tickCount": 4}
    return _axis(grid=True, format="~s", **few, **({"minExtent": breadth, "maxExtent": breadth} if breadth else {}))


def _names(width: int, **values: Any) -> alt.Axis:
    """An axis of names, of the same breadth in all charts."""
    return _axis(labelLimit=_SLACK * _LABEL[width] - 8, minExtent=_LABEL[width], maxExtent=_LABEL[width], **values)


def _angle(columns: Sequence[str]) -> int:
    return 0 if len(columns) <= 4 and max(map(len, columns), default=0) <= 9 else -40


def _most(rows: Iterable[dict[str, Any]], name: str) -> list[str]:
    """Values of a column, those with the most images first."""
    counted = Counter[str]()
    for row in rows:
        counted[row[name]] += row["images"]
    return [value for value, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0]))]


def _leaders(rows: Sequence[dict[str, Any]], one: str, other: str) -> str:
    first = sorted(rows, key=lambda row: -row["images"])[:3]
    return "Most: " + ", ".join(f"{row[one]} ({row[other]}) {row['images']:,}" for row in first) + "."


def _drawn(draw: Callable[[int], Any], width: int, told: str, table: Table) -> Chart:
    return Chart(_svg(draw(width)), _svg(draw(NARROW)), told, table)


def _svg(chart: Any) -> str:
    spec = chart.to_dict()
    spec["config"] = _STYLE
    svg: str = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
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
