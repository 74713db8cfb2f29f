"""The charts of a report that only events have: the detection history, and the map."""

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

import altair as alt

from trapline.analysis.report import chart_style, map_projection
from trapline.analysis.report.chart_style import ACCENT, INK, LABEL, LINE, NARROW, QUIET, WIDE, Chart
from trapline.analysis.report.detection_history import History
from trapline.analysis.sql import Table

# Charts beside each other, and pixels between them.
_BESIDE = {WIDE: 3, NARROW: 1}
_GAP = 18
# Pixels of a map's height, of a letter and of a line of its labels.
_HEIGHT = {WIDE: 380, NARROW: 300}
_LETTER, _LETTERS_HEIGHT, _LONGEST = 7.2, 15, 28
# Pixels: radius of a point without events, and of that with the most.
_SMALLEST, _LARGEST = 4, 17

# Left, upper, right and lower edge, in pixels.
_Box = tuple[float, float, float, float]


def history(found: History) -> Chart:
    """Draw a grid of cameras and weeks for each species: detected, sampled, or neither."""
    rows = found.cells.records()
    labels = list(dict.fromkeys(row["label"] for row in sorted(rows, key=lambda row: -_total(rows, row["label"]))))
    cells = [
        {
            "label": row["label"],
            "camera": row["camera"],
            "start": f"{row[found.unit]}T00:00",
            "end": f"{_end(row[found.unit], found.unit)}T00:00",
            "state": "detected" if row["events"] else "sampled",
        }
        for row in rows
    ]
    days = sorted({row[found.unit] for row in rows})
    starts = [alt.DateTime(year=day.year, month=day.month, date=day.day) for day in days]
    rows_of_units = alt.Scale(domain=list(found.units), paddingInner=0.12)
    span = [min(cell["start"] for cell in cells), max(cell["end"] for cell in cells)]

    def draw(width: int) -> Any:
        beside = min(_BESIDE[width], len(labels))
        inner = (width - LABEL[width] - _GAP * (beside - 1)) / beside
        return alt.concat(
            *(
                _grid([cell for cell in cells if cell["label"] == label], label, place % beside == 0, inner, width)
                for place, label in enumerate(labels)
            ),
            columns=beside,
            spacing={"row": 22, "column": _GAP},
        )

    def _grid(some: list[dict[str, Any]], label: str, is_first: bool, inner: float, width: int) -> Any:
        form = "%-d %b" if found.unit == "week" else "%b %Y"
        names = chart_style.names(width) if is_first else chart_style.axis(labels=False)
        every = -(-len(starts) // max(2, int(inner // 62)))
        dates = chart_style.axis(values=starts[::every], format=form)
        return (
            chart_style.chart(some)
            .mark_rect(cornerRadius=1.5)
            .encode(
                x=alt.X("start:T", title=None, axis=dates, scale=alt.Scale(domain=span, nice=False)),
                x2="end:T",
                y=alt.Y("camera:N", sort=list(found.units), title=None, axis=names, scale=rows_of_units),
                color=alt.Color(
                    "state:N", scale=alt.Scale(domain=["detected", "sampled"], range=[ACCENT, LINE]), legend=None
                ),
            )
            .properties(
                width=inner,
                height=alt.Step(17),
                title=alt.Title(label, anchor="start", frame="group", fontSize=12, fontWeight=600, color=INK,
                                limit=inner, offset=8),
            )
        )  # fmt: skip

    detected = "; ".join(
        f"{label} in {sum(row['label'] == label and row['events'] > 0 for row in rows)} of "
        f"{sum(row['label'] == label for row in rows)}"
        for label in labels
    )
    return chart_style.drawn(
        draw, WIDE, f"Cameras’ {found.unit}s in which a species was detected: {detected}.", found.cells
    )


def station_map(table: Table) -> Chart:
    """Draw cameras where they stand, as points of an area that grows with their events.

    Args:
        table: camera, latitude, longitude, events, and others; those with most events first.
    """
    rows = table.records()
    most = max(row["events"] for row in rows)

    def draw(width: int) -> Any:
        height = _HEIGHT[width]
        projected = map_projection.project([(row["latitude"], row["longitude"]) for row in rows], width / height)
        points = [
            {"east": east, "north": north, "camera": row["camera"], "events": row["events"],
             "size": 4 * _radius(row["events"], most) ** 2}
            for row, (east, north) in zip(rows, projected.points, strict=True)
        ]  # fmt: skip
        x = alt.X("east:Q", title=None, axis=None, scale=alt.Scale(domain=projected.east, nice=False))
        y = alt.Y("north:Q", title=None, axis=None, scale=alt.Scale(domain=projected.north, nice=False))
        per_km = width / (projected.east[1] - projected.east[0])
        layers = [
            *_graticule(projected, x, y),
            _points([point for point in points if point["events"]], x, y, {"fillOpacity": 0.5, "fill": ACCENT}),
            _points([point for point in points if not point["events"]], x, y, {"fillOpacity": 0}),
            _labels(points, projected, per_km, x, y),
            *_scale_bar(projected, x, y, per_km),
        ]
        return alt.layer(*layers).properties(width=width, height=height)

    places = "1 camera" if len(rows) == 1 else f"{len(rows)} cameras"
    told = f"A map of {places}; most events at " + ", ".join(
        f"{row['camera']} ({row['events']:,})" for row in rows[:3]
    )  # fmt: skip
    return chart_style.drawn(draw, WIDE, f"{told}.", table)


def _graticule(projected: map_projection.Map, x: Any, y: Any) -> Iterable[Any]:
    west, south = projected.east[0], projected.north[0]
    meridians = chart_style.chart(
        [{"east": line.at, "north": south, "text": line.label} for line in projected.meridians]
    )
    parallels = chart_style.chart(
        [{"east": west, "north": line.at, "text": line.label} for line in projected.parallels]
    )
    yield meridians.mark_rule(color=LINE).encode(x=x)
    yield parallels.mark_rule(color=LINE).encode(y=y)
    style: dict[str, Any] = {"color": QUIET, "fontSize": 10.5}
    yield meridians.mark_text(dx=4, align="left", baseline="top", dy=4, **style).encode(
        x=x, y=alt.value(0), text="text:N"
    )
    yield parallels.mark_text(dx=4, align="left", baseline="bottom", dy=-3, **style).encode(x=x, y=y, text="text:N")


def _points(points: list[dict[str, Any]], x: Any, y: Any, style: dict[str, Any]) -> Any:
    return (
        chart_style.chart(points)
        .mark_circle(stroke=ACCENT, strokeWidth=1.5, strokeOpacity=1, opacity=1, **style)
        .encode(x=x, y=y, size=alt.Size("size:Q", scale=None, legend=None))
    )


def _grid_labels(projected: map_projection.Map, per_km: float) -> list[_Box]:
    """Return where the labels of the grid stand, in pixels east and south of the middle."""
    west, north = projected.east[0] * per_km, -projected.north[1] * per_km
    above = [(line.at * per_km, north, len(line.label)) for line in projected.meridians]
    left = [(west, -line.at * per_km - _LETTERS_HEIGHT, len(line.label)) for line in projected.parallels]
    return [(x, y, x + letters * _LETTER + 4, y + _LETTERS_HEIGHT + 4) for x, y, letters in above + left]


def _labels(points: list[dict[str, Any]], projected: map_projection.Map, per_km: float, x: Any, y: Any) -> Any:
    """Return the names of cameras beside their points, without those that have no room there."""
    centres = [(point["east"] * per_km, -point["north"] * per_km, (point["size"] / 4) ** 0.5) for point in points]
    taken = _grid_labels(projected, per_km) + [(left - r, top - r, left + r, top + r) for left, top, r in centres]
    shown = []
    for point, (left, top, radius) in zip(points, centres, strict=True):
        text = point["camera"] if len(point["camera"]) <= _LONGEST else f"{point['camera'][: _LONGEST - 1]}…"
        half, tall, away = len(text) * _LETTER / 2, _LETTERS_HEIGHT / 2, radius + 3
        middles = (
            (left, top + away + tall),
            (left, top - away - tall),
            (left + away + half, top),
            (left - away - half, top),
        )
        for across, down in middles:
            box = across - half, down - tall, across + half, down + tall
            is_inside = (
                abs(across) + half < projected.east[1] * per_km and abs(down) + tall < projected.north[1] * per_km
            )
            if is_inside and not any(
                box[0] < x1 and x0 < box[2] and box[1] < y1 and y0 < box[3] for x0, y0, x1, y1 in taken
            ):
                taken.append(box)
                shown.append({"east": across / per_km, "north": -down / per_km, "text": text})
                break
    return (
        chart_style.chart(shown)
        .mark_text(color=INK, fontSize=11, baseline="middle", clip=True)
        .encode(x=x, y=y, text="text:N")
    )


def _scale_bar(projected: map_projection.Map, x: Any, y: Any, per_km: float) -> Iterable[Any]:
    end = projected.east[1] - 14 / per_km
    north = projected.north[0] + 14 / per_km
    text = f"{projected.bar:g} km" if projected.bar >= 1 else f"{1000 * projected.bar:g} m"
    bar = chart_style.chart([{"east": end - projected.bar, "to": end, "north": north, "text": text}])
    yield bar.mark_rule(color=INK, strokeWidth=2).encode(x=x, x2="to:Q", y=y)
    yield bar.mark_text(color=INK, fontSize=11, align="left", baseline="bottom", dy=-4).encode(x=x, y=y, text="text:N")


def _radius(events: int, most: int) -> float:
    return _SMALLEST + (_LARGEST - _SMALLEST) * (events / most) ** 0.5 if events else _SMALLEST


def _total(rows: Iterable[dict[str, Any]], label: str) -> int:
    return sum(row["events"] for row in rows if row["label"] == label)


def _end(start: date, unit: str) -> date:
    """Return where the cell of a week or month ends, a little before the next one begins."""
    if unit == "week":
        return start + timedelta(days=7)
    return (start.replace(day=28) + timedelta(days=4)).replace(day=1)
