"""Call a function at a fixed interval in a background thread, as long as a context lasts."""

from collections.abc import Callable
from threading import Event, Thread
from types import TracebackType
from typing import Self


class Periodic:
    """Call `work` in a thread; leaving the context waits for the call under way, and stops.

    Args:
        work: the function; an exception that it raises ends the calls.
        every: seconds before the first call and between two calls.
    """

    def __init__(self, work: Callable[[], object], every: float) -> None:
        self._work = work
        self._every = every
        self._stop = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self._work()
