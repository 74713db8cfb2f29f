"""The queries of a report, on results whose answers are known."""

from datetime import date
from pathlib import Path

import pytest

from tests.support.report import SURE, UNSURE, ask, failed, plant, seen
from tests.support.result_files import Planted
from trapline.analysis.report import queries, sightings


class TestQueries:
    @pytest.fixture
    def output(self, tmp_path: Path) -> str:
        robins = [seen(f"r{hour}.jpg", hour / 24, (0, 4, 0)) for hour in (0, 1, 1.5)]
        plant(
            str(tmp_path),
            "fen/c1",
            [seen("a.jpg"), *robins, seen("u.jpg", 9, UNSURE), failed("f.jpg"), failed("g.jpg")],
        )
        broken = Planted(
            "s.jpg", SURE, (0, 1, 0, 0), status="salvaged", error="truncated: cut", facts={"width": 9, "height": 9}
        )
        plant(str(tmp_path), "moor/c2", [seen("b.jpg", 8), broken, failed("h.jpg", 1, "corrupt")])
        return str(tmp_path)

    def test_the_headline(self, output: str) -> None:
        _, head = ask(output)
        assert (head.images, head.ok, head.salvaged, head.failed) == (10, 6, 1, 3)
        assert head.clips == 0
        assert (head.unnamed, head.shards, head.sites, head.cameras, head.labels) == (1, 2, 2, 2, 2)
        assert (head.undated, head.unplaced, head.outside) == (1, 0, 0)
        assert (head.first, head.last, head.days) == (date(2024, 5, 1), date(2024, 5, 10), 10)

    def test_where_when_and_what(self, output: str) -> None:
        connection, head = ask(output)
        sightings.from_images(connection)
        counted = sightings.by_site(connection, "images")
        assert counted.names == ("label", "site", "images")
        assert counted.rows == [("robin", "fen", 3), ("owl", "moor", 2), ("owl", "fen", 1)]
        assert sightings.by_hour(connection, "images").rows == [("owl", 12, 2), ("robin", 12, 1), ("robin", 13, 2)]
        unit, timeline = sightings.timeline(connection, head.first, head.last, "images")
        assert (unit, timeline.rows) == (
            "day", [(date(2024, 5, 1), "owl", 1), (date(2024, 5, 1), "robin", 3), (date(2024, 5, 9), "owl", 1)],
        )  # fmt: skip

    def test_failures(self, output: str) -> None:
        connection, _ = ask(output)
        assert [row[:3] for row in queries.failures(connection).rows] == [
            ("empty", "failed", 2), ("corrupt", "failed", 1), ("truncated", "salvaged", 1),
        ]  # fmt: skip
        assert queries.failures_by_camera(connection).rows == [
            ("fen/c1", "empty", 2, 7), ("moor/c2", "corrupt", 1, 3), ("moor/c2", "truncated", 1, 3),
        ]  # fmt: skip

    def test_the_lowest_energies_are_the_tail(self, tmp_path: Path) -> None:
        plant(str(tmp_path), "fen/c1", [seen(f"{n:03}.jpg", 0, (10 + n / 10, 0, 0)) for n in range(100)])
        connection, _ = ask(str(tmp_path))
        threshold, bins = queries.energies(connection)
        assert threshold == pytest.approx(10, abs=0.01)
        assert (sum(row[2] for row in bins.rows), sum(row[3] for row in bins.rows)) == (100, 1)
        assert bins.rows[0][3] == 1
        assert [row["key"] for row in queries.lowest_energy(connection, 2).records()] == ["000.jpg", "001.jpg"]

    def test_best_is_one_picture_per_species_and_doubtful_one_per_hour(self, output: str) -> None:
        connection, _ = ask(output)
        assert [row["label"] for row in queries.best(connection, 5).records()] == ["robin", "owl"]
        assert [row["label"] for row in queries.best(connection, 1).records()] == ["robin"]
        doubtful = [row["key"] for row in queries.doubtful(connection, 9).records()]
        assert doubtful[0] == "u.jpg"
        assert len({"r0.jpg", "a.jpg"} & set(doubtful)) == 1  # both of fen/c1, between twelve and one

    def test_one_clock_that_is_wrong_does_not_make_the_archive_longer(self, tmp_path: Path) -> None:
        plant(str(tmp_path), "fen/c1", [seen("a.jpg"), seen("wrong.jpg", 9000), seen("reset.jpg", -9000)])
        plant(str(tmp_path), "fen/c2", [seen("b.jpg", 5)])
        _, head = ask(str(tmp_path))
        assert (head.days, head.outside) == (6, 2)

    def test_a_camera_alone_in_its_season_belongs_to_the_archive(self, tmp_path: Path) -> None:
        for camera in ("c1", "c2"):
            plant(str(tmp_path), f"fen/{camera}", [seen(f"{day}.jpg", day) for day in range(57)])
        plant(str(tmp_path), "fen/winter", [seen("a.jpg", -150), seen("b.jpg", -140)])
        plant(str(tmp_path), "fen/c3", [seen(f"{day}.jpg", day) for day in (5, *range(200, 206))])
        connection, head = ask(str(tmp_path))
        assert (head.days, head.outside) == (150 + 206, 0)
        sightings.from_images(connection)
        labels = sightings.timeline(connection, head.first, head.last, "images")[1].records()
        assert sum(row["images"] for row in labels) == head.images

    @pytest.mark.parametrize("day", [-20_000, -8_900, -500, 120, 400, 27_000])
    def test_a_few_days_that_a_clock_jumped_to_do_not_belong_to_it(self, day: int, tmp_path: Path) -> None:
        for camera in ("c1", "c2"):
            plant(str(tmp_path), f"fen/{camera}", [seen(f"{day}.jpg", day) for day in range(57)])
        plant(str(tmp_path), "fen/c3", [seen("a.jpg", 3), seen("b.jpg", day), seen("c.jpg", day + 1)])
        _, head = ask(str(tmp_path))
        assert (head.days, head.outside) == (57, 2)

    def test_clocks_that_were_reset_to_the_same_day_do_not_confirm_each_other(self, tmp_path: Path) -> None:
        for camera in ("c1", "c2"):
            images = [*(seen(f"{day}.jpg", day) for day in range(9)), seen("reset.jpg", -19_844)]
            plant(str(tmp_path), f"fen/{camera}", images)
        _, head = ask(str(tmp_path))
        assert (head.days, head.outside) == (9, 2)

    @pytest.mark.parametrize(("days", "unit"), [(20, "day"), (200, "week"), (2000, "month")])
    def test_a_long_time_is_shown_by_weeks_or_months(self, days: int, unit: str, tmp_path: Path) -> None:
        plant(str(tmp_path), "fen/c1", [seen("a.jpg"), seen("b.jpg", days)])
        connection, head = ask(str(tmp_path))
        sightings.from_images(connection)
        assert sightings.timeline(connection, head.first, head.last, "images")[0] == unit
