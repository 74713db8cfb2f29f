"""Runs that know of each other: while a run goes on, its manifest is written anew every minute, and so stays young."""

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from trapline.errors import TraplineError
from trapline.results import layout
from trapline.run.manifest import Manifest
from trapline.run.periodic import Periodic
from trapline.storage import store
from trapline.storage.store import Entry

# Seconds between two beats.
_BEAT = 60.0
# Older than this, by the store's own clock, a manifest that says `running` is that of a run that was killed.
_YOUNG = timedelta(seconds=3 * _BEAT)


class Heartbeat(Periodic):
    """Writes a manifest again and again; the closing one, written after the context, is the last.

    A store that refuses it now and then is none of its business: whoever commits will hear of it.

    Args:
        output: where the manifest lies.
        manifest: gives it, as it is now.
        beat: seconds between two.
    """

    def __init__(self, output: str, manifest: Callable[[], Manifest], beat: float = _BEAT) -> None:
        super().__init__(self._beat, beat)
        self._output = output
        self._manifest = manifest

    def _beat(self) -> None:
        with suppress(TraplineError):
            self._manifest().write(self._output)


def is_old(entry: Entry, runs: Iterable[Entry]) -> bool:
    """Whether a manifest was last written long before the latest of some; False where the store does not say when."""
    latest = max((run.modified for run in runs if run.modified), default=None)
    return bool(latest and entry.modified and latest - entry.modified >= _YOUNG)


def others(output: str, run_id: str) -> list[dict[str, Any]]:
    """The manifests of other runs that write to OUTPUT now, this run's own being just written.

    Where a store does not say when a file was modified, nobody is seen; that costs double work and never a row.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    runs = store.list_files(layout.runs_folder(output), missing_ok=True)  # a listing may be stale
    entries = {entry.url: entry for entry in runs}
    mine = next((entry.modified for url, entry in entries.items() if url.endswith(f"/{run_id}.json")), None)
    if mine is None:
        return []
    young = [
        url
        for url, entry in entries.items()
        if entry.modified and mine - entry.modified < _YOUNG and not url.endswith(f"/{run_id}.json")
    ]
    manifests = [json.loads(data) for data in store.read_many(young)]
    return [manifest for manifest in manifests if manifest["status"] == "running"]
