"""A detector's JSON as one stream of UTF-8, in whatever encoding it was written."""

import codecs
import gzip
import re
from typing import IO, cast

_GZIP = b"\x1f\x8b"
# Python writes numbers that JSON does not have.
_NO_NUMBER = re.compile(rb"(?<=[\[,:\s])-?(?:NaN|Infinity)(?=[\s,\]}]|$)")


class JsonStream:
    """A stream of JSON in UTF-8, in which `NaN` and `Infinity`, as Python writes them, are null.

    Args:
        stream: JSON in UTF-8 or UTF-16, with or without a byte order mark, perhaps gzipped.

    Raises (when read):
        OSError, EOFError, zlib.error: the gzip is damaged.
        UnicodeDecodeError: the text is in another encoding.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        if _beginning(stream).startswith(_GZIP):
            stream = cast(IO[bytes], gzip.GzipFile(fileobj=stream))
        self._stream = codecs.EncodedFile(stream, "utf-8", _encoding(_beginning(stream)))
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Return some bytes; none at the end."""
        if not size:
            return b""
        data, cut = self._rest, 0
        while cut < 1:
            more = self._stream.read(size)
            data += more
            if not more:
                cut = len(data)
                break
            cut = data.rfind(b",")  # before which no number goes on
        head, self._rest = data[:cut], data[cut:]
        return _NO_NUMBER.sub(b"null", head)


def _beginning(stream: IO[bytes]) -> bytes:
    head = stream.read(4)
    stream.seek(0)
    return head


def _encoding(head: bytes) -> str:
    """Tell the encoding from the first bytes: JSON begins with a character of ASCII."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if head[1:2] == b"\0":
        return "utf-16-le"
    return "utf-16-be" if head[:1] == b"\0" else "utf-8-sig"
