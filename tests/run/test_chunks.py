import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import NoReturn

import numpy as np
import pytest

from tests.support.archives import jpeg, pictures, sidecar, write_parquet, write_tar, write_zip
from tests.support.clips import clip
from trapline.decoding.crops import Box, Cropping
from trapline.detections.shard_boxes import Seen, ShardBoxes
from trapline.results.rows import usable
from trapline.run import chunks
from trapline.run.chunks import read_chunks
from trapline.run.messages import DecodedChunk, Failure, PredictedChunk
from trapline.sources import limits
from trapline.sources.records import Record
from trapline.sources.shards import Shard, discover

SIZE = (64, 64)


def shard(path: Path) -> Shard:
    return discover((str(path),), str(path.parent / "results")).shards[0]


def read(path: Path, images: int = 4) -> list[DecodedChunk]:
    found = list(read_chunks(shard(path), SIZE, images))
    assert all(isinstance(item, DecodedChunk) for item in found)
    return found  # type: ignore[return-value]


def keys(found: list[DecodedChunk]) -> list[str]:
    return [key for chunk in found for key in chunk.rows.column("key").to_pylist()]


@pytest.mark.parametrize(
    ("images", "sizes"), [(0, [0]), (1, [1]), (3, [3]), (4, [4]), (5, [4, 1]), (8, [4, 4]), (9, [4, 4, 1])]
)
def test_a_shard_is_cut_into_chunks_and_only_its_end_is_marked(tmp_path: Path, images: int, sizes: list[int]) -> None:
    found = read(write_tar(tmp_path / "a.tar", pictures(images)))
    assert [len(chunk.rows) for chunk in found] == sizes
    assert [len(chunk.pixels) for chunk in found] == sizes
    assert [chunk.index for chunk in found] == list(range(len(sizes)))
    assert [chunk.end is not None for chunk in found] == [False] * (len(sizes) - 1) + [True]
    assert keys(found) == list(pictures(images))


def test_the_size_of_chunks_changes_nothing_else(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", pictures(5) | {"bad.jpg": b"x", "more.jpg": jpeg(9)})
    one, several = read(path, images=100), read(path, images=2)
    np.testing.assert_array_equal(one[0].pixels, np.concatenate([chunk.pixels for chunk in several]))
    assert one[0].rows.to_pylist() == [row for chunk in several for row in chunk.rows.to_pylist()]
    assert one[0].encoded_bytes == sum(chunk.encoded_bytes for chunk in several)


def test_pixels_are_those_of_the_usable_images_in_their_order(tmp_path: Path) -> None:
    good = pictures(4)
    bad = {"DCIM/IMG_0000a.jpg": b"", "DCIM/IMG_0002a.jpg": b"no picture", "DCIM/IMG_0003a.jpg": b"\xff\xd8\xff"}
    (chunk,) = read(write_tar(tmp_path / "a.tar", dict(sorted((good | bad).items()))), images=9)
    (expected,) = read(write_tar(tmp_path / "good.tar", good), images=9)
    assert usable(chunk.rows).tolist() == [True, False, True, True, False, True, False]
    np.testing.assert_array_equal(chunk.pixels, expected.pixels)
    assert chunk.pixels.dtype == np.uint8
    assert chunk.encoded_bytes == sum(map(len, (good | bad).values()))


def test_a_shard_of_bad_images_has_rows_and_no_pixels(tmp_path: Path) -> None:
    (chunk,) = read(write_tar(tmp_path / "a.tar", {"1.jpg": b"", "2.jpg": b"x"}))
    assert chunk.pixels.shape == (0, 3, *SIZE)
    assert chunk.rows.column("status").to_pylist() == ["failed", "failed"]


def test_chunks_have_an_end_also_where_no_image_has_pixels(tmp_path: Path) -> None:
    chunks = read(write_tar(tmp_path / "a.tar", {f"{number}.jpg": b"" for number in range(20)}), images=2)
    assert [len(chunk.rows) for chunk in chunks] == [8, 8, 4]


def test_what_cannot_be_had_is_a_failed_row_with_its_sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_IMAGE_BYTES", 20_000)
    huge = {"huge.jpg": jpeg(1, (800, 600), quality=100), "huge.json": sidecar(site="fen"), "small.jpg": jpeg(2)}
    (chunk,) = read(write_tar(tmp_path / "a.tar", huge))
    first, second = chunk.rows.to_pylist()
    assert (first["key"], first["status"], first["error"].partition(":")[0]) == ("huge.jpg", "failed", "too_large")
    assert first["metadata"] == sidecar(site="fen").decode()
    assert second["status"] == "ok"
    assert chunk.encoded_bytes == len(huge["small.jpg"])


def test_a_null_cell_is_a_failed_row(tmp_path: Path) -> None:
    members = {"1.jpg": jpeg(1), "2.jpg": None}
    (chunk,) = read(write_parquet(tmp_path / "a.parquet", members))  # type: ignore[arg-type]
    assert chunk.rows.column("error").to_pylist() == [None, "null: the image cell is null"]


def test_what_is_ignored_is_told_once_with_the_last_chunk(tmp_path: Path) -> None:
    others = {"Thumbs.db": b"x", "call.mp3": b"x", "call2.mp3": b"x"}
    found = read(write_zip(tmp_path / "a.zip", others | pictures(9)))
    assert [chunk.end and chunk.end.ignored for chunk in found] == [None, None, {"Thumbs.db": 1, ".mp3": 2}]


class TestABrokenShard:
    @pytest.fixture
    def broken(self, tmp_path: Path) -> Path:
        """Nine pictures; the tar ends within the ninth."""
        path = write_tar(tmp_path / "a.tar", pictures(9))
        with tarfile.open(path) as tar:
            last = tar.getmembers()[-1]
        os.truncate(path, last.offset_data + last.size // 2)
        return path

    @pytest.mark.parametrize("images", [1, 2, 3, 4, 8, 9, 20])
    def test_the_break_is_one_more_row_and_what_came_before_it_is_kept(self, broken: Path, images: int) -> None:
        found = read(broken, images)
        assert keys(found) == [*list(pictures(9))[:8], ""]
        assert max(len(chunk.pixels) for chunk in found) <= images
        assert [chunk.end is not None for chunk in found] == [False] * (len(found) - 1) + [True]
        row = found[-1].rows.to_pylist()[-1]
        assert row["status"] == "failed"
        assert row["image_uri"] == f"{broken}#"
        assert found[-1].end is not None
        assert row["error"] == f"broken_shard: {found[-1].end.broken}"

    def test_a_shard_that_cannot_be_read_at_all_is_one_row(self, tmp_path: Path) -> None:
        path = tmp_path / "a.zip"
        path.write_bytes(b"no zip at all")
        (chunk,) = read(path)
        assert keys([chunk]) == [""]
        assert chunk.end is not None
        assert chunk.end.broken is not None
        assert chunk.end.broken.startswith(f"{path}: no readable zip directory")


class TestAShardThatDoesNotStay:
    def test_one_that_changed_since_it_was_listed_is_worth_another_try(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "a.tar", pictures(3))
        listed = shard(path)
        write_tar(path, pictures(4))
        (failure,) = read_chunks(listed, SIZE, 4)
        assert isinstance(failure, Failure)
        assert failure.transient
        assert failure.shard == listed
        assert failure.reason.startswith(f"{path}: changed while it was being read")

    def test_one_that_changes_as_we_read_ends_in_a_failure(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "a.tar", pictures(9))
        reading = read_chunks(shard(path), SIZE, 4)
        assert isinstance(next(reading), DecodedChunk)
        os.utime(path, (1, 1))
        *others, end = reading
        assert [type(item) for item in others] == [DecodedChunk]
        assert isinstance(end, Failure)
        assert end.transient

    def test_one_that_is_gone_is_not(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "a.tar", pictures(3))
        listed = shard(path)
        path.unlink()
        (failure,) = read_chunks(listed, SIZE, 4)
        assert isinstance(failure, Failure)
        assert not failure.transient
        assert failure.reason.startswith(f"{path}: not found")


def test_time_is_counted_by_step_and_not_while_the_consumer_takes_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asleep = 0.0
    monkeypatch.setattr(chunks, "perf_counter", lambda: perf_counter() + asleep)

    def slowly(items: Iterator[DecodedChunk | PredictedChunk | Failure]) -> Iterator[DecodedChunk]:
        nonlocal asleep
        for item in items:
            assert isinstance(item, DecodedChunk)
            yield item
            asleep += 1000

    found = list(slowly(read_chunks(shard(write_tar(tmp_path / "a.tar", pictures(9))), SIZE, 4)))
    assert [set(chunk.seconds) for chunk in found] == [{"read", "decode"}] * 3
    assert all(0 < seconds < 500 for chunk in found for seconds in chunk.seconds.values())


def test_the_bytes_of_one_image_at_a_time_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    add = chunks._Builder.add

    def watched(builder: chunks._Builder, record: Record) -> Iterator[DecodedChunk]:
        yield from add(builder, record)
        held.append(sum(len(kept.data or b"") for kept in builder.records))

    monkeypatch.setattr(chunks._Builder, "add", watched)
    read(write_tar(tmp_path / "a.tar", pictures(6)))
    assert held == [0] * 6


class TestImagesThatTheDetectorSaw:
    def boxes(self, *keys: str, all_matched: bool = True) -> ShardBoxes:
        return ShardBoxes(dict.fromkeys(keys, Seen()), Cropping(0.1, square=True, whole=True), all_matched)

    def test_and_the_shard_lacks_fail_it_where_that_was_asked_for(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "a.tar", pictures(3, prefix=""))
        *_, last = read_chunks(shard(path), SIZE, 2, detected=self.boxes("0000.jpg", "gone.jpg"))
        assert isinstance(last, Failure)
        assert last.reason == (
            f"{path}: lacks 1 of the 2 images that the detector's file has of it, such as gone.jpg; correct the names, "
            "or run with --detections-unmatched warn"
        )
        assert not last.transient
        for boxes in (self.boxes("0000.jpg", "gone.jpg", all_matched=False), self.boxes("0000.jpg")):
            *_, last = read_chunks(shard(path), SIZE, 2, detected=boxes)
            assert isinstance(last, DecodedChunk)

    def test_and_lie_behind_its_break_do_not(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "a.tar", pictures(3, prefix=""))
        path.write_bytes(path.read_bytes()[:4000])
        *_, last = read_chunks(shard(path), SIZE, 2, detected=self.boxes("0000.jpg", "gone.jpg"))
        assert isinstance(last, DecodedChunk)
        assert last.end is not None
        assert last.end.broken


def test_frames_of_clips_are_bounded_as_images_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_MAX_PARTS", 5)
    film = clip(frames=3, rate=1)
    found = read(write_tar(tmp_path / "a.tar", {"a.mp4": film, "a.json": b"{}", "b.mp4": film, "c.jpg": jpeg(1)}))
    assert keys(found) == ["a.mp4"] * 4 + [""]
    assert "split it, or lower --video-frames" in found[-1].rows.column("error")[-1].as_py()
    # The sidecar stands on the clip's own row alone.
    metadata = [text for chunk in found for text in chunk.rows.column("metadata").to_pylist()]
    assert metadata == ["{}", None, None, None, None]


def test_a_clip_whose_file_cannot_be_read_is_tried_again(tmp_path: Path) -> None:
    def decode(*_: object, **__: object) -> NoReturn:
        raise FileNotFoundError(2, "No such file or directory", "a.mp4")

    (failure,) = read_chunks(shard(write_tar(tmp_path / "a.tar", {"a.mp4": clip(frames=1)})), SIZE, 4, decode)
    assert isinstance(failure, Failure)
    assert failure.transient
    assert "a.mp4: FileNotFoundError" in failure.reason or "a.mp4: [Errno 2]" in failure.reason


def test_crops_of_frames_lie_behind_their_frame(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.mp4": clip(), "b.jpg": jpeg(1), "c.mp4": clip(frames=10)})
    boxes = [Box("animal", 0.9 - frame / 100, (0.0, 0.0, 0.5, 1.0), frame) for frame in (0, 0, 10)]
    seen = {"a.mp4": Seen(tuple(boxes), (0, 10, 20)), "b.jpg": Seen(), "c.mp4": Seen((), (0,))}
    for whole in (True, False):
        detected = ShardBoxes(seen, Cropping(0.1, square=True, whole=whole))
        found = list(read_chunks(shard(path), SIZE, 2, detected=detected))
        rows = [row for chunk in found for row in chunk.rows.to_pylist()]  # type: ignore[union-attr]
        parts = [(row["key"][0], row["frame_seconds"], row["crop"]) for row in rows]
        first, second = ("a", 0.0), ("a", 1.0)
        assert parts == [
            ("a", None, None), (*first, None), (*first, 1), (*first, 2), (*second, None), (*second, 1), ("a", 2.0, None),
            ("b", None, None), ("c", None, None), ("c", 0.0, None),
        ]  # fmt: skip
        pixels = [bool(each) for chunk in found for each in chunk.with_pixels]  # type: ignore[union-attr]
        assert pixels == [False, False, True, True, False, True, whole, whole, False, whole]
        assert rows[5]["detection_confidence"] == pytest.approx(0.8)
        assert rows[5]["box"] == [0.0, 0.0, 0.5, 1.0]
        assert detected.unmatched == []
