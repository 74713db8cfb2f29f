"""A detector's output is read and led to the images that it means, or refused in one line."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.archives import pictures, write_folder, write_tar, write_zip
from tests.support.reading import memory_below
from trapline.detections.index import Index, indexed
from trapline.detections.megadetector import Detections
from trapline.errors import TransientError, UsageError
from trapline.sources.shards import discover

CATEGORIES = {"1": "animal", "2": "person", "3": "vehicle"}
WHOLE = [0.0, 0.0, 1.0, 1.0]


def image(file: str, *confidences: float) -> dict[str, Any]:
    return {"file": file, "detections": [{"category": "1", "conf": conf, "bbox": WHOLE} for conf in confidences]}


def write_json(path: Path, *images: dict[str, Any], **values: Any) -> Path:
    whole = {"images": images, "detection_categories": CATEGORIES, "info": {"format_version": "1.3"}} | values
    path.write_text(json.dumps({name: value for name, value in whole.items() if value is not None}))
    return path


def write_parquet(path: Path, rows: list[tuple[Any, ...]]) -> Path:
    names = ("file", "category", "conf", "bbox")
    pq.write_table(pa.table({name: [row[place] for row in rows] for place, name in enumerate(names)}), path)
    return path


def read(
    path: Path, threshold: float = 0.2, categories: tuple[str, ...] = ("animal",)
) -> tuple[dict[str, Any], Counter[str]]:
    """Confidences by file, and the counts."""
    counts: Counter[str] = Counter()
    found = Detections.at(str(path), threshold, categories).files(counts)
    return {file: [box.confidence for box in boxes] for file, boxes in found}, counts


class TestReading:
    def test_keeps_boxes_that_are_sure_enough_and_of_the_categories(self, tmp_path: Path) -> None:
        other = {"category": "2", "conf": 0.7, "bbox": WHOLE}
        some = {"file": "a.jpg", "detections": [*image("", 0.5, 0.1, 0.2)["detections"], other]}
        path = write_json(tmp_path / "md.json", some, image("b.jpg"), {"file": "c.jpg", "failure": "no image"})
        found, counts = read(path)
        assert found == {"a.jpg": [0.5, 0.2], "b.jpg": [], "c.jpg": []}
        assert counts == {"boxes": 4, "below_threshold": 1, "other_category": 1, "failures": 1}
        for names in (("animal", "person"), ("1", "2")):
            assert read(path, 0.5, names)[0]["a.jpg"] == [0.5, 0.7]

    def test_takes_numbers_that_are_none_as_python_writes_them(self, tmp_path: Path) -> None:
        nan, infinity = float("nan"), float("inf")
        boxes = [{"category": "1", "conf": conf, "bbox": bounds} for conf, bounds in [(nan, WHOLE), (0.5, [nan, 0, 1, 1]), (0.5, [0, 0, -infinity, 1]), (0.5, [None, 0, 1, 1]), (0.75, WHOLE)]]  # fmt: skip
        path = write_json(tmp_path / "md.json", *[{"file": f"NaN,{n}.jpg", "detections": boxes} for n in range(5000)])
        assert "NaN, 0" in path.read_text()
        found, counts = read(path)
        assert found == {f"NaN,{n}.jpg": [0.75] for n in range(5000)}
        assert counts == {"boxes": 25_000, "invalid": 20_000}

    def test_holds_little_of_it(self, tmp_path: Path) -> None:
        path = write_json(tmp_path / "md.json", *[image(f"{n}.jpg", 0.5, 0.6) for n in range(40_000)])
        assert path.stat().st_size > 5_000_000
        with memory_below(2_000_000):
            assert sum(1 for _ in Detections.at(str(path), 0.2, ("animal",)).files(Counter())) == 40_000

    def test_of_parquet_has_a_row_per_box(self, tmp_path: Path) -> None:
        rows = [("a.jpg", 1, 0.5, WHOLE), ("a.jpg", 1, 0.1, WHOLE), ("a.jpg", 2, 0.9, WHOLE), ("b.jpg", None, None, None), ("c.jpg", 1, 0.5, [0.5, 0.5, float("nan"), 1])]  # fmt: skip
        found, counts = read(write_parquet(tmp_path / "md.parquet", rows))
        assert found == {"a.jpg": [0.5], "b.jpg": [], "c.jpg": []}
        assert counts == {"boxes": 4, "below_threshold": 1, "other_category": 1, "invalid": 1}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"info": {"format_version": "2.0"}}, "its format_version is 2.0, and only 1.x is known"),
        ({"detection_categories": None}, "has no object `detection_categories`"),
        ({"images": None}, "has no list `images`"),
        ({"images": {"a": 1}}, "has no list `images`"),
        ({"images": [{"detections": []}]}, "image 1 names no `file`"),
        ({"images": [image("a"), {"file": "b"}]}, "image 2 (b) has neither `detections` nor `failure`"),
        ({"images": [{"file": "a", "detections": [{"conf": 1, "category": "1"}]}]}, "a detection of image 1 is no box"),
        ({"images": [{"file": "a", "detections": [{"conf": 1, "category": "1", "bbox": [1, 2, 3]}]}]}, "four numbers"),
        ({"images": [{"file": "a", "detections": [{"conf": "x", "category": "1", "bbox": WHOLE}]}]}, "is no box with"),
    ],
)  # fmt: skip
def test_malformed_json_is_one_line(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    path = write_json(tmp_path / "md.json", **change)
    with pytest.raises(UsageError, match=rf"^{re.escape(str(path))}: .*{re.escape(expected)}.*; .+$"):
        read(path)


def test_what_is_no_json_no_parquet_or_has_no_such_category_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": [{"file": "a.jpg"')
    (tmp_path / "b.json").write_text("")
    (tmp_path / "c.parquet").write_bytes(b"no Parquet")
    write_parquet(tmp_path / "d.parquet", [("a.jpg", 1, 0.5, [1.0, 2.0])])
    pq.write_table(pa.table({"file": ["a.jpg"]}), tmp_path / "e.parquet")
    write_json(tmp_path / "f.json", image("a.jpg"))
    for name, expected in {
        "a.json": "no JSON",
        "b.json": "no JSON",
        "c.parquet": "no sound Parquet",
        "d.parquet": "a detection of a.jpg is no box",
        "e.parquet": "has no column 'category'",
    }.items():
        with pytest.raises(UsageError, match=f"{name}: {expected}") as error:
            read(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=r"f.json: has no category 'bird' but animal, person, vehicle"):
        read(tmp_path / "f.json", categories=("bird",))


def test_a_file_that_changes_after_it_was_hashed_is_not_believed(tmp_path: Path) -> None:
    path = write_json(tmp_path / "md.json", image("a.jpg", 0.5))
    before = Detections.at(str(path), 0.2, ("animal",))
    write_json(path, image("a.jpg", 0.5, 0.75))
    with pytest.raises(TransientError, match="changed"):
        list(before.files(Counter()))


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
                    key: [box.confidence for box in boxes] for key, boxes in part.load().items()
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
