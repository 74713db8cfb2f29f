import io

import pytest

from trapline.sources.members import RationedStream


def test_a_stream_gives_out_its_ration_and_no_more() -> None:
    stream = RationedStream(io.BytesIO(bytes(100)), 10)
    assert len(stream.read(4)) == 4
    assert len(stream.read(6)) == 6
    with pytest.raises(ValueError, match="more headers"):
        stream.read(1)
    stream.ration = 3
    stream.seek(97)
    assert len(stream.read()) == 3
    assert stream.read(5) == b""


@pytest.mark.parametrize("size", [-1, 11, 10**12])
def test_what_is_over_the_ration_is_not_read_into_memory(size: int) -> None:
    class Endless(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert 0 <= size <= 11
            return bytes(size)

    with pytest.raises(ValueError, match="more headers"):
        RationedStream(Endless(), 10).read(size)
