"""What a caller of `classify` can pass to follow a run: an observer, a callback for the end, contexts."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from trapline.run.manifest import Manifest
from trapline.run.progress import Progress


class RunObserver(Protocol):
    """Receive progress updates and notes from a run."""

    def __call__(self, progress: Progress) -> None:
        """Receive the running totals, after every step."""

    def note(self, text: str) -> None:
        """Receive something that a person should know."""


OnEnd = Callable[[Manifest, str], None]
"""Called once with the closing manifest and its URL, however the run ended."""

During = Callable[[Progress], AbstractContextManager[object]]
"""Returns a context that is entered while shards are processed, with Ray connected."""


def ignore_end(manifest: Manifest, url: str) -> None:
    """Do nothing when a run ends."""
