"""The boxes of one shard, by key."""

from dataclasses import replace

import pytest

from trapline.decoding.crops import Box, Cropping, Crops
from trapline.detections.shard_boxes import Seen, ShardBoxes, frame_of, normalize_path

BOX = Box("animal", 0.9, (0.0, 0.0, 0.5, 1.0))
CROPPING = Cropping(padding=0, square=False, whole=True)


def test_an_image_with_boxes_is_cropped_and_one_without_is_not() -> None:
    boxes = ShardBoxes({"DCIM/a.jpg": Seen((BOX,)), "DCIM/b.jpg": Seen()}, CROPPING)
    assert boxes.crops("./DCIM/a.jpg") == Crops((BOX,), CROPPING)
    assert boxes.crops("DCIM/b.jpg") is None
    assert boxes.crops("DCIM/c.jpg") is None


def test_what_the_detector_saw_and_the_shard_does_not_hold_is_unmatched() -> None:
    boxes = ShardBoxes({"b.jpg": Seen((BOX,)), "a.jpg": Seen((BOX,)), "seen.jpg": Seen()}, CROPPING)
    assert boxes.unmatched == ["a.jpg", "b.jpg", "seen.jpg"]
    boxes.crops("b.jpg")
    boxes.crops("seen.jpg")
    assert boxes.unmatched == ["a.jpg"]


def test_a_key_is_found_exactly_first_and_then_in_another_normal_form() -> None:
    composed, decomposed = "Fr\u00fchling/1.jpg", "Fru\u0308hling/1.jpg"
    other = Box("animal", 0.8, (0.5, 0.0, 0.5, 1.0))
    assert ShardBoxes({composed: Seen((BOX,))}, CROPPING).crops(decomposed) == Crops((BOX,), CROPPING)
    both = ShardBoxes({composed: Seen((BOX,)), decomposed: Seen((other,))}, CROPPING)
    assert both.crops(decomposed) == Crops((other,), CROPPING)
    assert both.crops(composed) == Crops((BOX,), CROPPING)
    assert both.unmatched == []


@pytest.mark.parametrize("written", ["DCIM/1.jpg", "./DCIM/1.jpg", "././DCIM/1.jpg", "DCIM\\1.jpg", ".\\DCIM\\1.jpg"])
def test_one_path_written_by_two_programs_is_one_path(written: str) -> None:
    assert normalize_path(written) == "DCIM/1.jpg"


def test_a_name_that_is_no_utf_8_is_still_a_path() -> None:
    assert normalize_path("b\udce4r.jpg") == "b/udce4r.jpg"


def test_a_clip_has_the_boxes_and_the_frames_of_its_entry() -> None:
    box = replace(BOX, frame=30)
    boxes = ShardBoxes({"a.mp4": Seen((box,), (0, 30, 60)), "b.mp4": Seen((), (0, 30))}, CROPPING)
    assert boxes.crops("a.mp4") == Crops((box,), CROPPING, (0, 30, 60))
    assert boxes.crops("b.mp4") is None
    assert boxes.unmatched == []


def test_a_clip_has_what_was_found_in_its_frames_where_they_are_named_one_by_one() -> None:
    seen = {"Fr\u00fch/a.mp4/frame000060.jpg": Seen((BOX, BOX)), "Fr\u00fch/a.mp4/frame000030.jpg": Seen((BOX,)), "Fr\u00fch/a.mp4/frame000000.jpg": Seen(), "Fr\u00fch/a.mp4/frame000090.jpg": Seen(failed=True), "b.mp4/frame000000.jpg": Seen((BOX,))}  # fmt: skip
    boxes = ShardBoxes(seen, CROPPING)
    found = (replace(BOX, frame=30), *[replace(BOX, frame=60)] * 2)
    assert boxes.crops("Fru\u0308h/a.mp4") == Crops(found, CROPPING, (0, 30, 60))
    assert boxes.unmatched == ["b.mp4/frame000000.jpg"]


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("cam/a.mp4/frame000012.jpg", ("cam/a.mp4", 12)),
        ("a.AVI/frame1234567.jpg", ("a.AVI", 1234567)),
        ("cam/frame000012.jpg", None),
        ("a.mp4/000012.jpg", None),
        ("frame000012.jpg", None),
    ],
)
def test_a_frame_is_known_by_its_name(name: str, frame: tuple[str, int] | None) -> None:
    assert frame_of(name) == frame
