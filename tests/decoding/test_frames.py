from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.clips import MODEL, as_jpeg, as_png, clip, decoded, drawn, every_frame, motion_jpeg
from trapline.decoding import frames
from trapline.decoding.decode import decode


def test_colours_are_those_that_were_filmed(tmp_path: Path) -> None:
    flat = np.empty((96, 128, 3), np.uint8)
    flat[:] = (200, 60, 30)
    for codec, pixels, muxer in [("libx264", "yuv420p", "mp4"), ("mjpeg", "yuvj420p", "avi")]:
        found, _ = decoded(clip(codec, pixels, muxer, frames=3, draw=lambda _: flat), tmp_path)
        assert found is not None
        assert (found[0].permute(1, 2, 0).float() - torch.tensor([200.0, 60, 30])).abs().max() <= 4


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (180, 2), (-90, 3), (0, 0)])
def test_the_display_matrix_is_applied(rotation: int, turns: int, tmp_path: Path) -> None:
    plain, _ = decoded(clip(frames=1), tmp_path)
    data = clip(frames=1, rotation=rotation)
    _, facts = decoded(data, tmp_path)
    assert (facts.width, facts.height) == (176, 144)  # as stored
    ((_, stored),) = every_frame(tmp_path / "clip")
    expected, _ = decode(as_png(np.ascontiguousarray(np.rot90(stored, turns))), MODEL)
    turned, _ = decoded(data, tmp_path)
    assert torch.equal(turned[0], expected)  # type: ignore[index, arg-type]
    assert (turns == 0) == torch.equal(turned, plain)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("orientation", "turns", "mirrored"), [(1, 0, False), (2, 0, True), (6, 3, False), (8, 1, False)]
)
def test_motion_jpeg_with_exif_in_its_frames_is_decoded_and_shown_as_that_says(
    orientation: int, turns: int, mirrored: bool, tmp_path: Path
) -> None:
    data = motion_jpeg(as_jpeg(drawn(number), orientation=orientation) for number in range(3))
    found, facts = decoded(data, tmp_path)
    assert (facts.status, facts.error) == ("ok", None)
    stored = next(picture for _, picture in every_frame(tmp_path / "clip"))
    expected, _ = decode(as_png(np.ascontiguousarray(np.rot90(stored, turns)[:, :: -1 if mirrored else 1])), MODEL)
    assert torch.equal(found[0], expected)  # type: ignore[index, arg-type]


def test_frames_that_no_decoder_could_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_PIXELS", 1000)
    found, facts = decoded(clip(), tmp_path)
    assert (found, facts.status, facts.error) == (
        None,
        "failed",
        "too_large: frames of 176 x 144 pixels, the limit is 1000",
    )
