"""Where each rule begins and ends, on a table of images alone; what it finds in results is in `test_report.py`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import duckdb
import pytest

from trapline.analysis.report import camera_health
from trapline.analysis.report.thumbnails import Picture, Thumbnail

NOON = datetime(2024, 5, 1, 12)


@dataclass(frozen=True)
class Span:
    """Of the headline what the rules ask for."""

    first: date
    last: date


def over(days: int) -> Span:
    return Span(NOON.date(), NOON.date() + timedelta(days=days - 1))


def table(*images: tuple[str, float | None, str, str]) -> duckdb.DuckDBPyConnection:
    """The table `images`: of each its camera (at the site before the slash), days after the start, status and label."""
    connection = duckdb.connect()
    connection.execute("""
        create table images (image_uri varchar, shard varchar, key varchar, status varchar, content_sha256 blob,
            captured_at timestamp, site varchar, camera varchar, label varchar, probability float, named boolean)""")
    rows = [
        (f"s#{n:04}.jpg", "s", f"{n:04}.jpg", status, b"x", None if day is None else NOON + timedelta(days=day),
         camera.partition("/")[0], camera, label, 0.9, status == "ok")
        for n, (camera, day, status, label) in enumerate(images)
    ]  # fmt: skip
    connection.executemany("insert into images values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    return connection


def taken(camera: str, days: Iterable[float], status: str = "ok") -> list[tuple[str, float | None, str, str]]:
    return [(camera, day, status, "owl") for day in days]


def silent(days: Sequence[int], length: int, after: int = 3) -> bool:
    found = camera_health.silent(table(*taken("fen/c", days)), over(length), after)  # type: ignore[arg-type]
    return bool(found)


class TestSilent:
    def test_from_the_days_that_were_asked_for_on(self) -> None:
        assert [silent(range(5), length) for length in (7, 8, 20)] == [False, True, True]

    def test_only_for_longer_than_ever_before(self) -> None:
        days = (0, 1, 2, 3, 8)  # a pause of five
        assert [silent(days, length) for length in (9 + 4, 9 + 5, 9 + 6)] == [False, False, True]

    def test_only_with_habits_of_five_days(self) -> None:
        assert [silent(range(days), 20) for days in (4, 5)] == [False, True]

    def test_several_images_of_a_day_are_one_day(self) -> None:
        assert not silent([0, 0, 0, 0, 0, 1, 2, 3], 20)

    def test_a_clock_ahead_of_the_archive_s_end_does_not_hide_it(self) -> None:
        assert silent([*range(5), 9000], 20)


class TestFailing:
    @pytest.mark.parametrize(
        ("before", "bad_before", "bad_last", "found"),
        [(20, 0, 10, True), (20, 0, 9, False), (19, 0, 20, False), (20, 2, 10, True), (20, 3, 20, False)],
    )
    def test_is_a_camera_half_of_whose_last_twenty_fail(
        self, before: int, bad_before: int, bad_last: int, found: bool
    ) -> None:
        statuses = ["failed"] * bad_before + ["ok"] * (before - bad_before)
        statuses += ["failed"] * bad_last + ["ok"] * (20 - bad_last)
        images = [("fen/c", n / 24, status, "owl") for n, status in enumerate(statuses)]
        assert bool(camera_health.failing(table(*images))) == found

    def test_an_image_without_a_time_follows_the_one_before_it_by_name(self) -> None:
        """Were all the undated ones last, the camera would fail."""
        undated = [("fen/c", None, "failed", "owl")] * 12
        early = [*taken("fen/c", (0,)), *undated, *taken("fen/c", (n / 24 for n in range(1, 150)))]
        assert camera_health.failing(table(*early)) == []
        late = [*taken("fen/c", (n / 24 for n in range(150))), *undated]
        assert len(camera_health.failing(table(*late))) == 1


class TestNewSpecies:
    @staticmethod
    def found(*images: tuple[str, float, str], length: int = 30) -> list[tuple[str, str]]:
        connection = table(*((camera, day, "ok", label) for camera, day, label in images))
        return [row[:2] for row in camera_health.new_species(connection, over(length), 7).rows]  # type: ignore[arg-type]

    def test_is_first_seen_in_the_last_days(self) -> None:
        old = ("fen/c", 0, "owl")
        assert self.found(old, ("fen/c", 23, "wren")) == [("fen", "wren")]
        assert self.found(old, ("fen/c", 22, "wren")) == []
        assert self.found(old, ("fen/c", 22, "wren"), ("fen/c", 29, "wren")) == []

    def test_not_at_a_site_that_is_new_itself(self) -> None:
        assert self.found(("fen/c", 22, "owl"), ("fen/c", 29, "wren")) == [("fen", "wren")]
        assert self.found(("fen/c", 23, "owl"), ("fen/c", 29, "wren")) == []

    def test_is_new_to_the_site_and_not_to_the_camera(self) -> None:
        assert self.found(("fen/c", 0, "owl"), ("fen/d", 29, "owl"), ("moor/c", 0, "wren"), ("moor/c", 29, "owl")) == [
            ("moor", "owl")
        ]


class TestLooks:
    def test_are_of_daylight_from_nine_to_before_three(self) -> None:
        hours = (8.98, 9, 14.98, 15)
        connection = table(*taken("fen/c", [day + (hour - 12) / 24 for day in range(3) for hour in hours]))
        assert camera_health.looks(connection, 100) == {}  # six by daylight
        connection = table(*taken("fen/c", [day + (hour - 12) / 24 for day in range(5) for hour in hours]))
        ((last, before),) = camera_health.looks(connection, 100).values()
        keys = {picture.key for picture in (*last, *before)}
        assert (len(last), len(before), len(keys)) == (3, 3, 6)
        assert all(int(key[:4]) % 4 in (1, 2) for key in keys)
        assert {int(picture.key[:4]) for picture in last} == {18, 17, 14}


def test_dark_is_less_than_half_as_bright_and_judged_only_by_pictures_that_there_are() -> None:
    def look(*values: float | None) -> list[Picture]:
        return [Picture(str(value), "k", b"") for value in values]

    looks = {
        "half": (look(0.3, 0.2), look(0.5)),
        "darker": (look(0.3, 0.19), look(0.5)),
        "gone": (look(None), look(0.5)),
        "none left": (look(0.1, None), look(None, 0.5)),
    }
    pictures = {picture for halves in looks.values() for half in halves for picture in half}
    thumbnails = {
        each: Thumbnail(problem="gone")
        if each.shard == "None"
        else Thumbnail("data:image/jpeg;base64,", 9, 9, float(each.shard))
        for each in pictures
    }
    findings, judged = camera_health.dark(looks, thumbnails)
    assert ([finding.camera for finding in findings], judged) == (["darker", "none left"], 3)
