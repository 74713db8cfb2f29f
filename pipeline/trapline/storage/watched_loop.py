"""Run clients of stores on an event loop that ends each operation that stalls or takes too long.

Every asynchronous filesystem of fsspec (http, gs, abfs and others) runs its requests as tasks of the loop that it is
given, whatever library makes them; their own timeouts are per read, do not exist, or are lost after a malformed answer.
On this loop an operation ends, with all tasks that it has started, when none of its tasks has advanced for a while.
"""

import asyncio
import os
import types
from collections.abc import Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from threading import Thread
from typing import Any

from trapline.storage.deadlines import DeadlineError, allowance

# Seconds after which an operation ends that moves an unknown number of bytes. A listing of millions of names brings
# some 5,000 a second.
UNKNOWN = 1800.0

_transfer: ContextVar[tuple[int, int | None]] = ContextVar("transfer", default=(0, None))
_operation: ContextVar["_Operation"] = ContextVar("operation")


def watched_loop() -> asyncio.AbstractEventLoop:
    """Return the loop of this process, which runs in a thread of its own."""
    return _loop_of(os.getpid())  # a fork has no threads of its parent


@contextmanager
def transfer(sent: int, received: int | None) -> Iterator[None]:
    """Declare how many bytes each operation moves that this thread begins in the context; None if not known."""
    token = _transfer.set((sent, received))  # asyncio hands the context of the caller to the task
    try:
        yield
    finally:
        _transfer.reset(token)


@cache
def _loop_of(process: int) -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(_create_task)
    Thread(target=loop.run_forever, name="trapline-store", daemon=True).start()
    return loop


def _create_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> "asyncio.Task[Any]":
    return asyncio.Task(_watched(coroutine), loop=loop, **options)


async def _watched(coroutine: Coroutine[Any, Any, Any]) -> Any:
    operation = _operation.get(None)
    if operation is not None:  # a task that an operation has started
        return await _steps(coroutine, operation)
    operation = _Operation(*_transfer.get())
    _operation.set(operation)
    try:
        return await _steps(coroutine, operation)
    finally:
        operation.timer.cancel()


class _Operation:
    """What one call of a filesystem makes the loop do."""

    def __init__(self, sent: int, received: int | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.task = asyncio.current_task()
        # A body is handed to the socket as a whole: no task advances until most of it has been sent.
        self.silence = allowance(sent)
        self.last = self.loop.time() + (UNKNOWN if received is None else allowance(sent + received))
        self.expired = False
        self.moved_at = self.loop.time()
        self.timer: asyncio.Handle = self.loop.call_at(
            min(self.last, self.moved_at + self.silence), self._end_if_overdue
        )

    def moved(self) -> None:
        """Record that one of the tasks has advanced; cancel the operation again if it has expired and continues."""
        self.moved_at = self.loop.time()
        if self.expired:
            self.timer = self.loop.call_soon(self._expire)

    def _end_if_overdue(self) -> None:
        ends = min(self.last, self.moved_at + self.silence)
        if self.loop.time() < ends:
            self.timer = self.loop.call_at(ends, self._end_if_overdue)
        else:
            self._expire()

    def _expire(self) -> None:
        self.expired = True
        if self.task:
            self.task.cancel()


@types.coroutine
def _steps(coroutine: Coroutine[Any, Any, Any], operation: _Operation) -> Generator[Any, Any, Any]:
    """Run a coroutine and record each of its steps; raise DeadlineError in it when the operation has expired.

    Not CancelledError: fsspec's runner would return None for it.
    """
    advance = partial(coroutine.send, None)
    while True:
        try:
            awaited = advance()
        except StopIteration as stop:
            return stop.value
        operation.moved()
        try:
            advance = partial(coroutine.send, (yield awaited))
        except GeneratorExit:
            coroutine.close()
            raise
        except asyncio.CancelledError as error:
            if operation.expired and asyncio.current_task() is operation.task:
                operation.task.uncancel()  # type: ignore[union-attr]
                advance = partial(coroutine.throw, DeadlineError("no answer, or too slow a one: cancelled"))
            else:
                advance = partial(coroutine.throw, error)
        except BaseException as error:  # noqa: BLE001  # the coroutine gets it
            advance = partial(coroutine.throw, error)
