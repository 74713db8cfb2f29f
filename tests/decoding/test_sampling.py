from pathlib import Path

import pytest
import torch

from tests.support.clips import MODEL, as_png, clip, decoded, every_frame
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


def test_a_still_is_not_enlarged() -> None:
    assert Still().size(torch.empty(3, 30, 40), MODEL) == (30, 40)
