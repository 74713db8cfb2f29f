"""Give every request to a store a wall-clock limit, after which it is cancelled.

The timeouts of clients do not suffice: aiohttp waits without bound for the `100 Continue` that botocore asks for before
a body, and after one malformed line between two chunks it drops its timeout and never wakes the reader.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, wait
from contextlib import asynccontextmanager, suppress
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

# SILENCE: seconds without an answer after which a request is cancelled. BUDGET: seconds after which an operation begins
# no other try. A store that never answers is given up within three minutes: 150 + 25 = 175 s.
SILENCE = 25.0
BUDGET = 150.0

# Bytes per second (2 Mbit/s) below which a body counts as stuck: each MiB adds 4 s to the limit of its request.
_SLOWEST = 2**18

# Bytes that the buffers of a connection may hold (tcp_wmem of Linux): not yet sent when the last byte is written.
_BUFFERED = 4 * 2**20

# Seconds for the requests that tidy up after another that has failed.
_CLEANUP = 5.0

Call = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


class DeadlineError(ConnectionError):
    """A request was cancelled because it took too long."""


def allowance(size: int) -> float:
    """Return the seconds that a request may take whose body has `size` bytes."""
    return SILENCE + size / _SLOWEST


def in_time(action: Callable[[], T], seconds: float) -> T:
    """Run an action that cannot be cancelled, in a thread, and return its result.

    Raises:
        DeadlineError: it takes longer than `seconds`; its thread is abandoned.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(action())
        except BaseException as error:  # noqa: BLE001  # the caller gets it
            future.set_exception(error)

    Thread(target=run, name="trapline-in-time", daemon=True).start()  # a daemon: the process can end before it
    wait([future], seconds)
    if not future.done():
        raise DeadlineError(f"not done after {seconds:.0f} s: given up")
    return future.result()


def with_deadline(call: Call) -> Call:
    """Wrap the one method through which a client of aiobotocore makes all its requests."""

    async def limited(operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        data = parameters.get("Body")
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with _limited(operation, _CLEANUP if operation.startswith("Abort") else SILENCE) as timeout:
            if isinstance(data, bytes | bytearray | memoryview) and data:
                last = started + allowance(len(data))
                silence = allowance(min(len(data), _BUFFERED))
                parameters = {**parameters, "Body": _Upload(data, lambda: _postpone(timeout, silence, last))}
            answer = await call(operation, parameters)
        if hasattr(answer.get("Body"), "read"):
            answer["Body"] = _Download(operation, answer["Body"], started + allowance(answer.get("ContentLength") or 0))
        return answer

    return limited


class _Upload(io.BytesIO):
    """The body of a request, which reports each time that more of it is sent."""

    def __init__(self, data: Any, on_read: Callable[[], None]) -> None:
        super().__init__(data)
        self._on_read = on_read

    def read(self, size: int | None = -1) -> bytes:
        self._on_read()
        return super().read(size)


class _Download:
    """The body of an answer: reading it whole has a deadline, and reading a piece of it has a limit."""

    def __init__(self, operation: str, body: Any, deadline: float) -> None:
        self._operation = operation
        self._body = body
        self._deadline = deadline

    async def read(self, size: int | None = None) -> bytes:
        now = asyncio.get_running_loop().time()
        try:
            async with _limited(self._operation, max(0.0, self._deadline - now) if size is None else SILENCE):
                data: bytes = await self._body.read(size)
                return data
        except DeadlineError:
            self._body.close()  # the connection cannot be used again
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)


@asynccontextmanager
async def _limited(operation: str, seconds: float) -> AsyncIterator[asyncio.Timeout]:
    timeout = asyncio.timeout(seconds)
    try:
        async with timeout:
            yield timeout
    except TimeoutError as error:
        if timeout.expired():
            raise DeadlineError(f"{operation}: no answer, or too slow a one: cancelled") from error
        raise


def _postpone(timeout: asyncio.Timeout, silence: float, last: float) -> None:
    # The task that sends a request may still read its body after the request has ended.
    with suppress(RuntimeError):
        timeout.reschedule(min(last, asyncio.get_running_loop().time() + silence))
