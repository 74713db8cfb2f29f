"""Each chart on a table whose picture is known: which marks and words it has, and its sentence."""

import re
from collections import Counter
from datetime import date, datetime, timedelta
from html import unescape

import pytest

from trapline.analysis.report import charts
from trapline.analysis.report.chart_style import ACCENT, HUES, OTHER, WARNING
from trapline.analysis.sql import Table

DAY = date(2024, 5, 1)


def marks(svg: str, colour: str) -> int:
    """How many marks of this colour a drawing has."""
    groups = re.findall(r'<g class="mark-(?:rect|rule)[^"]*role-mark[^"]*".*?</g>', svg, re.DOTALL)
    return sum(group.count(f'fill="{colour}"') for group in groups)


def words(svg: str) -> Counter[str]:
    """What stands in a drawing, and how often; names that are too long end in an ellipsis."""
    return Counter(unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg))


class TestBySite:
    NAMES = ("label", "site", "images")

    def test_a_cell_has_its_count(self) -> None:
        chart = charts.by_site(Table(self.NAMES, [("owl", "fen", 1200), ("robin", "fen", 2), ("owl", "moor", 3)]))
        for svg in (chart.wide, chart.narrow):
            assert marks(svg, ACCENT) == 3
            assert words(svg) == Counter(["owl", "robin", "fen", "moor", "1,200", "2", "3"])
        assert chart.told == "Images by species and site. Most: owl (fen) 1,200, owl (moor) 3, robin (fen) 2."

    def test_it_has_14_rows_and_as_many_columns_as_fit(self) -> None:
        rows = [(f"l{n:02}", f"s{m:02}", 100 - n - m) for n in range(20) for m in range(20)]
        chart = charts.by_site(Table(self.NAMES, rows))
        assert (marks(chart.wide, ACCENT), marks(chart.narrow, ACCENT)) == (14 * 10, 14 * 7)
        shown = words(chart.narrow)
        assert {f"l{n:02}" for n in range(14)} | {f"s{m:02}" for m in range(7)} <= shown.keys()
        assert not {"l14", "s07"} & shown.keys()
        assert len(chart.table.rows) == 400


class TestByHour:
    NAMES = ("label", "hour", "images")

    def test_a_bar_for_each_hour_and_the_busiest_hour_in_words(self) -> None:
        rows = [("owl", 0, 1), ("owl", 23, 9), ("robin", 12, 3)]
        chart = charts.by_hour(Table(self.NAMES, rows))
        assert marks(chart.wide, ACCENT) == marks(chart.narrow, ACCENT) == 3
        assert chart.told == (
            "Images by species and hour of day. owl most between 23 and 24 h; robin most between 12 and 13 h."
        )
        assert {"owl", "robin", "21 h"} <= words(chart.wide).keys()
        assert {"owl", "robin", "21"} <= words(chart.narrow).keys()

    def test_only_the_eight_most_common_labels_are_drawn(self) -> None:
        chart = charts.by_hour(Table(self.NAMES, [(f"l{n}", n, 10 - n) for n in range(10)]))
        assert {f"l{n}" for n in range(10)} & words(chart.wide).keys() == {f"l{n}" for n in range(8)}


class TestTimeline:
    @pytest.mark.parametrize("unit", ["day", "week", "month"])
    def test_colours_stack_and_others_come_last_in_grey(self, unit: str) -> None:
        rows = [(DAY, "others", 50), (DAY, "owl", 4), (DAY + timedelta(days=40), "owl", 5),
                (DAY + timedelta(days=40), "robin", 1)]  # fmt: skip
        chart = charts.timeline(unit, Table(("start", "label", "images"), rows))
        for svg in (chart.wide, chart.narrow):
            assert [marks(svg, colour) for colour in (HUES[0], HUES[1], OTHER)] == [2, 1, 1]
        assert chart.told == f"Images per {unit} by species; most in the {unit} of 2024-05-01: 54."


def test_energies_mark_the_suspicious_tail() -> None:
    rows = [(0.0, 1.0, 3, 3), (1.0, 2.0, 5, 2), (2.0, 3.0, 900, 0)]
    chart = charts.energies(1.25, Table(("low", "high", "images", "suspicious"), rows))
    assert (marks(chart.wide, WARNING), marks(chart.wide, ACCENT)) == (2, 2)
    assert chart.told == "Images by energy; 5 at 1.25 or below are suspicious."


class TestFailures:
    NAMES = ("camera", "reason", "images", "of_images")

    def test_a_camera_is_a_bar_with_a_part_for_each_reason(self) -> None:
        rows = [("fen/c1", "empty", 7, 9), ("fen/c1", "corrupt", 1, 9), ("fen/c2", "corrupt", 2, 9)]
        chart = charts.failures(Table(self.NAMES, rows))
        assert (marks(chart.wide, HUES[0]), marks(chart.wide, HUES[1])) == (1, 2)
        assert {"fen/c1", "fen/c2", "empty", "corrupt"} <= words(chart.wide).keys()
        assert chart.told.endswith("Most: fen/c1 (empty) 7, fen/c2 (corrupt) 2, fen/c1 (corrupt) 1.")

    def test_rare_reasons_are_one_and_14_cameras_are_shown(self) -> None:
        rows = [(f"c{n:02}", f"r{n % 10}", 100 - n, 100) for n in range(20)]
        shown = words(charts.failures(Table(self.NAMES, rows)).wide)
        assert {f"c{n:02}" for n in range(20)} & shown.keys() == {f"c{n:02}" for n in range(14)}
        assert {f"r{n}" for n in range(10)} & shown.keys() == {f"r{n}" for n in range(8)}
        assert "others" in shown


def test_presence_shows_the_last_days_as_far_as_they_fit() -> None:
    rows = [("fen/c1", DAY + timedelta(days=day), 3) for day in range(70)] + [("fen/c2", DAY, 1)]
    chart = charts.presence(Table(("camera", "day", "images"), rows), ["fen/c2", "fen/c1"])
    assert (marks(chart.wide, ACCENT), marks(chart.narrow, ACCENT)) == (60, 28)
    assert "fen/c1" in words(chart.wide)


def test_speeds_are_coloured_by_what_bound_them() -> None:
    rows = [(datetime(2024, 5, 1), 30.0, "decode"), (datetime(2024, 5, 2), 90.0, "predict"),
            (datetime(2024, 5, 3), 31.0, "decode")]  # fmt: skip
    chart = charts.speeds(Table(("started", "images/s", "bound by"), rows))
    assert (marks(chart.wide, HUES[0]), marks(chart.wide, HUES[1])) == (2, 1)
    assert {"decode", "predict"} <= words(chart.wide).keys()
    assert chart.told == "Images per second in 3 runs."
