"""The detection history and the map, on tables whose picture is known."""

from datetime import date, timedelta

import pytest

from tests.analysis.report.test_charts import marks, words
from trapline.analysis.report import event_charts
from trapline.analysis.report.chart_style import ACCENT, LINE
from trapline.analysis.report.detection_history import History
from trapline.analysis.sql import Table

WEEK = date(2024, 5, 6)


@pytest.mark.parametrize("unit", ["week", "month"])
def test_a_history_has_a_grid_for_each_species(unit: str) -> None:
    cells = [
        ("robin", "fen/c1", WEEK, 0), ("robin", "fen/c2", WEEK, 1),
        ("owl", "fen/c1", WEEK, 3), ("owl", "fen/c1", WEEK + timedelta(weeks=5), 0), ("owl", "fen/c2", WEEK, 0),
    ]  # fmt: skip
    table = Table(("label", "camera", unit, "events"), cells)
    chart = event_charts.history(History(unit, ("fen/c1", "fen/c2"), table, Table((), []), 2))
    for svg in (chart.wide, chart.narrow):
        assert (marks(svg, ACCENT), marks(svg, LINE)) == (2, 3)
        assert {"owl", "robin", "fen/c1", "fen/c2"} <= words(svg).keys()
    # Beside each other they share the names at the left; on a telephone each has its own.
    assert (words(chart.wide)["fen/c1"], words(chart.narrow)["fen/c1"]) == (1, 2)
    assert chart.told == f"Cameras’ {unit}s in which a species was detected: owl in 1 of 3; robin in 1 of 2."


class TestStationMap:
    NAMES = ("camera", "latitude", "longitude", "events", "camera-days")

    def test_points_have_names_and_a_scale(self) -> None:
        rows = [("fen/c1", 52.5, 13.4, 9, 30.0), ("fen/c2", 52.6, 13.5, 1, 30.0), ("moor/c3", 52.55, 13.3, 0, 2.0)]
        chart = event_charts.station_map(Table(self.NAMES, rows))
        for svg in (chart.wide, chart.narrow):
            shown = words(svg)
            assert {"fen/c1", "fen/c2", "moor/c3"} <= shown.keys()
            assert any(word.endswith(" km") for word in shown)
            assert any(word.endswith("° N") for word in shown)
        assert chart.told == "A map of 3 cameras; most events at fen/c1 (9), fen/c2 (1), moor/c3 (0)."

    def test_names_that_would_lie_on_others_are_left_out(self) -> None:
        rows = [(f"fen/c{n}", 52.5 + n / 1e6, 13.4, 100 - n, 1.0) for n in range(40)]
        shown = words(event_charts.station_map(Table(self.NAMES, rows)).wide)
        names = [word for word in shown if word.startswith("fen/")]
        assert "fen/c0" in names
        assert len(names) < 20

    def test_a_camera_alone_without_events_is_shown(self) -> None:
        chart = event_charts.station_map(Table(self.NAMES, [("c" * 200, -33.9, 151.2, 0, None)]))
        assert "1 camera" in chart.told
        assert f"{'c' * 27}…" in words(chart.wide)
