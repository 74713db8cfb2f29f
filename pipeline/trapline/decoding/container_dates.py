"""Read dates of recording from a container's header that FFmpeg does not return as they are written."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Final

_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_DATE_AT: Final = 48  # behind the object's name, its size, the file's name and its size
_ASF_ZERO = datetime(1601, 1, 1)
_ASF_HEADER_BYTES = 4096
_RIFF_HEADER: Final = 12
# A recording of many streams has some 20 chunks before its frames.
_MOST_CHUNKS = 1000
_MOST_TEXT = 64


def read(path: str, container: str) -> dict[str, str]:
    """Read a container's date of recording.

    Args:
        path: of the file.
        container: its name, as `containers.recognise` gives it.

    Returns:
        By the name of its tag: `IDIT` of AVI as it is written, `CreationDate` of ASF in ISO 8601; empty without one.

    Raises:
        OSError: the file cannot be read.
    """
    reader = _READERS.get(container)
    if not reader:
        return {}
    with Path(path).open("rb") as file:
        return reader(file)


def _idit(file: IO[bytes]) -> dict[str, str]:
    """Walk the chunks of an AVI, and those of its list of headers, up to the one that is called IDIT."""
    at = _RIFF_HEADER
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        header = file.read(12)
        if len(header) < 12:
            break
        length = int.from_bytes(header[4:8], "little")
        if header[:4] == b"IDIT":
            text = header[8:] + file.read(_MOST_TEXT)
            return {"IDIT": text[:length].partition(b"\0")[0].decode("ascii", "replace").strip()}
        is_headers = header[:4] == b"LIST" and header[8:] == b"hdrl"
        at += 12 if is_headers else 8 + length + length % 2
    return {}


def _creation_date(file: IO[bytes]) -> dict[str, str]:
    """Read the date of an ASF's file properties: tenths of a microsecond since 1601, in UTC by the specification."""
    head = file.read(_ASF_HEADER_BYTES)
    at = head.find(_ASF_FILE_PROPERTIES)
    ticks = int.from_bytes(head[at + _ASF_DATE_AT : at + _ASF_DATE_AT + 8], "little") if at >= 0 else 0
    try:
        moment = _ASF_ZERO + timedelta(microseconds=ticks // 10)
    except OverflowError:
        return {}
    return {"CreationDate": f"{moment.isoformat(timespec='milliseconds')}Z"}


_READERS: Final[dict[str, Callable[[IO[bytes]], dict[str, str]]]] = {"avi": _idit, "asf": _creation_date}
