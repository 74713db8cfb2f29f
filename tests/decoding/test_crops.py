"""What is cut out of a picture, from the geometry of one box to whole runs whose pixels are known by construction."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import pil_to_tensor, resize

from tests.support.archives import jpeg, pictures, sidecar, write_folder, write_tar, write_zip
from tests.support.clips import clip
from tests.support.numerics import assert_as_exact, birders
from trapline.cli import duplicates, rescore, search
from trapline.cli.classify import main
from trapline.cli.verify import main as verify
from trapline.decoding.crops import Box, Cropping, Crops
from trapline.decoding.decode import decode
from trapline.decoding.sandbox import Sandbox
from trapline.detections.shard_boxes import Seen, ShardBoxes
from trapline.run.chunks import read_chunks
from trapline.run.messages import DecodedChunk
from trapline.sources.shards import discover

SIZE = (64, 64)
EXACTLY = Cropping(padding=0, square=False, whole=True)
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 0.5, 1.0)


def halves(left: str = "red", right: str = "blue", size: tuple[int, int] = (200, 100), form: str = "PNG") -> bytes:
    """A picture of two solid colours."""
    image = Image.new("RGB", size, right)
    image.paste(left, (0, 0, size[0] // 2, size[1]))
    sink = io.BytesIO()
    image.save(sink, form)
    return sink.getvalue()


def box(*bounds: float, category: str = "animal", confidence: float = 0.9) -> Box:
    made = Box.clipped(category, confidence, bounds)  # type: ignore[arg-type]
    assert made
    return made


class TestABox:
    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ((0.1, 0.2, 0.3, 0.4), (0.1, 0.2, 0.3, 0.4)),
            ((-0.25, 0.5, 0.5, 0.25), (0.0, 0.5, 0.25, 0.25)),
            ((0.5, 0.75, 2.0, 0.5), (0.5, 0.75, 0.5, 0.25)),
            ((-1.0, -1.0, 3.0, 3.0), (0.0, 0.0, 1.0, 1.0)),
        ],
    )
    def test_is_clipped_to_the_picture(self, given: tuple[float, ...], kept: tuple[float, ...]) -> None:
        assert box(*given).bounds == kept

    @pytest.mark.parametrize(
        "given",
        [(0.1, 0.1, 0, 0.5), (0.5, 0.5, -0.1, 0.1), (1.0, 0, 0.5, 1), (-0.5, 0, 0.5, 1), (float("nan"), 0, 1, 1)],
    )
    def test_with_nothing_in_the_picture_is_none(self, given: tuple[float, float, float, float]) -> None:
        assert Box.clipped("animal", 0.9, given) is None

    @pytest.mark.parametrize(
        ("bounds", "padding", "square", "region"),
        [  # of a picture of 200 x 100: top, left, height, width
            (LEFT, 0, False, (0, 0, 100, 100)),
            ((0.25, 0.25, 0.5, 0.5), 0, False, (25, 50, 50, 100)),
            ((0.25, 0.25, 0.5, 0.5), 0, True, (0, 50, 100, 100)),
            ((0.4, 0.4, 0.2, 0.2), 0.1, False, (36, 76, 28, 48)),
            ((0.4, 0.4, 0.2, 0.2), 0.1, True, (26, 76, 48, 48)),
            ((0.0, 0.9, 0.2, 0.1), 0.5, True, (40, 0, 60, 60)),  # moved up from the lower edge
            ((0.1, 0.0, 0.8, 0.1), 0, True, (0, 20, 100, 160)),  # too wide for a square
            ((0.999, 0.999, 0.001, 0.001), 0, False, (99, 199, 1, 1)),
            ((0.0, 0.0, 1.0, 1.0), 9, True, (0, 0, 100, 200)),
        ],
    )
    def test_becomes_a_region_of_pixels(
        self, bounds: tuple[float, ...], padding: float, square: bool, region: tuple[int, ...]
    ) -> None:
        assert Cropping(padding, square, True).region(box(*bounds), 200, 100) == region


class TestPixels:
    def test_are_those_of_the_full_picture_cropped_and_resized(self) -> None:
        image = Image.open(io.BytesIO(jpeg(3, (300, 200))))
        sink = io.BytesIO()
        image.save(sink, "PNG")
        boxes = (box(0.1, 0.2, 0.3, 0.4), box(0.5, 0.5, 0.5, 0.5))
        pixels, facts = decode(sink.getvalue(), SIZE, crops=Crops(boxes, EXACTLY))
        assert (facts.status, facts.width, facts.height) == ("ok", 300, 200)
        cuts = [image.crop((30, 40, 120, 120)), image.crop((150, 100, 300, 200))]
        expected = [resize(pil_to_tensor(cut), list(SIZE), InterpolationMode.BICUBIC, antialias=True) for cut in cuts]
        assert pixels is not None
        assert torch.equal(pixels, torch.stack(expected))

    def test_of_a_box_over_one_half_have_nothing_of_the_other(self) -> None:
        pixels, _ = decode(halves(), SIZE, mode="fastest", crops=Crops((box(*LEFT), box(*RIGHT)), EXACTLY))
        assert pixels is not None
        assert pixels.shape == (2, 3, *SIZE)
        assert (pixels[0] == torch.tensor([255, 0, 0], dtype=torch.uint8).view(3, 1, 1)).all()
        assert (pixels[1] == torch.tensor([0, 0, 255], dtype=torch.uint8).view(3, 1, 1)).all()

    def test_are_of_the_full_size_also_where_whole_pictures_are_shrunk(self) -> None:
        data, crops = jpeg(5, (1600, 1200)), Crops((box(0.4, 0.4, 0.1, 0.1),), EXACTLY)
        (exact, _), (fast, _) = decode(data, SIZE, crops=crops), decode(data, SIZE, mode="fastest", crops=crops)
        assert exact is not None
        assert fast is not None
        assert torch.equal(exact, fast)
        assert decode(data, SIZE)[0] is not None

    @pytest.mark.parametrize("orientation", [1, 3, 6, 8])
    def test_are_those_that_the_detector_saw_when_it_turned_the_picture(self, orientation: int) -> None:
        image = Image.open(io.BytesIO(jpeg(1, (120, 80))))
        exif = image.getexif()
        exif[0x0112] = orientation
        sink = io.BytesIO()
        image.save(sink, "PNG", exif=exif)
        seen = ImageOps.exif_transpose(Image.open(io.BytesIO(sink.getvalue())))
        x, y, width, height = 0.25, 0.5, 0.25, 0.25
        cut = seen.crop(
            tuple(
                round(v)
                for v in (x * seen.width, y * seen.height, (x + width) * seen.width, (y + height) * seen.height)
            )
        )  # type: ignore[arg-type]
        back = cut.rotate({1: 0, 3: 180, 6: 90, 8: 270}[orientation], expand=True)
        pixels, _ = decode(sink.getvalue(), SIZE, crops=Crops((box(x, y, width, height),), EXACTLY))
        assert pixels is not None
        expected = resize(pil_to_tensor(back), list(SIZE), InterpolationMode.BICUBIC, antialias=True)
        assert torch.equal(pixels[0], expected)

    def test_of_a_picture_that_is_none_are_none(self) -> None:
        pixels, facts = decode(b"x", SIZE, crops=Crops((box(*LEFT),), EXACTLY))
        assert (pixels, facts.status) == (None, "failed")

    def test_come_out_of_a_process_of_their_own_just_the_same(self) -> None:
        sandbox = Sandbox()
        try:
            crops = Crops((box(*LEFT), box(*RIGHT)), EXACTLY)
            (one, _), (other, _) = sandbox(halves(), SIZE, crops=crops), decode(halves(), SIZE, crops=crops)
        finally:
            sandbox.close()
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)


class TestFramesOfAClip:
    TIMES = np.arange(40) / 10  # ten a second, four seconds

    def at(self, seconds: float, crops: Crops) -> list[float] | None:
        """Confidences of the boxes of a frame."""
        found = crops.of_frame(seconds, self.TIMES)
        return None if found is None else [each.confidence for each in found.boxes]

    def boxes(self, **frames: float) -> tuple[Box, ...]:
        return tuple(Box("animal", confidence, LEFT, int(name[1:])) for name, confidence in frames.items())

    def test_have_the_boxes_of_the_nearest_frame_that_was_processed(self) -> None:
        crops = Crops(self.boxes(_10=0.5, _20=0.75), EXACTLY, (0, 10, 20, 30))
        found = [self.at(seconds, crops) for seconds in (0.0, 0.6, 1.0, 1.4, 1.6, 2.4, 2.6, 3.0)]
        assert found == [None, [0.5], [0.5], [0.5], [0.75], [0.75], None, None]

    def test_that_are_far_from_all_of_these_have_none(self) -> None:
        crops = Crops(self.boxes(_10=0.5, _39=0.75), EXACTLY, (10, 39))
        found = [self.at(seconds, crops) for seconds in (0.4, 0.5, 1.5, 1.6, 3.3, 3.4, 3.9)]
        assert found == [None, [0.5], [0.5], None, None, [0.75], [0.75]]

    def test_have_boxes_also_where_it_is_not_known_which_frames_were_processed(self) -> None:
        crops = Crops(self.boxes(_10=0.5), EXACTLY)
        assert [self.at(seconds, crops) for seconds in (1.0, 1.3, 1.6)] == [[0.5], [0.5], None]

    def test_are_those_that_the_clip_has(self) -> None:
        assert self.at(3.9, Crops(self.boxes(_40=0.5), EXACTLY, (40,))) is None
        assert self.at(3.9, Crops((box(*LEFT),), EXACTLY)) is None  # of a picture


class TestChunks:
    def read(self, tmp_path: Path, boxes: dict[str, int], whole: bool = True, images: int = 4) -> list[DecodedChunk]:
        path = write_tar(tmp_path / "a.tar", {name: jpeg(7) if count >= 0 else b"" for name, count in boxes.items()})
        found = {name: Seen((box(*LEFT),) * abs(count)) for name, count in boxes.items()}
        (shard,) = discover((str(path),), str(tmp_path / "out")).shards
        chunks = list(
            read_chunks(
                shard, SIZE, images, detected=ShardBoxes(found | {"gone.jpg": Seen()}, Cropping(0, True, whole))
            )
        )
        assert all(isinstance(chunk, DecodedChunk) for chunk in chunks)
        return chunks  # type: ignore[return-value]

    def test_stay_bounded_where_one_image_has_many_boxes(self, tmp_path: Path) -> None:
        chunks = self.read(tmp_path, {"a.jpg": 1, "b.jpg": 50, "c.jpg": 0, "d.jpg": 2})
        assert max(len(chunk.pixels) for chunk in chunks) == 4
        assert sum(len(chunk.pixels) for chunk in chunks) == 1 + 50 + 1 + 2
        rows = [
            (key, crop)
            for chunk in chunks
            for key, crop in zip(chunk.rows["key"].to_pylist(), chunk.rows["crop"].to_pylist(), strict=True)
        ]
        expected = [("a.jpg", None), ("a.jpg", 1), ("b.jpg", None), *(("b.jpg", n) for n in range(1, 51))]
        assert rows == [*expected, ("c.jpg", None), ("d.jpg", None), ("d.jpg", 1), ("d.jpg", 2)]
        for chunk in chunks:
            assert chunk.with_pixels.sum() == len(chunk.pixels)
        assert [chunk.end and chunk.end.unmatched for chunk in chunks] == [None] * (len(chunks) - 1) + [["gone.jpg"]]
        assert [chunk.index for chunk in chunks] == list(range(len(chunks)))

    def test_stay_bounded_where_nothing_is_to_be_predicted(self, tmp_path: Path) -> None:
        chunks = self.read(tmp_path, {f"{n}.jpg": 0 for n in range(20)}, whole=False, images=2)
        assert [len(chunk.rows) for chunk in chunks] == [8, 8, 4]
        assert not any(len(chunk.pixels) for chunk in chunks)

    def test_an_image_that_failed_has_no_crops(self, tmp_path: Path) -> None:
        (chunk,) = self.read(tmp_path, {"bad.jpg": -2})
        assert chunk.rows["crop"].to_pylist() == [None]
        assert chunk.rows["status"].to_pylist() == ["failed"]


def found(file: str, *boxes: tuple[Any, ...], **more: Any) -> dict[str, Any]:
    """An entry of the detector's; of each box its bounds, and perhaps its confidence and category."""
    detections = []
    for bounds, *rest in boxes:
        confidence, category = (*rest, *(0.9, "1")[len(rest) :])
        detections.append({"category": category, "conf": confidence, "bbox": list(bounds)})
    return {"file": file, "detections": detections, **more}


def write_detections(path: Path, *images: dict[str, Any]) -> Path:
    categories = {"1": "animal", "2": "person", "3": "vehicle"}
    whole = {"images": list(images), "detection_categories": categories, "info": {"format_version": "1.4"}}
    path.write_text(json.dumps(whole))
    return path


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, ray_session: None) -> Path:
    """A folder with `archive`, what a detector found in it, and the `output`."""
    folder = tmp_path_factory.mktemp("crops")
    archive = folder / "archive"
    write_tar(archive / "site=1/0007.tar", {"DCIM/two.png": halves(), "DCIM/none.png": halves("lime"), "bad.jpg": b""})
    write_zip(archive / "site=2/card.zip", {"DCIM/unseen.jpg": jpeg(1)})
    write_folder(
        archive / "site=3/loose", {"one.png": halves("white", "black"), "one.json": sidecar(a=1), "blind.jpg": jpeg(2)}
    )
    write_detections(
        folder / "md.json",
        found(
            "site=1/0007.tar#DCIM/two.png", (LEFT,), (RIGHT, 0.2), (LEFT, 0.19), (LEFT, 0.9, "2"), ((0.5, 0.5, 0, 0),)
        ),
        found(f"{archive}/site=1/0007.tar/DCIM/none.png"),
        found("site=1/0007.tar/bad.jpg", (LEFT,)),
        found("site=1/0007.tar/gone.jpg", (LEFT,)),
        found("site=3/loose/one.png", ((0.5, -1.0, 2.0, 3.0), 0.75)),
        {"file": "site=3/loose/blind.jpg", "failure": "Failure image access", "detections": None},
        found("site=9/0001.jpg", (LEFT,)),
    )
    assert run(folder, tiny_model) == 0
    return folder


def run(folder: Path, model: Path, *options: str, output: str = "output") -> int:
    crops = ["--detections", str(folder / "md.json"), "--crop-padding", "0", "--precision", "fp32", *options]
    return main([str(folder / "archive"), str(folder / output), "--model", str(model), *crops])


def ask(folder: Path, query: str, output: str = "output") -> list[Any]:
    return duckdb.sql(query.replace("ROWS", f"read_parquet('{folder}/{output}/**/*.parquet')")).fetchall()


def manifest(folder: Path, output: str = "output") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(max((folder / output / "_trapline/runs").iterdir()).read_text())
    return found


class TestARun:
    def test_has_one_row_per_image_and_one_per_crop(self, night: Path) -> None:
        rows = ask(
            night,
            "select key, crop, status, species is not null, detection_category from ROWS order by key, crop nulls first",
        )
        assert rows == [
            ("DCIM/none.png", None, "ok", True, None),
            ("DCIM/two.png", None, "ok", False, None),
            ("DCIM/two.png", 1, "ok", True, "animal"),
            ("DCIM/two.png", 2, "ok", True, "animal"),
            ("DCIM/unseen.jpg", None, "ok", True, None),
            ("bad.jpg", None, "failed", False, None),
            ("blind.jpg", None, "ok", True, None),
            ("one.png", None, "ok", False, None),
            ("one.png", 1, "ok", True, "animal"),
        ]
        assert ask(night, "select count(*), count(distinct (image_uri, crop)) from ROWS") == [(9, 9)]
        assert ask(night, "select metadata from ROWS where key = 'one.png'") == [('{"a": 1}',)] * 2

    def test_keeps_the_boxes_as_the_detector_gave_them_clipped(self, night: Path) -> None:
        ((box, confidence),) = ask(
            night, "select box, detection_confidence from ROWS where key = 'one.png' and crop = 1"
        )
        assert tuple(box) == (0.5, 0.0, 0.5, 1.0)
        assert confidence == 0.75
        schema = pq.read_schema(night / "output/site=3/loose/images.parquet")
        assert [str(schema.field(name).type) for name in ("crop", "box", "detection_confidence", "detection_category")] == [
            "int16", "list<element: float>", "float", "string",
        ]  # fmt: skip

    def test_predicts_from_the_pixels_of_the_crop(self, night: Path, tiny_model: Path) -> None:
        crops = [("DCIM/two.png", 1, "red"), ("DCIM/two.png", 2, "blue"), ("one.png", 1, "black")]
        pixels = np.stack([np.asarray(Image.new("RGB", SIZE, colour)).transpose(2, 0, 1) for _, _, colour in crops])
        found = np.float32(
            [
                ask(night, f"select embedding from ROWS where key = '{key}' and crop = {crop}")[0][0]
                for key, crop, _ in crops
            ]
        )
        expected = birders(tiny_model, pixels)
        assert_as_exact(found, expected.peer["embedding"], expected.truth["embedding"])

    def test_is_accounted_for(self, night: Path) -> None:
        account = manifest(night)
        assert account["images"] == {"ok": 5, "salvaged": 0, "failed": 1}
        assert account["crops"] == 3
        assert account["detections"] == {
            "images": 6, "failures": 1, "boxes": 9, "below_threshold": 1, "other_category": 1, "invalid": 1,
            "repeated": 0, "unmatched": 2,
            "examples": ["site=9/0001.jpg", f"{night}/archive/site=1/0007.tar#gone.jpg"],
        }  # fmt: skip
        assert not list((night / "output/_trapline").glob("detections/*"))

    def test_passes_verification_and_is_done(
        self, night: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert verify([str(night / "archive"), str(night / "output")]) == 0
        assert "6 images in 3 shards; 0 shards differ" in capsys.readouterr().out
        assert run(night, tiny_model) == 0
        assert "all 3 shards (6 images) are done" in capsys.readouterr().out

    def test_says_crops_and_what_matched_nothing(
        self, night: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(night, tiny_model, "--without-boxes", "skip", output="skipped") == 0
        said = capsys.readouterr().out
        assert "6 = 5 ok, 1 failed" in said
        assert "3 (boxes left out: 1 below threshold, 1 other category, 1 invalid)" in " ".join(said.split())
        assert "of 1 of 7 names it has no boxes but a failure, such as site=3/loose/blind.jpg" in " ".join(said.split())
        assert "2 detector entries matched no image that was read:\n  site=9/0001.jpg\n" in said
        assert ask(night, "select count(*) from ROWS where species is not null and crop is null", "skipped") == [(0,)]
        assert ask(night, "select count(*) from ROWS where crop is null", "skipped") == [(6,)]

    @pytest.mark.parametrize(
        ("options", "name"),
        [
            (["--detection-threshold", "0.5"], "detection_threshold"),
            (["--detection-categories", "person"], "detection_categories"),
            (["--no-crop-square"], "crop_square"),
            (["--without-boxes", "skip"], "without_boxes"),
        ],
    )
    def test_with_other_crops_is_refused(
        self, night: Path, tiny_model: Path, options: list[str], name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(night, tiny_model, *options) == 2
        assert f"written with different settings ({name}: " in capsys.readouterr().err

    def test_is_redone_on_request_where_the_detector_has_changed_its_mind(
        self, night: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "archive").symlink_to(night / "archive")
        write_detections(tmp_path / "md.json", found("card.zip#DCIM/unseen.jpg", (LEFT,)))
        assert run(tmp_path, tiny_model) == 0
        write_detections(tmp_path / "md.json", found("card.zip#DCIM/unseen.jpg", (LEFT,), (RIGHT,)))
        assert run(tmp_path, tiny_model) == 2
        assert "detections_sha256" in capsys.readouterr().err
        assert run(tmp_path, tiny_model, "--replace") == 0
        assert ask(tmp_path, "select max(crop), count(*) from ROWS where key = 'DCIM/unseen.jpg'") == [(2, 3)]


def test_crops_of_images_and_clips_that_did_not_change_are_carried_over(
    tmp_path: Path, tiny_model: Path, ray_session: None
) -> None:
    loose = write_folder(tmp_path / "archive/loose", pictures(3, prefix="") | {"film.mp4": clip()})
    film = found("loose/film.mp4", (LEFT,), (RIGHT,), frame_rate=10.0, frames_processed=[0, 10, 20])
    for each in film["detections"]:
        each["frame_number"] = 10
    images = found("loose/0001.jpg", (LEFT,), (RIGHT,)), found("loose/new.jpg", (LEFT,))
    write_detections(tmp_path / "md.json", *images, film)
    assert run(tmp_path, tiny_model) == 0
    assert manifest(tmp_path)["detections"]["unmatched"] == 1
    before = ask(tmp_path, "select * from ROWS order by key, frame_seconds, crop")
    parts = ask(
        tmp_path,
        """
        select frame_seconds, crop, embedding from ROWS where key = 'film.mp4'
        order by frame_seconds nulls first, crop nulls first""",
    )
    assert [(seconds, crop, vector is not None) for seconds, crop, vector in parts] == [
        (None, None, True), (0.0, None, True), (1.0, None, False), (1.0, 1, True), (1.0, 2, True), (2.0, None, True),
    ]  # fmt: skip
    np.testing.assert_allclose(parts[0][2], np.mean([parts[3][2], parts[4][2]], axis=0), atol=1e-6)
    write_folder(loose, {"new.jpg": jpeg(9)})
    left_by_a_run_that_was_killed = tmp_path / "output/_trapline/detections/20260101T000000Z-abcdef"
    left_by_a_run_that_was_killed.parent.mkdir(exist_ok=True)
    left_by_a_run_that_was_killed.write_bytes(b"boxes")
    assert run(tmp_path, tiny_model) == 0
    assert not left_by_a_run_that_was_killed.exists()
    account = manifest(tmp_path)
    assert (account["images_carried_over"], account["crops"], account["detections"]["unmatched"]) == (4, 5, 0)
    assert ask(tmp_path, "select * from ROWS where key != 'new.jpg' order by key, frame_seconds, crop") == before
    assert verify([str(tmp_path / "archive"), str(tmp_path / "output")]) == 0


def test_a_real_detectors_output(photographs: Path, tmp_path: Path, tiny_model: Path, ray_session: None) -> None:
    folder, output = photographs / "ena24", tmp_path / "output"
    options = ["--model", str(tiny_model), "--detections", str(folder / "md_annotations.json")]
    assert main([str(folder), str(output), *options, "--detection-threshold", "0.9"]) == 0
    listed = json.loads((folder / "md_annotations.json").read_text())["images"]
    sure = {image["file"]: image["detections"][0]["bbox"] for image in listed if image["detections"][0]["conf"] >= 0.9}
    assert 0 < len(sure) < len(listed)
    rows = ask(tmp_path, "select key, box from ROWS where crop = 1")
    assert {key: pytest.approx(sure[key]) for key in sure} == {key: list(box) for key, box in rows}
    assert ask(tmp_path, "select count(*) from ROWS where crop is null and species is not null") == [
        (len(listed) - len(sure),)
    ]
    assert manifest(tmp_path)["detections"]["unmatched"] == 0
    assert verify([str(folder), str(output)]) == 0


class TestJobsAfterwards:
    def test_rescore_keeps_the_crops(self, night: Path, tmp_path: Path) -> None:
        assert rescore.main([str(night / "output"), str(tmp_path / "output"), "--temperature", "1"]) == 0
        columns = "image_uri, crop, box, detection_category, species"
        query = f"select {columns} from ROWS order by image_uri, crop"
        assert ask(tmp_path, query) == ask(night, query)

    @pytest.mark.parametrize(
        "job",
        [
            lambda results, other: search.main([results, "--like", "x"]),
            lambda results, other: duplicates.main([results, "--near"]),
            lambda results, other: rescore.main([results, f"{other}/rescored", "--labels", f"{other}/labels.csv"]),
        ],
    )
    def test_that_take_a_row_for_an_image_refuse_in_one_line(
        self, job: Callable[[str, str], int], night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "labels.csv").write_text("image_uri,species\nx,y\n")
        assert job(str(night / "output"), str(tmp_path)) == 2
        said = capsys.readouterr().err
        assert "holds crops (classified with --detections)" in said
        assert said.count("\n") == 1

    def test_exact_duplicates_are_images(self, night: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert duplicates.main([str(night / "output")]) == 0
        assert "two.png" not in capsys.readouterr().out
