"""Where the rows of a report get their site, camera and label."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.report import COLUMNS, UNSURE, ask, plant, seen
from tests.support.result_files import MARK, columns, write_result
from trapline.analysis.report import queries, sightings
from trapline.cli import rescore
from trapline.decoding.crops import Box
from trapline.results.fingerprint import Fingerprint


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
    def test_with_sources_these_decide(self, source: str, place: tuple[str, str], tmp_path: Path) -> None:
        plant(str(tmp_path), "fen/c1", [seen("a.jpg", camera_serial="H1")])
        connection, head = ask(str(tmp_path), source)
        assert connection.sql("select site, camera from images").fetchall() == [place]
        assert head.unplaced == (place[1] is None)

    def test_clips_are_counted_apart_and_stand_once_among_the_pictures(self, tmp_path: Path) -> None:
        results, rescored = f"{tmp_path}/results", f"{tmp_path}/rescored"
        frames = [seen("b.MP4", media_type="video", frame_seconds=seconds) for seconds in (0.0, 1.0)]
        clip = seen("b.MP4", media_type="video")
        plant(results, "fen/c1", [seen("a.jpg"), clip, *frames, seen("c.jpg", 0, UNSURE)])
        assert rescore.main([results, rescored, "--temperature", "1"]) == 0
        for output in (results, rescored):
            connection, head = ask(output)
            assert (head.images, head.clips) == (3, 1)
            shown = queries.lowest_energy(connection, 9).records()
            assert sorted((row["key"], row["is_clip"], row["file"]) for row in shown) == [
                ("a.jpg", False, 0), ("b.MP4", True, 0), ("c.jpg", False, 0)
            ]  # fmt: skip

    def test_an_image_with_crops_is_one_image_of_its_surest_crop(self, tmp_path: Path) -> None:
        rows = [
            seen("whole.jpg"),
            replace(seen("two.jpg"), logits=()),
            replace(seen("two.jpg", logits=UNSURE), crop=1),
            replace(seen("two.jpg", logits=(0, 4, 0)), crop=2),
            replace(seen("two.jpg", logits=(9, 0, 0)), crop=3, box=Box("person", 0.9, (0.0, 0.0, 0.5, 0.5))),
            replace(seen("skipped.jpg"), logits=()),
        ]
        mark = Fingerprint({**MARK.facts, "detections_sha256": "ab"})
        write_result(str(tmp_path), "s3://in/fen/1.tar", "fen/1.tar", rows, replace(COLUMNS, crops=True), mark)
        connection, head = ask(str(tmp_path))
        assert (head.images, head.ok, head.unnamed) == (3, 3, 1)
        sightings.from_images(connection)
        assert sightings.by_site(connection, "images").rows == [("owl", "fen", 1), ("robin", "fen", 1)]

    def test_a_model_without_classes_has_crops_without_labels(self, tmp_path: Path) -> None:
        rows = [replace(seen("a.jpg", logits=(), embedding=()), crop=crop) for crop in (None, 1, 2)]
        mark = Fingerprint({**MARK.facts, "detections_sha256": "ab"})
        bare = columns([], 0, top_k=0, embedding="none")
        write_result(str(tmp_path), "s3://in/fen/1.tar", "fen/1.tar", rows, replace(bare, crops=True), mark)
        connection, head = ask(str(tmp_path))
        assert (head.images, head.ok) == (1, 1)
        assert connection.sql("select label, probability, energy from images").fetchall() == [(None, None, None)]
