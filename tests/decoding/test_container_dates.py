from datetime import datetime
from pathlib import Path

import pytest

from tests.support.clips import clip, decoded


def avi(date: bytes, in_headers: bool = True) -> bytes:
    """A clip with this IDIT, among its headers or behind them."""
    data = clip("mjpeg", "yuvj420p", "avi", frames=1)
    chunk = b"IDIT" + len(date).to_bytes(4, "little") + date + bytes(len(date) % 2)
    at = data.index(b"hdrl") - 8
    length = int.from_bytes(data[at + 4 : at + 8], "little")
    end = at + 8 + length
    headers = (length + len(chunk) * in_headers).to_bytes(4, "little")
    data = data[: at + 4] + headers + data[at + 8 : end] + chunk + data[end:]
    return data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:]


@pytest.mark.parametrize("in_headers", [True, False])
@pytest.mark.parametrize(
    ("date", "expected"),
    [
        (b"Mon Mar 10 15:04:43 2003\n\0", datetime(2003, 3, 10, 15, 4, 43)),
        (b"MON MAR  3  5:04:43 2003\n\0", datetime(2003, 3, 3, 5, 4, 43)),
        (b"2001/ 1/27  1:42PM", datetime(2001, 1, 27, 13, 42)),
        (b"2001/ 1/27 12:42AM", datetime(2001, 1, 27, 0, 42)),
        (b"2005/11/28/ 09:19\0", datetime(2005, 11, 28, 9, 19)),
        (b"2002-12-16  15:35:01\0\0", datetime(2002, 12, 16, 15, 35, 1)),
        (b"2010:08:17 11:42:43\0", datetime(2010, 8, 17, 11, 42, 43)),
        (b"0000:00:00 00:00:00\0", None),
        (b"Thu Jan 01 00:00:00 1970\n\0", None),
        (b"\0" * 26, None),
    ],
)
def test_avi_has_the_clock_of_the_camera_however_it_writes_it(
    date: bytes, expected: datetime | None, in_headers: bool, tmp_path: Path
) -> None:
    _, facts = decoded(avi(date, in_headers), tmp_path)
    tag = "IDIT" if expected else None
    assert (facts.status, facts.captured_at, facts.captured_at_tag) == ("ok", expected, tag)
    assert facts.captured_at_offset is None


def test_asf_has_a_date_in_utc(tmp_path: Path) -> None:
    _, facts = decoded(clip("wmv2", muxer="asf", frames=1, tags={"creation_time": "2024-05-01T12:00:00Z"}), tmp_path)
    found = (facts.captured_at, facts.captured_at_tag, facts.captured_at_offset)
    assert found == (datetime(2024, 5, 1, 12), "CreationDate", "+00:00")
    _, facts = decoded(clip("wmv2", muxer="asf", frames=1), tmp_path)  # whose writer has put down 1970
    assert facts.captured_at is None
