"""Where each rule begins and ends, on a table of images alone; and what the rules find in results."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image

from tests.support.archives import write_tar
from tests.support.report import ask, failed, plant, seen
from tests.support.result_files import Planted
from trapline.analysis import dataset
from trapline.analysis.report import camera_health, thumbnails
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
            captured_at timestamp, is_clip boolean, site varchar, camera varchar, label varchar, probability float,
            named boolean)""")
    rows = [
        (f"s#{n:04}.jpg", "s", f"{n:04}.jpg", status, b"x", None if day is None else NOON + timedelta(days=day), False,
         camera.partition("/")[0], camera, label, 0.9, status == "ok")
        for n, (camera, day, status, label) in enumerate(images)
    ]  # fmt: skip
    connection.executemany("insert into images values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
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


class TestRulesOnResults:
    def test_silent_is_a_camera_that_was_regular_and_has_stopped(self, tmp_path: Path) -> None:
        habits = {
            "on": range(20),
            "stopped": range(15),
            "seldom": (0, 6, 12, 13, 14),  # it often pauses for as long
            "new": (0, 1, 2),
        }
        for camera, days in habits.items():
            plant(str(tmp_path), f"fen/{camera}", [seen(f"{day}.jpg", day) for day in days])
        connection, head = ask(str(tmp_path))
        (finding,) = camera_health.silent(connection, head, 3)
        assert (finding.camera, finding.why[:25]) == ("fen/stopped", "last image on 2024-05-15,")
        assert camera_health.silent(connection, head, 5) == [finding]
        assert camera_health.silent(connection, head, 6) == []

    def test_failing_is_a_camera_whose_last_images_fail(self, tmp_path: Path) -> None:
        good = [seen(f"{n:03}.jpg", n / 24) for n in range(40)]
        plant(str(tmp_path), "fen/good", good)
        plant(str(tmp_path), "fen/bad", [*good[:25], *(failed(f"{n:03}.jpg", n / 24) for n in range(25, 40))])
        plant(str(tmp_path), "fen/was", [*(failed(f"{n:03}.jpg", n / 24) for n in range(20)), *good[20:]])
        undated = [Planted(f"{n:03}.jpg", status="failed", error="empty: x") for n in range(25, 40)]
        plant(str(tmp_path), "fen/empty", [*good[:25], *undated])
        connection, _ = ask(str(tmp_path))
        assert [finding.camera for finding in camera_health.failing(connection)] == ["fen/bad", "fen/empty"]

    def test_new_is_a_species_that_a_known_site_did_not_have(self, tmp_path: Path) -> None:
        robin, wren = (0, 4, 0), (0, 0, 4)
        old = [
            seen("a.jpg"),
            seen("b.jpg", 30),
            seen("r.jpg", 25, robin),
            seen("w.jpg", 20, wren),
            seen("w2.jpg", 29, wren),
        ]
        plant(str(tmp_path), "fen/c1", [*old, seen("x.jpg", 28, (0, 0.1, 0))])
        plant(str(tmp_path), "moor/c2", [seen("n.jpg", 29, robin)])
        connection, head = ask(str(tmp_path))
        found = camera_health.new_species(connection, head, 7).rows
        assert [(site, label, first, images) for site, label, first, images, _ in found] == [
            ("fen", "robin", date(2024, 5, 26), 1)
        ]

    def test_displaced_is_a_camera_whose_last_day_looks_different(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(4)

        def days(last: Sequence[float], images: int = 6) -> list[Planted]:
            views = [(1, 0, 0, 0)] * 7 + [last]
            return [
                seen(f"{day}-{n}.jpg", day + n / 100, embedding=np.array(view) + rng.normal(0, 0.05, 4))
                for day, view in enumerate(views)
                for n in range(images)
            ]

        plant(str(tmp_path), "fen/still", days((1, 0, 0, 0)))
        plant(str(tmp_path), "fen/moved", days((0.3, 1, 0, 0)))
        plant(str(tmp_path), "fen/few", days((0, 1, 0, 0), images=4))
        connection, _ = ask(str(tmp_path))
        findings, judged = camera_health.displaced(connection, [file.url for file in dataset.find(str(tmp_path)).files])
        assert ([finding.camera for finding in findings], judged) == (["fen/moved"], 2)
        assert "on 2024-05-08" in findings[0].why

    def test_dark_is_a_camera_whose_last_pictures_are_dark(self, tmp_path: Path) -> None:
        archive, output = tmp_path / "in", str(tmp_path / "out")
        for camera, lights in {"dark": [200] * 12 + [40] * 3, "bright": [200] * 15, "always": [40] * 15}.items():
            members = {f"{n:02}.jpg": grey(light, n) for n, light in enumerate(lights)}
            write_tar(archive / f"site=fen/{camera}/1.tar", members)
            images = [
                seen(name, n, content_sha256=sha256(data).digest()) for n, (name, data) in enumerate(members.items())
            ]
            images += [seen("night.jpg", 20.5)]
            plant(output, f"fen/{camera}", images, archive=str(archive))
        connection, _ = ask(output)
        looks = camera_health.looks(connection, 18)
        fetched = thumbnails.fetch([each for halves in looks.values() for half in halves for each in half])
        findings, judged = camera_health.dark(looks, fetched)
        assert ([(finding.camera, finding.why) for finding in findings], judged) == (
            [("fen/dark", "mean brightness 16%, and 78% before")], 3,
        )  # fmt: skip
        assert camera_health.looks(connection, 17).keys() == {"fen/always", "fen/bright"}
        assert camera_health.looks(connection, 5) == {}


def grey(light: int, seed: int) -> bytes:
    sink = io.BytesIO()
    Image.new("L", (96, 72), light).save(sink, "JPEG", comment=f"{seed}".encode())
    return sink.getvalue()
