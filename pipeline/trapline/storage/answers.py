"""Check the answers of S3 against the requests.

s3fs accepts any bytes as those it asked for: whole objects where a proxy ignores ranges, zeros in place of missing
bytes, and page after page of a listing that never ends.
"""

import re
from collections.abc import AsyncIterator
from typing import Any

from trapline.storage.deadlines import Call

_ASKED = re.compile(r"bytes=(\d+)-(\d+)")
_GIVEN = re.compile(r"bytes (\d+)-(\d+)/")


class AnswerError(ConnectionError):
    """An answer is not what was asked for."""


def as_asked(call: Call) -> Call:
    """Wrap the one method through which a client of aiobotocore makes all its requests."""

    async def checked(operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        answer = await call(operation, parameters)
        if operation == "GetObject":
            length = _length(parameters.get("Range"), answer)
            answer["Body"] = _Counted(answer["Body"], length)
        if operation == "HeadObject" and "ContentLength" not in answer:
            raise AnswerError("the answer does not say how long the object is")
        token = parameters.get("ContinuationToken")
        if token and token == answer.get("NextContinuationToken"):
            raise AnswerError("a page of the listing leads to itself")
        return answer

    return checked


async def without_repetition(listing: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    """Yield the entries of a listing; raise AnswerError if it repeats itself.

    One name is remembered, and replaced each time the number of entries has doubled, so that it ends up in the cycle
    (Brent's algorithm).
    """
    number, remembered = 0, None
    async for entry in listing:
        if entry["name"] == remembered:
            raise AnswerError(f"the listing names {remembered} again and again")
        number += 1
        if number & (number - 1) == 0:
            remembered = entry["name"]
        yield entry


def _length(asked: str | None, answer: dict[str, Any]) -> int | None:
    """Return how many bytes the body must have to be what was asked for; None if the answer does not say."""
    asked_for = _ASKED.fullmatch(asked or "")
    if not asked_for:
        return answer.get("ContentLength")
    given = _GIVEN.match(answer.get("ContentRange") or "")
    # An object smaller than the range may come whole, without a ContentRange.
    first, last = map(int, given.groups()) if given else (0, (answer.get("ContentLength") or 0) - 1)
    if first != int(asked_for[1]) or not first <= last <= int(asked_for[2]):
        raise AnswerError(f"{asked} was asked for, and {answer.get('ContentRange') or 'another part'} came")
    return last - first + 1


class _Counted:
    """The body of an answer; reading it whole raises AnswerError if it does not have the expected length."""

    def __init__(self, body: Any, length: int | None) -> None:
        self._body = body
        self._length = length

    async def read(self, size: int | None = None) -> bytes:
        data: bytes = await self._body.read(size)
        if size is None and self._length is not None and len(data) != self._length:
            raise AnswerError(f"{len(data)} of {self._length} bytes came")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)
