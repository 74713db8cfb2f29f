"""Runs see each other: as long as a run is active, its manifest is rewritten every minute, and so stays young."""

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
# Older than this, by the store's own clock, a manifest that says `running` is that of a run that was killed.
_YOUNG = timedelta(seconds=3 * _BEAT)


class Heartbeat(Periodic):
    """Rewrite a manifest at a fixed interval; the closing one, written after the context, is the last.

    A store that refuses it now and then is no error here: the next commit finds out.

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

    Args:
        entry: the file.
        now: the store's time, from a file that this run has just written; None where the store does not say.

    A file that is dated ahead is not young: its writer is not active at a time that has not come yet.
    """
    return bool(now and entry.modified and abs(now - entry.modified) < _YOUNG)


def store_time(entries: Iterable[Entry], run_id: str) -> datetime | None:
    """Return the store's time, from this run's manifest, which was just written; None where the store does not say."""
    return next((entry.modified for entry in entries if entry.url.endswith(f"/{run_id}.json")), None)


def others(output: str, run_id: str) -> list[dict[str, Any]]:
    """Return the manifests of other runs that write to OUTPUT now, this run's own being just written.

    Where a store does not say when a file was modified, no run is seen; that costs double work and never a row.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    entries = manifest.listed(output)  # a listing may be stale
    now = store_time(entries, run_id)
    young = [entry for entry in entries if is_young(entry, now) and not entry.url.endswith(f"/{run_id}.json")]
    return [content for _, content in manifest.read(young) if content["status"] == "running"]
