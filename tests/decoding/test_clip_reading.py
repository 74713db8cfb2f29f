from pathlib import Path

import av
import pytest

from tests.support.clips import SIZE, clip, decoded, drawn
from trapline.decoding import frames
from trapline.decoding.sampling import Sampling


def two(muxer: str, first: int, path: Path, scale: int = 1) -> Path:
    """A clip of ten frames, behind a stream of so many; its sides are longer by a factor."""
    with av.open(str(path), "w", format=muxer) as container:
        streams = []
        for factor in (1, scale):
            stream = container.add_stream("mjpeg" if muxer == "mov" else "mpeg4", rate=10)
            stream.width, stream.height = SIZE[0] * factor, SIZE[1] * factor
            stream.pix_fmt = "yuvj420p" if muxer == "mov" else "yuv420p"
            streams.append(stream)
        container.start_encoding()
        for stream, count in zip(streams, (first, 10), strict=True):
            for number in range(count):
                frame = av.VideoFrame.from_ndarray(drawn(number), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize("muxer", ["matroska", "avi", "asf", "mov"])
@pytest.mark.parametrize("first", [0, 1])
def test_an_empty_stream_or_a_preview_is_not_the_clip(muxer: str, first: int, tmp_path: Path) -> None:
    data = two(muxer, first, tmp_path / "two").read_bytes()
    _, facts = decoded(data, tmp_path, Sampling(fps=10))
    assert (facts.status, len(facts.frames)) == ("ok", 10)


@pytest.mark.parametrize(("first", "status"), [(0, "failed"), (1, "ok")])
def test_a_preview_is_the_clip_where_what_follows_is_refused(
    first: int, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "MAX_PIXELS", SIZE[0] * SIZE[1])
    _, facts = decoded(two("matroska", first, tmp_path / "two", scale=2).read_bytes(), tmp_path)
    assert (facts.status, len(facts.frames)) == (status, first)
    if not first:
        assert facts.error is not None
        assert facts.error.startswith("too_large: ")


def test_a_single_picture_is_a_clip_where_nothing_moves(tmp_path: Path) -> None:
    _, facts = decoded(clip(frames=1), tmp_path)
    assert (facts.status, facts.frames) == ("ok", (0.0,))
