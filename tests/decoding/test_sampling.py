from pathlib import Path

import pytest
import torch

from tests.support.clips import KINDS, MODEL, as_png, clip, decoded, every_frame
from trapline.decoding.decode import decode
from trapline.decoding.sampling import Sampling, Still


def test_so_many_a_second_up_to_a_most_over_the_whole_clip() -> None:
    assert Sampling().moments(3.0).tolist() == [0, 1, 2]
    assert Sampling().moments(3.01).tolist() == [0, 1, 2, 3]
    assert Sampling().moments(0.0).tolist() == [0]
    assert Sampling(2, 100).moments(1.5).tolist() == [0, 0.5, 1]
    assert Sampling(1, 4).moments(4.0).tolist() == [0, 1, 2, 3]
    assert Sampling(1, 4).moments(40.0).tolist() == [0, 10, 20, 30]


@pytest.mark.parametrize(("rotation", "size"), [(None, (64, 78)), (90, (64, 52))])
def test_a_still_is_the_frame_of_its_moment_in_the_proportions_that_it_is_shown_in(
    rotation: int | None, size: tuple[int, int], tmp_path: Path
) -> None:
    times = [0, 1, 2, 3, 25, 26, 27, 60]  # tenths of a second: a camera that slows down in the dark
    data = clip(frames=8, times=times, muxer="mov", rotation=rotation)
    _, facts = decoded(data, tmp_path)
    assert facts.frames == (0.0, 2.5, 6.0)
    whole = {round(float(seconds), 6): picture for seconds, picture in every_frame(tmp_path / "clip")}
    for seconds in facts.frames:
        found, of_still = decoded(data, tmp_path, Still(seconds=seconds))
        assert of_still.frames == (seconds,)
        assert found is not None
        assert found.shape[2:] == size
        if rotation is None:
            expected, _ = decode(as_png(whole[seconds]), size)
            assert torch.equal(found[0], expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(("suffix", "codec", "pixels", "muxer"), KINDS)
def test_a_still_is_the_same_frame_however_its_container_is_searched(
    suffix: str, codec: str, pixels: str, muxer: str, tmp_path: Path
) -> None:
    data = clip(codec, pixels, muxer)
    frames, facts = decoded(data, tmp_path, Sampling(fps=100, frames=100))
    assert frames is not None
    assert len(frames) == len(facts.frames) >= 29
    size = (64, 78)
    whole = [picture for _, picture in every_frame(tmp_path / "clip")]
    for number in (0, 1, 11, 12, 13, 20, len(frames) - 1):
        found, of_still = decoded(data, tmp_path, Still(seconds=facts.frames[number]))
        assert (of_still.status, of_still.frames) == ("ok", (facts.frames[number],))
        expected, _ = decode(as_png(whole[number]), size)
        assert torch.equal(found[0], expected)  # type: ignore[index, arg-type]


def test_a_still_needs_only_what_follows_the_key_frame_before_it(tmp_path: Path) -> None:
    data = clip(frames=40)
    fifth = len(data) // 5
    damaged = data[:fifth] + b"\xff" * fifth + data[2 * fifth :]
    assert decoded(damaged, tmp_path)[1].status == "salvaged"
    late, facts = decoded(damaged, tmp_path, Still(seconds=3.5))
    sound, _ = decoded(data, tmp_path, Still(seconds=3.5))
    assert (facts.status, facts.frames) == ("ok", (3.5,))
    assert torch.equal(late, sound)  # type: ignore[arg-type]


def test_a_still_is_not_enlarged() -> None:
    assert Still().size(torch.empty(3, 30, 40), MODEL) == (30, 40)
