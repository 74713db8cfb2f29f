"""Which time a decoded frame has, in containers that do not say it: frames have their number drawn on them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.support.clips import SIZE, clip, decoded
from trapline.decoding import frame_times
from trapline.decoding.sampling import Sampling

_BITS, _WIDTH = 6, 28


def numbered(number: int) -> npt.NDArray[np.uint8]:
    """A picture of the number: a white bar for each bit that is set, uint8 [144, 176, 3]."""
    width, height = SIZE
    picture = np.zeros((height, width, 3), np.uint8)
    for bit in range(_BITS):
        picture[:, bit * _WIDTH : (bit + 1) * _WIDTH] = 255 * (number >> bit & 1)
    return picture


def number(picture: torch.Tensor) -> int:
    """The number of a frame that was resized."""
    scale = picture.shape[2] / SIZE[0]
    middles = [round((bit + 0.5) * _WIDTH * scale) for bit in range(_BITS)]
    return sum(int(picture[:, :, middle].float().mean() > 128) << bit for bit, middle in enumerate(middles))


def seen(data: bytes, tmp_path: Path, fps: float = 10) -> dict[float, int]:
    """The number of the frame that was sampled, by tenths of a second."""
    pictures, facts = decoded(data, tmp_path, Sampling(fps, 1000))
    assert pictures is not None
    return {round(10 * time, 3): number(picture) for time, picture in zip(facts.frames, pictures, strict=True)}


@pytest.mark.parametrize("fps", [10, 2])
@pytest.mark.parametrize(
    ("codec", "muxer"),
    [("libx264", "avi"), ("libx264", "asf"), ("libx264", "mpeg"), ("libx264", "mp4"), ("mpeg4", "avi"), ("mpeg2video", "mpegts")],
)  # fmt: skip
def test_a_frame_has_the_time_at_which_it_is_shown(codec: str, muxer: str, fps: float, tmp_path: Path) -> None:
    """Also where packets are stored in another order than that of display."""
    found = seen(clip(codec, muxer=muxer, frames=40, draw=numbered, bidirectional=2), tmp_path, fps)
    assert found == {float(each): each for each in range(0, 40, round(10 / fps))}


def test_behind_frames_that_were_lost_times_are_right_again(tmp_path: Path) -> None:
    data = bytearray(clip("libx264", muxer="avi", frames=40, draw=numbered, bidirectional=2))
    chunks = [at for at in range(data.index(b"movi"), data.index(b"idx1")) if data[at : at + 4] == b"00dc"]
    for at in chunks[3:8]:  # of the first twelve, which begin with the only frame that needs no other
        data[at + 8 : at + 14] = b"\xff" * 6
    found = seen(bytes(data), tmp_path)
    assert {time: each for time, each in found.items() if time >= 12} == {float(each): each for each in range(12, 40)}


def test_frames_that_were_left_out_when_recording_are_no_frames(tmp_path: Path) -> None:
    data = clip("mjpeg", "yuvj420p", "avi", frames=3, draw=numbered)
    first = data.index(b"00dc", data.index(b"movi"))
    second = first + 8 + int.from_bytes(data[first + 4 : first + 8], "little")
    second += second % 2
    index = data.index(b"idx1")
    entries = [data[at : at + 16] for at in range(index + 8, index + 56, 16)]
    empty = b"00dc" + (0).to_bytes(4, "little") + (second - data.index(b"movi")).to_bytes(4, "little") + bytes(4)
    moved = [entry[:8] + (int.from_bytes(entry[8:12], "little") + 8).to_bytes(4, "little") + entry[12:] for entry in entries[1:]]  # fmt: skip
    table = b"".join([entries[0], empty, *moved])
    body = (
        data[12:second] + b"00dc" + bytes(4) + data[second:index] + b"idx1" + len(table).to_bytes(4, "little") + table
    )
    assert seen(data[:4] + (len(body) + 4).to_bytes(4, "little") + data[8:12] + body, tmp_path) == {
        0.0: 0,
        2.0: 1,
        3.0: 2,
    }


@pytest.mark.parametrize(("codec", "muxer"), [("libx264", "mpegts"), ("mpeg2video", "mpeg"), ("mpeg2video", "mpegts")])
def test_recordings_that_were_joined_follow_each_other(codec: str, muxer: str, tmp_path: Path) -> None:
    parts = [
        clip(codec, muxer=muxer, frames=20, draw=lambda each, first=first: numbered(each + first))
        for first in (0, 20, 40)
    ]
    assert seen(b"".join(parts), tmp_path) == {float(each): each for each in range(60)}


def test_a_time_that_is_damaged_moves_no_others() -> None:
    stored = np.arange(10, dtype=np.float64)
    for value in (-1000, 1000, np.nan):
        stored[5] = value
        assert not frame_times._shifts(stored).any()
