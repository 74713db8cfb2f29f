"""Boxes are led to the images that they mean, whatever form a path takes; what is led nowhere is counted."""

from pathlib import Path

import pytest

from tests.detections.test_megadetector import WHOLE, image, write_json, write_parquet
from tests.support.archives import pictures, write_folder, write_tar, write_zip
from trapline.cli.classify import main
from trapline.decoding.crops import Box
from trapline.detections.index import Index, counted, indexed
from trapline.detections.megadetector import Detections
from trapline.detections.shard_boxes import Seen
from trapline.sources.shards import discover


class TestTheIndex:
    """Of two tars, a zip and two folders; the tars share one key."""

    @pytest.fixture
    def archive(self, tmp_path: Path) -> Path:
        root = tmp_path / "archive"
        write_tar(root / "site=1/0007.tar", pictures(2) | pictures(1, "only#"))
        write_tar(root / "site=2/0007.tar", {"./DCIM/IMG_0001.jpg": b""})
        write_zip(root / "site=2/card.zip", pictures(2, "A/"))
        write_folder(root / "site=3/cam", pictures(1, ""))
        write_folder(root / "site=3/loose", pictures(1, ""))
        return root

    def find(self, archive: Path, path: Path, inputs: str = "") -> tuple[dict[str, dict[str, list[float]]], Index]:
        """Confidences by shard, relative to the archive, and key."""
        output = str(archive.parent / "out")
        shards = discover([f"{archive}{inputs}"], output).shards
        detections = Detections.at(str(path), 0.2, ("animal",))
        with indexed(detections, shards, shards, output, f"{output}/_trapline/detections/x") as index:
            found = {
                uri.removeprefix(f"{archive}/"): {
                    key: [box.confidence for box in seen.boxes] for key, seen in part.load().items()
                }
                for uri, part in index.slices.items()
            }
        assert not Path(f"{output}/_trapline/detections/x").exists()
        return found, index

    @pytest.mark.parametrize(
        ("name", "shard", "key"),
        [
            ("{archive}/site=1/0007.tar#DCIM/IMG_0001.jpg", "site=1/0007.tar", "DCIM/IMG_0001.jpg"),
            ("{archive}/site=1/0007.tar/DCIM/IMG_0001.jpg", "site=1/0007.tar", "DCIM/IMG_0001.jpg"),
            ("site=1/0007.tar#DCIM/IMG_0001.jpg", "site=1/0007.tar", "DCIM/IMG_0001.jpg"),
            ("./site=1/0007.tar/DCIM/IMG_0001.jpg", "site=1/0007.tar", "DCIM/IMG_0001.jpg"),
            ("site=2\\0007.tar\\DCIM\\IMG_0001.jpg", "site=2/0007.tar", "DCIM/IMG_0001.jpg"),
            ("site=1/0007.tar#only#0000.jpg", "site=1/0007.tar", "only#0000.jpg"),
            ("archive/site=2/0007.tar/x.jpg", "site=2/0007.tar", "x.jpg"),
            ("card.zip#A/0000.jpg", "site=2/card.zip", "A/0000.jpg"),
            ("A/0001.jpg", "site=2/card.zip", "A/0001.jpg"),
            ("DCIM/IMG_0000.jpg", "site=1/0007.tar", "DCIM/IMG_0000.jpg"),
            ("{archive}/site=3/cam/0000.jpg", "site=3/cam", "0000.jpg"),
            ("site=3/cam/0000.jpg", "site=3/cam", "0000.jpg"),
            ("loose/0000.jpg", "site=3/loose", "0000.jpg"),
        ],
    )
    def test_knows_every_form_of_a_path(self, archive: Path, tmp_path: Path, name: str, shard: str, key: str) -> None:
        path = write_json(tmp_path / "md.json", image(name.format(archive=archive), 0.5))
        found, index = self.find(archive, path)
        assert found == {shard: {key: [0.5]}}
        assert (index.counts["images"], index.counts["unmatched"]) == (1, 0)

    def test_says_which_share_of_the_names_is_of_no_image(self, archive: Path, tmp_path: Path) -> None:
        path = write_json(tmp_path / "md.json", image("card.zip#A/0000.jpg"), image("x/1.jpg"), image("x/2.jpg"))
        _, index = self.find(archive, path)
        line = index.unmatched("md.json")
        assert line == "md.json: 2 of 3 names (66.7%) match no image of the input, such as x/1.jpg, x/2.jpg"
        shards = discover([str(archive)], str(tmp_path / "out")).shards
        detections = Detections.at(str(path), 0.2, ("animal",))
        assert counted(detections, shards, str(tmp_path / "out")).counts == index.counts

    @pytest.mark.parametrize(
        ("name", "shard", "key"),
        [
            ("site=1/0007.tar/DCIM/a.mp4/frame000012.jpg", "site=1/0007.tar", "DCIM/a.mp4/frame000012.jpg"),
            ("site=3/cam/a.mp4/frame000012.jpg", "site=3/cam", "a.mp4/frame000012.jpg"),
            ("A/a.mp4/frame000012.jpg", "site=2/card.zip", "A/a.mp4/frame000012.jpg"),
            ("A/b.mp4/frame000012.jpg", "site=2/card.zip", "A/b.mp4/frame000012.jpg"),
        ],
    )
    def test_leads_a_frame_to_the_shard_of_its_clip(
        self, archive: Path, tmp_path: Path, name: str, shard: str, key: str
    ) -> None:
        members = pictures(2, "A/") | {"A/a.mp4": b"", "A/b.mp4/frame000012.jpg": b""}  # b is a folder of pictures
        write_zip(archive / "site=2/card.zip", members)
        found, index = self.find(archive, write_json(tmp_path / "md.json", image(name, 0.5), image("A/c.mp4/frame000012.jpg")))  # fmt: skip
        assert found == {shard: {key: [0.5]}}
        assert (index.counts["images"], index.examples) == (1, ["A/c.mp4/frame000012.jpg"])

    def test_keeps_what_is_known_of_a_clip(self, archive: Path, tmp_path: Path) -> None:
        box = {"category": "1", "conf": 0.5, "bbox": WHOLE, "frame_number": 30}
        clip = {"file": "site=3/cam/a.mp4", "frame_rate": 30.0, "frames_processed": [0, 30], "detections": [box]}
        failed = {"file": "site=3/cam/b.mp4", "failure": "no video", "detections": None}
        shards = discover([str(archive)], str(tmp_path / "out")).shards
        detections = Detections.at(str(write_json(tmp_path / "md.json", clip, failed)), 0.2, ("animal",))
        with indexed(detections, shards, shards, str(tmp_path / "out"), str(tmp_path / "index")) as index:
            (part,) = index.slices.values()
            seen = part.load()
        kept = Box("animal", 0.5, (0.0, 0.0, 1.0, 1.0), 30)
        assert seen == {"a.mp4": Seen((kept,), (0, 30)), "b.mp4": Seen(failed=True)}
        assert index.unread("md.json") == (
            "md.json: of 1 of 2 names it has no boxes but a failure, such as site=3/cam/b.mp4"
        )

    @pytest.mark.parametrize(
        "name",
        ["0007.tar/DCIM/IMG_0001.jpg", "DCIM/IMG_0001.jpg", "0000.jpg", "site=3/cam/DCIM/0000.jpg", "site=9/1.tar#A/0001.jpg"],
    )  # fmt: skip
    def test_leaves_out_what_is_ambiguous_or_unknown(self, archive: Path, tmp_path: Path, name: str) -> None:
        found, index = self.find(archive, write_json(tmp_path / "md.json", image(name, 0.5)))
        assert (found, index.counts["unmatched"], index.examples) == ({}, 1, [name])

    def test_takes_a_key_alone_where_there_is_one_shard(self, archive: Path, tmp_path: Path) -> None:
        path = write_json(tmp_path / "md.json", image("DCIM/IMG_0001.jpg", 0.5))
        assert self.find(archive, path, "/site=1")[0] == {"site=1/0007.tar": {"DCIM/IMG_0001.jpg": [0.5]}}
        path = write_json(tmp_path / "md.json", image("0000.jpg", 0.5))
        assert self.find(archive, path, "/site=3/cam")[0] == {"site=3/cam": {"0000.jpg": [0.5]}}

    @pytest.mark.parametrize("order", [1, -1])
    def test_believes_the_more_specific_of_two_names_and_the_first_of_equals(
        self, archive: Path, tmp_path: Path, order: int
    ) -> None:
        names = [image(f"{archive}/site=2/card.zip#A/0000.jpg", 0.5), image("site=2/card.zip/A/0000.jpg", 0.6), image("A/0000.jpg", 0.7)]  # fmt: skip
        equal = [image("site=3/cam/0000.jpg", 0.8), image("site=3/cam/0000.jpg", 0.9)]
        found, index = self.find(archive, write_json(tmp_path / "md.json", *names[::order], *equal))
        assert found == {"site=2/card.zip": {"A/0000.jpg": [0.5]}, "site=3/cam": {"0000.jpg": [0.8]}}
        assert index.counts["images"] == 2

    def test_puts_the_rows_of_parquet_together_wherever_they_stand(self, archive: Path, tmp_path: Path) -> None:
        rows = [
            (name, "animal", conf, WHOLE)
            for conf in (0.5, 0.6)
            for name in ("card.zip/A/0000.jpg", "gone.jpg", "A/0001.jpg")
        ]
        found, index = self.find(archive, write_parquet(tmp_path / "md.parquet", rows))
        assert found == {"site=2/card.zip": {"A/0000.jpg": [0.5, 0.6], "A/0001.jpg": [0.5, 0.6]}}
        assert (index.counts["images"], index.counts["unmatched"]) == (2, 1)


class TestUnmatchedNames:
    def dry_run(self, folder: Path, model: Path, *options: str) -> int:
        inputs = [str(folder / "archive"), str(folder / "out"), "--model", str(model), "--device", "cpu", "--dry-run"]
        return main([*inputs, "--detections", str(folder / "md.json"), *options])

    def test_are_shown_by_a_dry_run_and_an_error_where_that_is_wanted(
        self, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_tar(tmp_path / "archive/a.tar", pictures(2))
        write_folder(tmp_path / "archive/cam", pictures(1, ""))
        write_json(tmp_path / "md.json", image("a.tar/DCIM/IMG_0000.jpg", 0.5), image("b.tar/1.jpg", 0.5))
        assert self.dry_run(tmp_path, tiny_model) == 0
        assert (
            "md.json: 1 of 2 names (50.0%) match no image of the input, such as b.tar/1.jpg" in capsys.readouterr().out
        )
        assert self.dry_run(tmp_path, tiny_model, "--detections-unmatched", "error") == 2
        assert "1 of 2 names (50.0%) match no image" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_that_do_not_exist_are_no_error(
        self, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_tar(tmp_path / "archive/a.tar", pictures(2))
        write_json(tmp_path / "md.json", image("a.tar/DCIM/IMG_0000.jpg", 0.5))
        assert self.dry_run(tmp_path, tiny_model, "--detections-unmatched", "error") == 0
        assert "match no image" not in capsys.readouterr().out
