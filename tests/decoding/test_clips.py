import hashlib
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.clips import (
    KINDS,
    MODEL,
    SIZE,
    as_jpeg,
    as_png,
    clip,
    decoded,
    drawn,
    every_frame,
    motion_jpeg,
    sound_only,
)
from trapline.decoding import frames
from trapline.decoding.clips import ClipFacts
from trapline.decoding.crops import Box, Cropping, Crops
from trapline.decoding.decode import decode
from trapline.decoding.sampling import Sampling


@pytest.mark.parametrize(("suffix", "codec", "pixels", "muxer"), KINDS)
def test_frames_are_what_the_same_frames_saved_as_png_are(
    suffix: str, codec: str, pixels: str, muxer: str, tmp_path: Path
) -> None:
    found, facts = decoded(clip(codec, pixels, muxer), tmp_path, Sampling(fps=5))
    assert (facts.status, facts.error, facts.media_type) == ("ok", None, "video")
    assert facts.format == {"m4v": "mp4", "wmv": "asf"}.get(suffix, suffix)
    assert (facts.width, facts.height) == (176, 144)
    whole = list(every_frame(tmp_path / "clip"))
    assert facts.frame_rate == pytest.approx(len(whole) / facts.duration_seconds)
    wanted = [number / 5 for number in range(int(np.ceil(round(facts.duration_seconds * 5, 6))))]
    shown = [next(each for each in whole if each[0] >= moment - 0.0015) for moment in wanted]
    assert facts.frames == tuple(round(float(seconds), 6) for seconds, _ in shown)
    assert found is not None
    for picture, (_, reference) in zip(found, shown, strict=True):
        expected, _ = decode(as_png(reference), MODEL)
        assert torch.equal(picture, expected)  # type: ignore[arg-type]


class TestSampling:
    def test_a_clip_of_uneven_times_is_sampled_by_them(self, tmp_path: Path) -> None:
        times = [0, 1, 2, 3, 25, 26, 27, 60]  # tenths of a second: a camera that slows down in the dark
        data = clip(frames=8, times=times, muxer="matroska", options={})
        _, facts = decoded(data, tmp_path, Sampling(fps=1))
        assert facts.frames == (0.0, 2.5, 6.0)
        assert facts.frame_rate == pytest.approx(8 / facts.duration_seconds)

    def test_no_frame_is_there_twice(self, tmp_path: Path) -> None:
        _, facts = decoded(clip(frames=4), tmp_path, Sampling(fps=1000, frames=1000))
        assert facts.frames == (0.0, 0.1, 0.2, 0.3)


class TestTrouble:
    def kind(self, data: bytes, tmp_path: Path) -> tuple[str, str | None]:
        found, facts = decoded(data, tmp_path)
        assert isinstance(facts, ClipFacts)
        assert facts.content_sha256 == hashlib.sha256(data).digest()
        assert (found is None) == (facts.status == "failed") == (facts.frames == ())
        return facts.status, facts.error and facts.error.partition(":")[0]

    def test_sound_alone_is_no_clip(self, tmp_path: Path) -> None:
        assert self.kind(sound_only(), tmp_path) == ("failed", "no_video")

    def test_sound_beside_the_pictures_does_not_matter(self, tmp_path: Path) -> None:
        _, facts = decoded(clip(sound=True), tmp_path)
        assert (facts.status, facts.frames) == ("ok", (0.0, 1.0, 2.0))

    def test_a_clip_without_frames_says_so(self, tmp_path: Path) -> None:
        data = clip(frames=0, options={"movflags": "empty_moov+frag_keyframe"})
        assert self.kind(data, tmp_path) == ("failed", "no_frames")

    def test_encrypted_content_says_so(self, tmp_path: Path) -> None:
        key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
        assert self.kind(clip(options=key), tmp_path) == ("failed", "encrypted")

    @pytest.mark.parametrize(
        ("codec", "pixels", "muxer", "options"),
        [
            ("libx264", "yuv420p", "mp4", {"movflags": "faststart"}),
            ("mjpeg", "yuvj420p", "avi", {}),
            ("libx264", "yuv420p", "matroska", {}),
            ("libx264", "yuv420p", "mpegts", {}),
            ("wmv2", "yuv420p", "asf", {}),
        ],
    )
    def test_a_clip_that_breaks_off_is_salvaged(
        self, codec: str, pixels: str, muxer: str, options: dict[str, str], tmp_path: Path
    ) -> None:
        data = clip(codec, pixels, muxer, frames=60, options=options)
        _, whole = decoded(data, tmp_path)
        assert whole.status == "ok"
        cut = data[: len(data) * 3 // 4 + 1]
        found, facts = decoded(cut, tmp_path)
        assert (facts.status, facts.error.partition(":")[0]) == ("salvaged", "truncated")
        assert 0 < len(facts.frames) <= len(whole.frames)
        assert found is not None
        assert len(found) == len(facts.frames)

    def test_a_recording_without_its_index_is_not_guessed_at(self, tmp_path: Path) -> None:
        data = clip(frames=60)
        assert self.kind(data[: data.rindex(b"moov") - 4], tmp_path) == ("failed", "truncated")

    def test_what_is_known_of_a_clip_that_cannot_be_decoded_is_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tags = {"creation_time": "2024-05-01T12:00:00Z"}
        key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
        _, encrypted = decoded(clip(options=key, tags=tags), tmp_path)
        _, unknown = decoded(clip(tags=tags).replace(b"avc1", b"zzzz"), tmp_path)
        monkeypatch.setattr(frames, "MAX_PIXELS", 1000)
        _, too_large = decoded(clip(tags=tags), tmp_path)
        for facts in (encrypted, unknown, too_large):
            assert (facts.status, facts.captured_at) == ("failed", datetime(2024, 5, 1, 12))
        for facts in (encrypted, too_large):
            assert (facts.width, facts.height) == SIZE

    def test_an_index_that_breaks_off_says_so(self, tmp_path: Path) -> None:
        data = clip(frames=60)
        assert self.kind(data[: data.rindex(b"moov") + 200], tmp_path) == ("failed", "truncated")

    def test_damage_inside_is_salvaged(self, tmp_path: Path) -> None:
        data = bytearray(clip("mpeg4", muxer="avi", frames=60))
        middle = data.index(b"movi") + 3000
        data[middle : middle + 2000] = b"\xa5" * 2000
        assert self.kind(bytes(data), tmp_path) == ("salvaged", "corrupt")

    @pytest.mark.parametrize(
        "segment",
        [
            b"\xff\xe1\0\x12Exif\0\0XX*\0\x08\0\0\0ab",  # no TIFF
            b"\xff\xe1\0\x10Exif\0\0II*\0\x08\0\0\0",  # a directory behind its end
        ],
    )
    def test_damage_beside_the_pictures_is_none_of_the_clip(self, segment: bytes, tmp_path: Path) -> None:
        data = motion_jpeg(as_jpeg(drawn(number), segment) for number in range(3))
        assert self.kind(data, tmp_path) == ("ok", None)

    def test_each_of_two_clips_with_the_same_damage_says_so(self, tmp_path: Path) -> None:
        whole = [as_jpeg(drawn(number)) for number in range(3)]
        data = motion_jpeg([whole[0], whole[1][:-1000], whole[2]], rate=1)
        for _ in range(2):
            assert self.kind(data, tmp_path) == ("salvaged", "corrupt")


class TestCrops:
    CROPPING = Cropping(padding=0.1, square=True, whole=True)

    def crops(self, *frames: int) -> Crops:
        bounds = (0.25, 0.1, 0.5, 0.4), (0.0, 0.0, 0.3, 0.9)
        return Crops(tuple(Box("animal", 0.9, each, frame) for frame in frames for each in bounds), self.CROPPING, (0, 10, 20))  # fmt: skip

    @pytest.mark.parametrize("rotation", [None, 90])
    def test_are_those_of_the_same_frames_saved_as_png(self, rotation: int | None, tmp_path: Path) -> None:
        found, facts = decoded(clip(rotation=rotation), tmp_path, crops=self.crops(10, 20))
        assert (facts.status, facts.frames) == ("ok", (0.0, 1.0, 2.0))
        assert [len(boxes) for boxes in facts.boxes] == [0, 2, 2]
        whole = [picture for seconds, picture in every_frame(tmp_path / "clip") if seconds in facts.frames]
        expected = []
        for picture, boxes in zip(whole, facts.boxes, strict=True):
            shown = np.ascontiguousarray(np.rot90(picture)) if rotation else picture
            cut = Crops(boxes, self.CROPPING) if boxes else None
            png, _ = decode(as_png(shown), MODEL, crops=cut)
            assert png is not None
            expected.append(png if cut else png[None])
        assert found is not None
        assert torch.equal(found, torch.cat(expected))

    def test_are_of_the_frames_by_number_also_where_times_are_uneven(self, tmp_path: Path) -> None:
        data = clip(frames=8, times=[0, 1, 2, 3, 25, 26, 27, 60], muxer="matroska")
        _, facts = decoded(data, tmp_path, crops=self.crops(4, 7))
        assert list(zip(facts.frames, map(len, facts.boxes), strict=True)) == [(0.0, 0), (2.5, 2), (6.0, 2)]

    def test_frames_that_share_a_time_are_counted_each(self, tmp_path: Path) -> None:
        pictures = [as_jpeg(drawn(number)) for number in range(6)]
        data = motion_jpeg(pictures, "matroska", times=[0, 0, 10, 10, 20, 20])
        _, facts = decoded(data, tmp_path, crops=self.crops(4))
        assert facts.frame_rate == pytest.approx(6 / facts.duration_seconds)
        assert list(zip(facts.frames, map(len, facts.boxes), strict=True)) == [(0.0, 0), (1.0, 0), (2.0, 2)]
