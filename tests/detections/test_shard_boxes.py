"""The boxes of one shard, by key."""

import pytest

from trapline.decoding.crops import Box, Cropping, Crops
from trapline.detections.shard_boxes import ShardBoxes, normalize_path

BOX = Box("animal", 0.9, (0.0, 0.0, 0.5, 1.0))
CROPPING = Cropping(padding=0, square=False, whole=True)


def test_an_image_with_boxes_is_cropped_and_one_without_is_not() -> None:
    boxes = ShardBoxes({"DCIM/a.jpg": (BOX,), "DCIM/b.jpg": ()}, CROPPING)
    assert boxes.crops("./DCIM/a.jpg") == Crops((BOX,), CROPPING)
    assert boxes.crops("DCIM/b.jpg") is None
    assert boxes.crops("DCIM/c.jpg") is None


def test_what_the_detector_saw_and_the_shard_does_not_hold_is_unmatched() -> None:
    boxes = ShardBoxes({"b.jpg": (BOX,), "a.jpg": (BOX,), "seen.jpg": ()}, CROPPING)
    assert boxes.unmatched == ["a.jpg", "b.jpg", "seen.jpg"]
    boxes.crops("b.jpg")
    boxes.crops("seen.jpg")
    assert boxes.unmatched == ["a.jpg"]


def test_a_key_is_found_exactly_first_and_then_in_another_normal_form() -> None:
    composed, decomposed = "Fr\u00fchling/1.jpg", "Fru\u0308hling/1.jpg"
    other = Box("animal", 0.8, (0.5, 0.0, 0.5, 1.0))
    assert ShardBoxes({composed: (BOX,)}, CROPPING).crops(decomposed) == Crops((BOX,), CROPPING)
    both = ShardBoxes({composed: (BOX,), decomposed: (other,)}, CROPPING)
    assert both.crops(decomposed) == Crops((other,), CROPPING)
    assert both.crops(composed) == Crops((BOX,), CROPPING)
    assert both.unmatched == []


@pytest.mark.parametrize("written", ["DCIM/1.jpg", "./DCIM/1.jpg", "././DCIM/1.jpg", "DCIM\\1.jpg", ".\\DCIM\\1.jpg"])
def test_one_path_written_by_two_programs_is_one_path(written: str) -> None:
    assert normalize_path(written) == "DCIM/1.jpg"


def test_a_name_that_is_no_utf_8_is_still_a_path() -> None:
    assert normalize_path("b\udce4r.jpg") == "b/udce4r.jpg"
