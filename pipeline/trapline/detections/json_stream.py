"""Read a detector's JSON, in any Unicode encoding, as a stream of UTF-8."""

import codecs
import gzip
import re
import string
from typing import IO, cast

_GZIP = b"\x1f\x8b"
# Numbers that Python writes, but JSON does not have.
_NO_NUMBER = re.compile(rb"-?(?:NaN|Infinity)")
_IN_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_LETTERS = b"-" + string.ascii_letters.encode()


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
        self._in_string = False

    def read(self, size: int) -> bytes:
        """Return some bytes, at least one before the end."""
        head = b""
        while size and not head:
            more = self._stream.read(size)
            data = self._rest + more
            # Cut neither a word nor an escape sequence in two.
            head = data.rstrip(_LETTERS).rstrip(b"\\") if more else data
            self._rest = data[len(head) :]
            if not more:
                break
        return self._with_numbers(head)

    def _with_numbers(self, data: bytes) -> bytes:
        """Replace NaN and Infinity outside of strings by null; `data` may begin and end inside a string."""
        if b"NaN" not in data and b"Infinity" not in data:  # true of most files, and takes a tenth of the time
            quotes = data.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"')
            self._in_string ^= bool(quotes % 2)
            return data
        parts, position = [], 0
        while position < len(data):
            if self._in_string:
                end = cast(re.Match[bytes], _IN_STRING.match(data, position)).end()
                parts.append(data[position:end])
            else:
                end = data.find(b'"', position)
                end = len(data) if end < 0 else end
                parts.append(_NO_NUMBER.sub(b"null", data[position:end]))
            if end < len(data):
                parts.append(b'"')
                self._in_string = not self._in_string
            position = end + 1
        return b"".join(parts)


def _beginning(stream: IO[bytes]) -> bytes:
    head = stream.read(4)
    stream.seek(0)
    return head


def _encoding(head: bytes) -> str:
    """Return the encoding, by the first bytes: JSON begins with an ASCII character."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if head[1:2] == b"\0":
        return "utf-16-le"
    return "utf-16-be" if head[:1] == b"\0" else "utf-8-sig"
