"""The charts of a report, in the style of `chart_style.py`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt

from trapline.analysis.report import chart_style
from trapline.analysis.report.chart_style import (
    ACCENT,
    GRID,
    HALF,
    HUES,
    INK,
    LABEL,
    LINE,
    NARROW,
    NUMBERS,
    SLACK,
    WARNING,
    WIDE,
    Chart,
)
from trapline.analysis.sql import Table

# Columns and rows of a chart: more cannot be read; the table has the rest.
_COLUMNS = {WIDE: 16, HALF: 10, NARROW: 7}
_ROWS = 14


def by_site(table: Table, value: str = "images", digits: int = 0) -> Chart:
    """Draw labels by site, as a grid of the numbers in the column `value`, written with so many digits."""
    rows = [{**row, "value": row[value]} for row in table.records()]
    labels, sites = _most(rows, "label", "value"), _most(rows, "site", "value")

    def draw(width: int) -> Any:
        shown, columns = labels[:_ROWS], sites[: _COLUMNS[width]]
        some = [row for row in rows if row["label"] in shown and row["site"] in columns]
        base = chart_style.chart(some).encode(
            x=alt.X(
                "site:N",
                sort=columns,
                title=None,
                scale=GRID,
                axis=chart_style.axis(orient="top", labelAngle=_angle(columns), labelLimit=90),
            ),
            y=alt.Y("label:N", sort=shown, title=None, scale=GRID, axis=chart_style.names(width)),
        )
        # Paler and not lighter: pale is near the page's colour by day and by night.
        shade = alt.Opacity("value:Q", scale=alt.Scale(type="sqrt", range=[0.08, 0.62], domainMin=0), legend=None)
        number = alt.Text("value:Q", format=f",.{digits}f")
        grid = base.mark_rect(color=ACCENT, cornerRadius=3).encode(opacity=shade)
        return (grid + base.mark_text(color=INK, fontSize=11).encode(text=number)).properties(
            width=width - LABEL[width], height=alt.Step(26)
        )

    told = f"{value.capitalize()} by species and site. {_leaders(rows, 'label', 'site', 'value', digits)}"
    return chart_style.drawn(draw, HALF, told, table)


def by_hour(table: Table, value: str = "images") -> Chart:
    """Draw labels by hour of day, each as a row of bars scaled to its own peak."""
    rows = table.records()
    labels = _most(rows, "label", value)[:8]
    peak = Counter[str]()
    for row in rows:
        peak[row["label"]] = max(peak[row["label"]], row[value])

    def draw(width: int) -> Any:
        some = []
        for row in rows:
            if row["label"] in labels:
                floor = len(labels) - 1 - labels.index(row["label"])
                top = floor + 0.82 * row[value] / peak[row["label"]]
                some.append({**row, "floor": floor, "top": top, "end": row["hour"] + 0.86})
        hours = (
            chart_style.axis(values=list(range(0, 25, 3)), labelExpr="format(datum.value, '02') + ' h'")
            if width > NARROW
            else chart_style.axis(values=list(range(0, 25, 3)))
        )
        x = alt.X("hour:Q", title=None, scale=alt.Scale(domain=[0, 24], nice=False), axis=hours)
        floors = alt.Scale(domain=[0, len(labels)], nice=False)
        y = alt.Y("floor:Q", title=None, axis=chart_style.names(width, labels=False), scale=floors)
        base = chart_style.chart(
            [{"label": label, "floor": len(labels) - 1 - place, "hour": 0} for place, label in enumerate(labels)]
        )
        bars = (
            chart_style.chart(some).mark_rect(color=ACCENT, cornerRadius=1.5).encode(x=x, x2="end:Q", y=y, y2="top:Q")
        )
        lines = base.mark_rule(color=LINE).encode(y=y)
        words = base.mark_text(
            align="right", baseline="bottom", dx=-8, dy=-3, color=INK, limit=SLACK * LABEL[width]
        ).encode(x=x, y=y, text="label:N")
        return (lines + bars + words).properties(width=width - LABEL[width], height=len(labels) * 34)

    busiest = [max((row for row in rows if row["label"] == label), key=lambda row: row[value]) for label in labels[:3]]
    told = f"{value.capitalize()} by species and hour of day. " + "; ".join(
        f"{row['label']} most between {row['hour']} and {row['hour'] + 1} h" for row in busiest
    )  # fmt: skip
    return chart_style.drawn(draw, HALF, f"{told}.", table)


def timeline(unit: str, table: Table, value: str = "images") -> Chart:
    """Draw counts per day, week or month, by label."""
    rows = [{**row, "start": f"{row['start']}T00:00"} for row in table.records()]
    labels = [label for label in _most(rows, "label", value) if label != "others"]
    if any(row["label"] == "others" for row in rows):
        labels.append("others")
    totals = Counter[str]()
    for row in rows:
        totals[row["start"]] += row[value]

    def draw(width: int) -> Any:
        return (
            chart_style.chart([{**row, "order": labels.index(row["label"])} for row in rows])
            .mark_bar()
            .encode(
                x=alt.X(
                    "start:T",
                    timeUnit=_UNITS[unit],
                    title=None,
                    axis=chart_style.axis(tickCount=width // 90, format=_DATES[unit]),
                ),
                y=alt.Y(
                    f"sum({value}):Q", title=value, axis=chart_style.counts(max(totals.values(), default=0), NUMBERS)
                ),
                color=chart_style.colours("label", labels, width),
                order="order:Q",
            )
            .properties(width=width - NUMBERS, height=240)
        )

    busiest, most = totals.most_common(1)[0] if totals else ("none", 0)
    return chart_style.drawn(
        draw,
        WIDE,
        f"{value.capitalize()} per {unit} by species; most in the {unit} of {busiest[:10]}: {most:,}.",
        table,
    )


def energies(threshold: float, table: Table) -> Chart:
    """Draw the distribution of the energy, with its suspicious tail."""
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
            chart_style.chart(parts)
            .mark_bar(binSpacing=1)
            .encode(
                x=alt.X("low:Q", bin="binned", title="energy", axis=chart_style.axis(tickCount=width // 90)),
                x2="high:Q",
                y=alt.Y(
                    "images:Q", title="images", axis=chart_style.counts(max(row["images"] for row in rows), NUMBERS)
                ),
                color=alt.Color("what:N", scale=scale, legend=None),
                order=alt.Order("what:N", sort="descending"),
            )
            .properties(width=width - NUMBERS, height=190)
        )

    tail = sum(row["suspicious"] for row in rows)
    return chart_style.drawn(
        draw, WIDE, f"Images by energy; {tail:,} at {threshold:.2f} or below are suspicious.", table
    )


def failures(table: Table) -> Chart:
    """Draw failed and salvaged images, by camera and reason."""
    rows = table.records()
    cameras, reasons = _most(rows, "camera"), _most(rows, "reason")
    totals = Counter[str]()
    for row in rows:
        totals[row["camera"]] += row["images"]
    named = [*reasons[: len(HUES)], *(["others"] if len(reasons) > len(HUES) else [])]

    def draw(width: int) -> Any:
        some = [row for row in rows if row["camera"] in cameras[:_ROWS]]
        return (
            chart_style.chart(
                [{**row, "reason": row["reason"] if row["reason"] in named else "others"} for row in some]
            )
            .mark_bar(cornerRadiusEnd=2)
            .encode(
                x=alt.X("sum(images):Q", title="images", axis=chart_style.counts(max(totals.values(), default=0))),
                y=alt.Y("camera:N", sort=cameras, title=None, axis=chart_style.names(width)),
                color=chart_style.colours("reason", named, width),
            )
            .properties(width=width - LABEL[width], height=alt.Step(24))
        )

    return chart_style.drawn(draw, HALF, f"Failed and salvaged images. {_leaders(rows, 'camera', 'reason')}", table)


def presence(table: Table, cameras: Sequence[str]) -> Chart:
    """Draw the images of each camera by day."""
    rows = [{**row, "day": f"{row['day']}T00:00"} for row in table.records()]

    def draw(width: int) -> Any:
        days = sorted({row["day"] for row in rows})[-(60 if width > NARROW else 28) :]
        ticks = chart_style.axis(tickCount=width // 110, format="%-d %b")
        shade = alt.Scale(type="sqrt", range=[0.25, 1], domainMin=0)
        return (
            chart_style.chart([row for row in rows if row["day"] in days])
            .mark_rect(color=ACCENT, cornerRadius=1.5)
            .encode(
                x=alt.X("day:T", timeUnit="yearmonthdate", title=None, axis=ticks),
                y=alt.Y("camera:N", sort=list(cameras), title=None, axis=chart_style.names(width), scale=GRID),
                opacity=alt.Opacity("images:Q", scale=shade, legend=None),
            )
            .properties(width=width - LABEL[width], height=alt.Step(18))
        )

    return chart_style.drawn(draw, WIDE, "Images of each camera by day; a gap is a day without images.", table)


def speeds(table: Table) -> Chart:
    """Draw images per second, run by run, coloured by what bound the speed."""
    rows = [{**row, "place": f"{place:04}"} for place, row in enumerate(table.records())]
    bounds = _most([{**row, "images": 1} for row in rows], "bound by")

    def draw(width: int) -> Any:
        return (
            chart_style.chart(
                [{"place": row["place"], "speed": row["images/s"], "bound": row["bound by"]} for row in rows]
            )
            .mark_bar(cornerRadiusEnd=2)
            .encode(
                x=alt.X("place:N", title="runs, the last at the right", axis=chart_style.axis(labels=False)),
                y=alt.Y("speed:Q", title="images/s", axis=chart_style.counts(10, NUMBERS)),
                color=chart_style.colours("bound", bounds, width),
            )
            .properties(width=width - NUMBERS, height=170)
        )

    return chart_style.drawn(draw, HALF, f"Images per second in {len(rows)} runs.", table)


_UNITS: dict[str, Any] = {"day": "yearmonthdate", "week": "yearweek", "month": "yearmonth"}
_DATES = {"day": "%-d %b", "week": "%-d %b %Y", "month": "%b %Y"}


def _angle(columns: Sequence[str]) -> int:
    return 0 if len(columns) <= 4 and max(map(len, columns), default=0) <= 9 else -40


def _most(rows: Iterable[dict[str, Any]], name: str, value: str = "images") -> list[str]:
    """Return what stands in a column, that with the largest sum of another column first."""
    counted = Counter[str]()
    for row in rows:
        counted[row[name]] += row[value]
    return [value for value, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0]))]


def _leaders(rows: Sequence[dict[str, Any]], one: str, other: str, value: str = "images", digits: int = 0) -> str:
    first = sorted(rows, key=lambda row: -row[value])[:3]
    return "Most: " + ", ".join(f"{row[one]} ({row[other]}) {row[value]:,.{digits}f}" for row in first) + "."
