"""A disk that fails while a clip is read: nothing is said of the clip."""

import errno
import io
from pathlib import Path
from typing import Any

import pytest

from tests.support.clips import clip, decoded
from trapline.decoding.watched_file import WatchedFile

# Linux refuses to read there what is not mapped, with the error of a broken disk.
UNREADABLE = "/proc/self/mem"


class OnBrokenDisk(io.FileIO):
    """A file of which one byte cannot be read."""

    bad = 0

    def read(self, size: int = -1) -> bytes:  # type: ignore[override]
        at = self.tell()
        if at <= self.bad and (size < 0 or self.bad < at + size):
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size) or b""


def test_what_cannot_be_read_ends_the_file_and_is_raised_when_that_is_closed() -> None:
    file = WatchedFile(UNREADABLE)

    def read() -> None:
        with file:
            raise ValueError(f"what FFmpeg makes of {file.read(10)!r}")

    with pytest.raises(OSError, match="Input/output error") as raised:
        read()
    assert str(raised.value.__context__) == "what FFmpeg makes of b''"


def test_a_sound_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    with WatchedFile(str(path)) as file:
        assert (file.read(4), file.tell(), file.seek(-2, 2), file.read(4), file.read(4)) == (b"0123", 4, 8, b"89", b"")


@pytest.mark.parametrize(
    ("codec", "pixels", "muxer"),
    [
        ("libx264", "yuv420p", "mp4"),
        ("mjpeg", "yuvj420p", "avi"),
        ("libx264", "yuv420p", "matroska"),
        ("libx264", "yuv420p", "mpegts"),
        ("wmv2", "yuv420p", "asf"),
        ("mpeg2video", "yuv420p", "mpeg"),
    ],
)
def test_a_clip_on_a_failing_disk_is_never_called_damaged(
    codec: str, pixels: str, muxer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = clip(codec, pixels, muxer)
    places = [0, 5000, len(data) // 3, len(data) // 2, len(data) * 3 // 4, len(data) - 1]
    failed = 0
    for OnBrokenDisk.bad in places:

        def opened(path: Path, *_: Any, **__: Any) -> OnBrokenDisk:
            return OnBrokenDisk(str(path))

        path = tmp_path / "clip"
        path.write_bytes(data)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", lambda *_: None)
            patch.setattr(Path, "open", opened)
            try:
                _, facts = decoded(data, tmp_path)
            except OSError as error:
                failed += error.errno == errno.EIO
            else:
                assert (facts.status, facts.frames) == ("ok", (0.0, 1.0, 2.0))  # what is broken was of no use
    assert failed >= len(places) - 1


@pytest.mark.parametrize("place", [-1, -(2**62), 2**70])
def test_a_place_that_no_file_has_is_no_trouble_of_the_disk(place: int, tmp_path: Path) -> None:
    (tmp_path / "clip").write_bytes(b"abc")
    with WatchedFile(str(tmp_path / "clip")) as file:
        assert file.seek(place) == -1
        assert file.read(3) == b"abc"
