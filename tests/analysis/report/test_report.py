"""`trapline report`: results whose answers are known, as one page that a browser shows without a network."""

import asyncio
import io
import json
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support import browser
from tests.support.archives import jpeg, write_folder, write_parquet, write_tar, write_zip
from tests.support.result_files import MARK, Planted, columns, write_result
from trapline.analysis import dataset, deployments, sql
from trapline.analysis.report import camera_health, image_table, page, queries, run_history, thumbnails
from trapline.analysis.report.page import Options
from trapline.analysis.report.queries import Headline
from trapline.analysis.report.thumbnails import Picture
from trapline.cli import report as job
from trapline.cli import rescore
from trapline.results.fingerprint import Fingerprint
from trapline.results.schema import Columns
from trapline.storage import store

CLASSES = ["owl", "robin", "wren"]
COLUMNS = columns(CLASSES, 4)
START = datetime(2024, 5, 1, 12)
SURE, UNSURE = (4.0, 0.0, 0.0), (0.1, 0.0, 0.0)
HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}"


def seen(
    key: str, day: float = 0, logits: Sequence[float] = SURE, embedding: Sequence[float] = (1, 0, 0, 0), **facts: Any
) -> Planted:
    """An image so many days after the start."""
    known = {"captured_at": START + timedelta(days=day), "content_sha256": b"x" * 32}
    return Planted(key, logits, embedding, facts=known | facts)


def failed(key: str, day: float = 0, reason: str = "empty") -> Planted:
    return Planted(
        key, status="failed", error=f"{reason}: no bytes", facts={"captured_at": START + timedelta(days=day)}
    )


def plant(
    output: str, camera: str, images: Sequence[Planted], of: Columns = COLUMNS, archive: str = "/nowhere"
) -> None:
    name = f"site={camera}/1.tar"
    write_result(output, f"{archive}/{name}", name, images, of)


def ask(output: str, *sources: str, sure: float = 0.5) -> tuple[duckdb.DuckDBPyConnection, Headline]:
    found = dataset.find(output)
    connection = sql.connect()
    image_table.read(connection, found, [deployments.parse(source) for source in sources], sure)
    return connection, queries.headline(connection, found)


class TestImageTable:
    @pytest.mark.parametrize(
        ("shard", "place"),
        [
            ("site=heath/cam1/0001.tar", ("heath", "heath/cam1")),
            ("heath/cam1/2024/0001.zip", ("heath", "heath/cam1/2024")),
            ("heath/cam1/DCIM/100RECNX", ("heath", "heath/cam1")),
            ("heath/cam1", ("heath", "heath/cam1")),
            ("0001.tar", ("(the archive)", "(the archive)")),
        ],
    )
    def test_without_sources_the_folders_below_the_archive_are_the_place(
        self, shard: str, place: tuple[str, str], tmp_path: Path
    ) -> None:
        name = shard if "." in shard else f"{shard}/images"
        write_result(str(tmp_path), f"s3://in/{shard}", name, [seen("a.jpg")], COLUMNS)
        connection, _ = ask(str(tmp_path))
        assert connection.sql("select site, camera, shard from images").fetchall() == [(*place, f"s3://in/{shard}")]

    @pytest.mark.parametrize(
        ("source", "place"),
        [
            ("site={site}/{camera}/…", ("fen", "fen/c1")),
            ("site={deployment}/{camera}/…", ("fen", "fen/c1")),
            ("site=*/{camera}/…", ("c1", "c1")),
            ("serial", ("H1", "H1")),
            ("site=moor/{camera}", (None, None)),
        ],
    )
    def test_with_sources_these_say_it(self, source: str, place: tuple[str, str], tmp_path: Path) -> None:
        plant(str(tmp_path), "fen/c1", [seen("a.jpg", camera_serial="H1")])
        connection, head = ask(str(tmp_path), source)
        assert connection.sql("select site, camera from images").fetchall() == [place]
        assert head.unplaced == (place[1] is None)

    def test_an_image_with_crops_is_one_image_of_its_surest_crop(self, tmp_path: Path) -> None:
        rows = [
            seen("whole.jpg"),
            replace(seen("two.jpg"), logits=()),
            replace(seen("two.jpg", logits=UNSURE), crop=1),
            replace(seen("two.jpg", logits=(0, 4, 0)), crop=2),
            replace(seen("skipped.jpg"), logits=()),
        ]
        mark = Fingerprint({**MARK.facts, "detections_sha256": "ab"})
        write_result(str(tmp_path), "s3://in/fen/1.tar", "fen/1.tar", rows, replace(COLUMNS, crops=True), mark)
        connection, head = ask(str(tmp_path))
        assert (head.images, head.ok, head.unnamed) == (3, 3, 1)
        assert queries.by_site(connection).rows == [("owl", "fen", 1), ("robin", "fen", 1)]


class TestQuestions:
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
        assert (head.unnamed, head.shards, head.sites, head.cameras, head.labels) == (1, 2, 2, 2, 2)
        assert (head.undated, head.unplaced, head.outside) == (1, 0, 0)
        assert (head.first, head.last, head.days) == (date(2024, 5, 1), date(2024, 5, 10), 10)

    def test_where_when_and_what(self, output: str) -> None:
        connection, head = ask(output)
        assert queries.by_site(connection).rows == [("robin", "fen", 3), ("owl", "moor", 2), ("owl", "fen", 1)]
        assert queries.by_hour(connection).rows == [("owl", 12, 2), ("robin", 12, 1), ("robin", 13, 2)]
        unit, timeline = queries.timeline(connection, head)
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

    def test_the_surest_of_each_species_and_the_least_sure_of_an_hour(self, output: str) -> None:
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
        labels = queries.timeline(connection, head)[1].records()
        assert sum(row["images"] for row in labels) == head.images

    @pytest.mark.parametrize("day", [-20_000, -8_900, -500, 120, 400, 27_000])
    def test_a_few_days_that_a_clock_jumped_to_do_not(self, day: int, tmp_path: Path) -> None:
        for camera in ("c1", "c2"):
            plant(str(tmp_path), f"fen/{camera}", [seen(f"{day}.jpg", day) for day in range(57)])
        plant(str(tmp_path), "fen/c3", [seen("a.jpg", 3), seen("b.jpg", day), seen("c.jpg", day + 1)])
        _, head = ask(str(tmp_path))
        assert (head.days, head.outside) == (57, 2)

    def test_clocks_that_were_reset_to_the_same_day_do_not_vouch_for_each_other(self, tmp_path: Path) -> None:
        for camera in ("c1", "c2"):
            images = [*(seen(f"{day}.jpg", day) for day in range(9)), seen("reset.jpg", -19_844)]
            plant(str(tmp_path), f"fen/{camera}", images)
        _, head = ask(str(tmp_path))
        assert (head.days, head.outside) == (9, 2)

    @pytest.mark.parametrize(("days", "unit"), [(20, "day"), (200, "week"), (2000, "month")])
    def test_a_long_time_is_told_by_weeks_or_months(self, days: int, unit: str, tmp_path: Path) -> None:
        plant(str(tmp_path), "fen/c1", [seen("a.jpg"), seen("b.jpg", days)])
        connection, head = ask(str(tmp_path))
        assert queries.timeline(connection, head)[0] == unit


class TestWatch:
    def test_silent_is_who_was_regular_and_has_stopped(self, tmp_path: Path) -> None:
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

    def test_failing_is_whose_last_images_fail(self, tmp_path: Path) -> None:
        good = [seen(f"{n:03}.jpg", n / 24) for n in range(40)]
        plant(str(tmp_path), "fen/good", good)
        plant(str(tmp_path), "fen/bad", [*good[:25], *(failed(f"{n:03}.jpg", n / 24) for n in range(25, 40))])
        plant(str(tmp_path), "fen/was", [*(failed(f"{n:03}.jpg", n / 24) for n in range(20)), *good[20:]])
        undated = [Planted(f"{n:03}.jpg", status="failed", error="empty: x") for n in range(25, 40)]
        plant(str(tmp_path), "fen/empty", [*good[:25], *undated])
        connection, _ = ask(str(tmp_path))
        assert [finding.camera for finding in camera_health.failing(connection)] == ["fen/bad", "fen/empty"]

    def test_new_is_what_a_known_site_had_not(self, tmp_path: Path) -> None:
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

    def test_displaced_is_whose_last_day_looks_elsewhere(self, tmp_path: Path) -> None:
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

    def test_dark_is_whose_last_pictures_are(self, tmp_path: Path) -> None:
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


class TestThumbnails:
    @staticmethod
    def picture(shard: object, key: str, data: bytes) -> Picture:
        return Picture(str(shard), key, sha256(data).digest())

    @pytest.mark.parametrize(
        ("name", "write"),
        [
            ("a.tar", write_tar),
            ("a.tar.gz", write_tar),
            ("a.zip", write_zip),
            ("a.parquet", write_parquet),
            ("a", write_folder),
        ],
    )
    def test_a_picture_is_found_in_every_kind_of_shard(
        self, name: str, write: Callable[..., Path], tmp_path: Path
    ) -> None:
        members = {f"{n}.jpg": jpeg(n) for n in range(5)}
        shard = write(tmp_path / name, members, *(["w:gz"] if name.endswith("gz") else []))
        wanted = [self.picture(shard, key, members[key]) for key in ("3.jpg", "1.jpg")]
        found = thumbnails.fetch(wanted)
        for picture in wanted:
            thumbnail = found[picture]
            assert (thumbnail.problem, thumbnail.width, thumbnail.height) == ("", 96, 72)
            assert thumbnail.data_uri.startswith("data:image/jpeg;base64,")

    def test_of_two_with_one_name_the_second_has_its_ordinal(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "a.tar", {"a.jpg": jpeg(1)})
        second = jpeg(2)
        shard = write_tar(tmp_path / "b.tar", {"a.jpg": jpeg(1), "a.json": b"{}", "x.txt": b"", "./a.jpg": second})
        data = shard.read_bytes().replace(b"./a.jpg", b"a.jpg\0\0")
        shard.write_bytes(fix_checksums(data))
        picture = self.picture(shard, "a.jpg@2", second)
        assert thumbnails.fetch([picture])[picture].problem == ""

    def test_so_it_has_across_the_row_groups_of_parquet(self, tmp_path: Path) -> None:
        pictures = {key: jpeg(seed) for seed, key in enumerate(("a.jpg", "b.jpg", "a.jpg@2", "c.jpg"))}
        names = [key.partition("@")[0] for key in pictures]
        table = pa.table({"image": list(pictures.values()), "path": names})
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
        wanted = [self.picture(tmp_path / "a.parquet", key, pictures[key]) for key in ("a.jpg@2", "b.jpg")]
        found = thumbnails.fetch(wanted)
        assert [found[picture].problem for picture in wanted] == ["", ""]

    def test_what_cannot_be_had_is_said(self, tmp_path: Path) -> None:
        data = jpeg(1)
        tar = write_tar(tmp_path / "a.tar", {"a.jpg": data, "cut.jpg": data[:20], "z.jpg": jpeg(9)})
        short = write_tar(tmp_path / "b.tar", {"a.jpg": data, "b.jpg": jpeg(2)})
        short.write_bytes(short.read_bytes()[:2000])
        wanted = {
            "not found": self.picture(tmp_path / "gone.tar", "a.jpg", data),
            "does not hold it any more": self.picture(tar, "b.jpg", data),
            "another picture": self.picture(tar, "a.jpg", jpeg(2)),
            "cannot be decoded": self.picture(tar, "cut.jpg", data[:20]),
            "cannot be read": self.picture(short, "b.jpg", jpeg(2)),
            "not found ": self.picture(tmp_path / "folder", "a.jpg", data),
            "": self.picture(tar, "z.jpg", jpeg(9)),
        }
        found = thumbnails.fetch(wanted.values())
        for said, picture in wanted.items():
            assert said.strip() in found[picture].problem
            assert bool(found[picture].problem) == bool(said)

    def test_a_loose_picture_that_was_deleted_takes_no_other_with_it(self, tmp_path: Path) -> None:
        members = {f"{n}.jpg": jpeg(n) for n in range(3)}
        folder = write_folder(tmp_path / "card.zip", members)
        wanted = [self.picture(folder, key, data) for key, data in members.items()]
        (folder / "1.jpg").unlink()
        found = thumbnails.fetch(wanted, {str(folder)})
        assert [bool(found[picture].data_uri) for picture in wanted] == [True, False, True]
        assert "does not hold it any more" in found[wanted[1]].problem

    @pytest.mark.parametrize("scheme", ["http://127.0.0.1:{port}/a.tar", "simplecache::http://127.0.0.1:{port}/a.tar"])
    def test_only_shards_of_the_ledger_are_read_and_no_server_is_asked(self, scheme: str, tmp_path: Path) -> None:
        data = jpeg(1)
        tar = write_tar(tmp_path / "a.tar", {"a.jpg": data})
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(0.2)
            url = scheme.format(port=server.getsockname()[1])
            for shards in (set[str](), {url}):
                picture = self.picture(url, "a.jpg", data)
                assert "is not read" in thumbnails.fetch([picture], shards)[picture].problem
            with pytest.raises(TimeoutError):
                server.accept()
        picture = self.picture(tar, "a.jpg", data)
        assert "no shard of these results" in thumbnails.fetch([picture], set())[picture].problem

    def test_the_shards_of_rescored_results_are_those_of_the_results_that_they_come_from(self, tmp_path: Path) -> None:
        plant(f"{tmp_path}/a", "fen/c1", [seen("a.jpg")], archive=f"{tmp_path}/in")
        write_result(f"{tmp_path}/a", f"{tmp_path}/in/loose", "loose/images", [seen("b.jpg")], COLUMNS)
        known = {f"{tmp_path}/in/site=fen/c1/1.tar", f"{tmp_path}/in/loose"}
        assert thumbnails.known_shards(dataset.find(f"{tmp_path}/a")) == known
        for before, after in (("a", "b"), ("b", "c")):
            assert rescore.main([f"{tmp_path}/{before}", f"{tmp_path}/{after}", "--temperature", "2"]) == 0
            assert thumbnails.known_shards(dataset.find(f"{tmp_path}/{after}")) == known

    def test_it_is_small(self, tmp_path: Path) -> None:
        data = jpeg(1, (2000, 1000))
        shard = write_tar(tmp_path / "a.tar", {"a.jpg": data})
        picture = self.picture(shard, "a.jpg", data)
        thumbnail = thumbnails.fetch([picture])[picture]
        assert (thumbnail.width, thumbnail.height) == (320, 160)
        assert len(thumbnail.data_uri) < 20_000


def fix_checksums(tar: bytes) -> bytes:
    """The headers of a tar whose names were changed."""
    blocks = bytearray(tar)
    for start in range(0, len(tar), 512):
        if blocks[start + 257 : start + 262] == b"ustar":
            blocks[start + 148 : start + 156] = b" " * 8
            blocks[start + 148 : start + 156] = b"%06o\0 " % sum(blocks[start : start + 512])
    return bytes(blocks)


class TestRuns:
    def test_accounts_are_a_table_and_what_is_none_is_passed_over(self, tmp_path: Path) -> None:
        folder = tmp_path / "_trapline" / "runs"
        folder.mkdir(parents=True)
        for name, text in {
            "1": json.dumps(account()),
            "2": "{cut",
            "3": "[]",
            "4": json.dumps(account(busy=3)),
        }.items():
            (folder / f"{name}.json").write_text(text)
        table = run_history.table(str(tmp_path))
        assert len(table.rows) == 1
        row = table.records()[0]
        assert (row["images"], row["failed"], row["bound by"], row["images/s"], row["took"]) == (
            12, 2, "decode", 37.6, "1:00:01",
        )  # fmt: skip

    def test_there_may_be_none(self, tmp_path: Path) -> None:
        assert run_history.table(str(tmp_path)).rows == []


def account(**values: Any) -> dict[str, Any]:
    """Of a run, as far as a report reads it."""
    whole = {
        "started_at": "2026-11-24T12:44:53+00:00", "status": "complete", "shards_committed": 9, "seconds": 3601.2,
        "images": {"ok": 10, "salvaged": 0, "failed": 2}, "images_per_second": 37.6, "bound_by": "decode",
        "busy": {"decode": 0.11, "predict": 0.09},
    }  # fmt: skip
    return whole | values


class Outline(HTMLParser):
    """What a page is made of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile_archive(archive: Path, output: str) -> None:
    """Every name that a page shows would be its own markup, or wider than a telephone."""
    long = "Aves-" + "x" * 200
    names = columns([HOSTILE, long, "wren"], 4)
    for camera, place in enumerate((HOSTILE.replace("/", "∕"), long[:120])):
        members = {f"{HOSTILE.replace('/', '∕')}{n}.jpg": jpeg(n + 50 * camera) for n in range(12)}
        shard = write_tar(archive / f"site={place}" / place / "1.tar", members)
        images = [
            seen(name, n, np.roll(SURE, n % 3), content_sha256=sha256(data).digest())
            for n, (name, data) in enumerate(members.items())
        ]
        bad = Planted(f"{HOSTILE}.jpg", status="failed", error=f"{HOSTILE}: {HOSTILE}")
        gone = [seen("gone.jpg", 13, UNSURE)] if camera else []
        name = f"site={place}/{place}/1.tar"
        write_result(output, str(shard), name, [*images, bad, *gone], names)
    folder = Path(output) / "_trapline" / "runs"
    folder.mkdir(parents=True)
    for name in "12":
        (folder / f"{name}.json").write_text(json.dumps(account(status=HOSTILE, bound_by=HOSTILE)))


class TestPage:
    def test_names_are_text_and_nothing_else(self, tmp_path: Path) -> None:
        hostile_archive(tmp_path / "in", str(tmp_path / "out"))
        built = page.build(
            dataset.find(str(tmp_path / "out")), Options(deployment_from=("site={site}/{camera}/*.tar",))
        )
        outline = Outline(built.html)
        assert "script" not in outline.tags
        assert HOSTILE in outline.text
        assert all(link.startswith(("#", "data:")) for link in outline.links)
        assert not re.search(r"<[^>]*\son\w+=", built.html)
        assert built.shown >= 12
        assert built.missing == 1
        assert "1.tar does not hold it any more" in outline.text

    def test_a_shard_that_is_gone_is_said(self, tmp_path: Path) -> None:
        archive = tmp_path / "in"
        data = jpeg(1)
        write_tar(archive / "site=fen/c1/1.tar", {"a.jpg": data})
        plant(
            str(tmp_path / "out"), "fen/c1", [seen("a.jpg", content_sha256=sha256(data).digest())], archive=str(archive)
        )
        plant(str(tmp_path / "out"), "fen/c2", [seen("b.jpg", logits=(0, 3, 0))], archive=str(archive))
        built = page.build(dataset.find(str(tmp_path / "out")), Options())
        assert (built.shown, built.missing) == (1, 1)
        assert f"{archive}/site=fen/c2/1.tar: not found" in Outline(built.html).text

    def test_no_pictures_are_fetched_where_none_are_allowed(self, tmp_path: Path) -> None:
        plant(str(tmp_path), "fen/c1", [seen("a.jpg")])
        built = page.build(dataset.find(str(tmp_path)), Options(pictures=0))
        assert (built.shown, built.missing) == (0, 0)
        assert "--pictures allows no more" in built.html

    def test_a_model_without_classes_and_embeddings_leaves_what_decoding_knows(self, tmp_path: Path) -> None:
        bare = columns([], 0, top_k=0, embedding="none")
        plant(str(tmp_path), "fen/c1", [seen("a.jpg", logits=(), embedding=()), failed("b.jpg")], bare)
        built = page.build(dataset.find(str(tmp_path)), Options())
        assert "There is no picture that the model has named" in built.html
        assert "These results have no energies" in built.html

    def test_cameras_that_no_chart_shows_are_named(self, tmp_path: Path) -> None:
        for number in range(30):
            images = [seen(f"{day}-{n}.jpg", day) for day in range(10) for n in range(30 - number)]
            plant(str(tmp_path), f"fen/c{number:02}", images)
        plant(str(tmp_path), "moor/early", [seen(f"{n}.jpg", n - 190) for n in range(50)])
        plant(str(tmp_path), "moor/undated", [seen("a.jpg", captured_at=None)])
        text = " ".join(Outline(page.build(dataset.find(str(tmp_path)), Options(pictures=0)).html).text.split())
        named = text.partition("Not in this chart")[2].partition(".")[0]
        assert "fen/c29 (10)" in named
        assert "moor/early (50)" in named
        assert "moor/undated (1)" in named
        assert "fen/c00" not in named

    def test_images_without_time_and_place_are_counted(self, tmp_path: Path) -> None:
        plant(str(tmp_path), "fen/c1", [seen("a.jpg", captured_at=None)])
        built = page.build(dataset.find(str(tmp_path)), Options(deployment_from=("serial",)))
        text = " ".join(Outline(built.html).text.split())
        assert "Without a time: 1." in text
        assert "Of 1 it is not said." in text

    def test_the_taxon_of_rescored_rows_is_their_label(self, tmp_path: Path) -> None:
        plant(f"{tmp_path}/in", "fen/c1", [seen("a.jpg"), seen("b.jpg", 0, UNSURE)])
        table = tmp_path / "taxonomy.csv"
        table.write_text(
            "species,genus,family,class\nowl,Strix,Strigidae,Aves\nrobin,Erithacus,Muscicapidae,Aves\nwren,Troglodytes,Troglodytidae,Aves\n"
        )
        assert rescore.main([f"{tmp_path}/in", f"{tmp_path}/out", "--taxonomy", str(table)]) == 0
        connection, _ = ask(f"{tmp_path}/out")
        assert queries.by_site(connection).rows == [("Aves", "fen", 1), ("owl", "fen", 1)]
        _, head = ask(f"{tmp_path}/out", "metadata:station")
        assert head.unplaced == 2
        assert page.build(dataset.find(f"{tmp_path}/out"), Options()).missing == 2


class TestJob:
    def test_writes_the_page_on_a_store(self, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        members = {f"{n}.jpg": jpeg(n) for n in range(4)}
        path = write_tar(tmp_path / "1.tar", members)
        store.put_file(f"{bucket}/in/site=fen/c1/1.tar", str(path))
        images = [seen(name, n, content_sha256=sha256(data).digest()) for n, (name, data) in enumerate(members.items())]
        plant(f"{bucket}/out", "fen/c1", images, archive=f"{bucket}/in")
        plant(f"{bucket}/out", "fen/c2", [seen("gone.jpg", logits=UNSURE)], archive=f"{bucket}/in")
        assert job.main([f"{bucket}/out", f"{bucket}/report.html"]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert said.startswith("images 5 of 2 cameras at 1 sites pictures 4 fetched, 1 not to be had")
        html = store.read_text(f"{bucket}/report.html")
        assert html.count("data:image/jpeg") >= 4
        assert "fen/c1" in html

    def test_an_archive_without_images_is_said_in_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert job.main([str(tmp_path), f"{tmp_path}/report.html"]) == 2
        assert "holds no results; `trapline classify` writes them" in capsys.readouterr().err
        plant(str(tmp_path), "fen/c1", [])
        assert job.main([str(tmp_path), f"{tmp_path}/report.html"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "its 1 results hold no image" in line
        assert not (tmp_path / "report.html").exists()

    def test_a_source_that_is_none_is_said(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        plant(str(tmp_path), "fen/c1", [seen("a.jpg")])
        assert job.main([str(tmp_path), f"{tmp_path}/r.html", "--deployment-from", "nothing"]) == 2
        assert "neither a pattern with names" in capsys.readouterr().err


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_it_whole(width: int, dark: bool, tmp_path: Path) -> None:
    hostile_archive(tmp_path / "in", str(tmp_path / "out"))
    path = tmp_path / "report.html"
    path.write_text(page.build(dataset.find(str(tmp_path / "out")), Options()).html)

    async def look(url: str) -> None:
        async with aiohttp.ClientSession() as session:
            shown = await (await browser.tab(session, url)).open(path, width, dark=dark)
            await shown.value("document.querySelectorAll('details').forEach(each => each.open = true)")
            assert shown.said == []
            assert [url for url in shown.asked if not url.startswith("data:")] == [path.as_uri()]
            assert await shown.value("document.documentElement.scrollWidth") == width
            boxes = json.loads(await shown.value(_BOXES))
            assert len(boxes) == 7
            assert all(box["width"] > 200 and box["height"] > 50 and box["marks"] > 0 for box in boxes), boxes
            assert all(box["right"] <= width for box in boxes), boxes
            images = await shown.value("[...document.images].map(each => each.naturalWidth).join()")
            assert images
            assert set(images.split(",")) == {"96"}

    with browser.chromium(tmp_path / "profile") as url:
        asyncio.run(look(url))


_BOXES = """JSON.stringify([...document.querySelectorAll('.chart svg')].filter(each => each.checkVisibility()).map(each => ({
    ...each.getBoundingClientRect().toJSON(), marks: each.querySelectorAll('.role-mark path, .role-mark line').length})))"""
