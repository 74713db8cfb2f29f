"""How runs see each other: an active run rewrites its manifest every minute, so that the file stays young."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from trapline.errors import TraplineError
from trapline.run import manifest
from trapline.run.manifest import Manifest
from trapline.run.periodic import Periodic
from trapline.storage.store import Entry

# Seconds between two beats.
_BEAT = 60.0
# If a manifest that says `running` is older than this, by the store's own clock, its run was killed.
_YOUNG = timedelta(seconds=3 * _BEAT)


class Heartbeat(Periodic):
    """Rewrite a manifest at a fixed interval; the closing one, written after the context, is the last.

    Errors of the store are ignored here: the next commit finds them.

    Args:
        output: where the manifest is.
        current: returns the manifest as of now.
        beat: seconds between two writes.
    """

    def __init__(self, output: str, current: Callable[[], Manifest], beat: float = _BEAT) -> None:
        super().__init__(self._beat, beat)
        self._output = output
        self._current = current

    def _beat(self) -> None:
        with suppress(TraplineError):
            self._current().write(self._output)


def is_young(entry: Entry, now: datetime | None) -> bool:
    """Return whether a file was written within the last minutes, so that the run that wrote it may be active.

    A file with a date in the future is not young.

    Args:
        entry: the file.
        now: the store's time, from a file that this run has just written; None if the store does not say.
    """
    return bool(now and entry.modified and abs(now - entry.modified) < _YOUNG)


def store_time(entries: Iterable[Entry], run_id: str) -> datetime | None:
    """Return the store's time, from this run's manifest, just written; None if the store does not say."""
    return next((entry.modified for entry in entries if entry.url.endswith(f"/{run_id}.json")), None)


def others(output: str, run_id: str) -> list[dict[str, Any]]:
    """Return the manifests of other runs that are writing to OUTPUT; this run must have written its own just now.

    If the store does not date files, no run is seen; that costs double work, but never a row.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    entries = manifest.listed(output)  # a listing may be stale
    now = store_time(entries, run_id)
    young = [entry for entry in entries if is_young(entry, now) and not entry.url.endswith(f"/{run_id}.json")]
    return [content for _, content in manifest.read(young) if content["status"] == "running"]
