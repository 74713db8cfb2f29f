"""A detector's output is read and led to the images that it means, or refused in one line."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.reading import memory_below
from trapline.decoding.crops import Box
from trapline.detections.megadetector import Detections
from trapline.detections.shard_boxes import Seen
from trapline.errors import TransientError, UsageError

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
    return {file: [box.confidence for box in seen.boxes] for file, seen in found}, counts


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


BOX = {"category": "1", "conf": 0.5, "bbox": WHOLE}


class TestForms:
    """One image with a box of an animal and one without, in every form that is read."""

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
    @pytest.mark.parametrize("zipped", [False, True])
    def test_every_encoding_of_json_is_read(self, tmp_path: Path, encoding: str, zipped: bool) -> None:
        text = write_json(tmp_path / "a.json", image("Frühling/É.jpg", 0.5), image("b.jpg")).read_text()
        data = json.dumps(json.loads(text), ensure_ascii=False).encode(encoding)
        path = tmp_path / ("b.json.gz" if zipped else "b.json")
        path.write_bytes(gzip.compress(data) if zipped else data)
        assert read(path)[0] == {"Frühling/É.jpg": [0.5], "b.jpg": []}

    def test_speciesnets_predictions_are_read(self, tmp_path: Path) -> None:
        predictions = [
            {"filepath": "a.jpg", "detections": [{**BOX, "label": "animal"}, {**BOX, "category": "2"}], "prediction": "x"},
            {"filepath": "b.jpg", "detections": []},
            {"filepath": "c.jpg", "failures": ["DETECTOR"]},
        ]  # fmt: skip
        (tmp_path / "a.json").write_text(json.dumps({"predictions": predictions}))
        found, counts = read(tmp_path / "a.json")
        assert found == {"a.jpg": [0.5], "b.jpg": [], "c.jpg": []}
        assert (counts["failures"], counts["other_category"]) == (1, 1)

    def test_a_list_of_images_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text(json.dumps([image("a.jpg", 0.5), image("b.jpg")]))
        assert read(tmp_path / "a.json")[0] == {"a.jpg": [0.5], "b.jpg": []}

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ({"annotations": [{"img_id": "a.jpg", "bbox": [[1, 2, 3, 4]]}], "categories": []}, "save_detection_timelapse_json"),
            ({"images": [{"file": "a.jpg", "detections": [[0, 0, 1, 1, 0.5]]}], "detection_categories": CATEGORIES}, "before 1.0; convert"),
            ({"images": [], "info": {"format_version": "0.6"}, "detection_categories": CATEGORIES}, "0.6, and only 1.x is known; convert"),
        ],
    )  # fmt: skip
    def test_a_form_that_is_not_read_is_refused_with_what_to_do(
        self, tmp_path: Path, content: dict[str, Any], expected: str
    ) -> None:
        (tmp_path / "a.json").write_text(json.dumps(content))
        with pytest.raises(UsageError, match=re.escape(expected)):
            read(tmp_path / "a.json")

    def test_a_damaged_gzip_and_another_encoding_are_one_line(self, tmp_path: Path) -> None:
        data = write_json(tmp_path / "a.json", *[image(f"{n}.jpg", 0.5) for n in range(500)]).read_bytes()
        (tmp_path / "a.json.gz").write_bytes(gzip.compress(data)[:-200])
        (tmp_path / "b.json").write_bytes(b'{"images": [{"file": "Fr\xfchling.jpg", "detections": []}]}')
        for name, expected in {"a.json.gz": "no sound gzip", "b.json": "no JSON"}.items():
            with pytest.raises(UsageError, match=f"{name}: {expected}"):
                read(tmp_path / name)


class TestClips:
    """Entries as MegaDetector's `process_video` writes them."""

    def entry(self, **values: Any) -> dict[str, Any]:
        boxes = [{"category": "1", "conf": conf, "bbox": WHOLE, "frame_number": frame} for conf, frame in ((0.9, 10), (0.1, 10), (0.8, 20))]  # fmt: skip
        return {"file": "a.mp4", "frame_rate": 30.0, "frames_processed": [0, 10, 20], "detections": boxes} | values

    def seen(self, path: Path) -> tuple[dict[str, Seen], Counter[str]]:
        counts: Counter[str] = Counter()
        return dict(Detections.at(str(path), 0.2, ("animal",)).files(counts)), counts

    def test_have_boxes_of_frames_and_say_which_frames_were_processed(self, tmp_path: Path) -> None:
        failed = {"file": "b.mp4", "frame_rate": -1, "frames_processed": [], "failure": "x", "detections": None}
        older = self.entry(file="c.mp4")
        del older["frames_processed"]
        found, counts = self.seen(write_json(tmp_path / "md.json", self.entry(), failed, older))
        boxes = tuple(Box("animal", conf, (0.0, 0.0, 1.0, 1.0), frame) for conf, frame in ((0.9, 10), (0.8, 20)))
        assert found == {"a.mp4": Seen(boxes, (0, 10, 20)), "b.mp4": Seen(failed=True), "c.mp4": Seen(boxes)}
        assert counts == {"boxes": 6, "below_threshold": 2, "failures": 1}

    def test_and_boxes_of_no_frame_are_left_out_and_counted(self, tmp_path: Path) -> None:
        found, counts = self.seen(write_json(tmp_path / "md.json", image("a.mp4", 0.9, 0.1), image("b.jpg", 0.9)))
        assert (found["a.mp4"], len(found["b.jpg"].boxes)) == (Seen(), 1)
        assert counts == {"boxes": 3, "without_frame": 2}

    @pytest.mark.parametrize("number", [-1, 1.5, "10", True, [1], 2**31])
    def test_frames_without_a_number_are_one_line(self, tmp_path: Path, number: Any) -> None:
        box = {"category": "1", "conf": 0.9, "bbox": WHOLE, "frame_number": number}
        for entry in (self.entry(detections=[box]), self.entry(frames_processed=[0, number])):
            with pytest.raises(
                UsageError, match=r"md.json: `frame(s_processed|_number)` of (a detection of )?image 1 "
            ):
                self.seen(write_json(tmp_path / "md.json", entry))
