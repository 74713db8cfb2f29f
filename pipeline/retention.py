"""Manifests of old runs are deleted: a folder that gets one every night would be listed for ever longer."""

import json
from concurrent.futures import ThreadPoolExecutor

from pipeline import storage
from pipeline.heartbeat import is_old
from pipeline.ledger import SIDE_FOLDER
from pipeline.storage import Entry

# Deleting is one request each; the first time, years of them may be due.
_DELETIONS = 16


def keep_last(output: str, count: int) -> None:
    """Delete the manifests of all but the last `count` runs, by their start; never that of a run that is at work.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    entries = storage.list_files(storage.join(output, SIDE_FOLDER, "runs"), missing_ok=True)
    runs = [entry for entry in entries if entry.url.endswith(".json")]
    surplus = runs[: max(0, len(runs) - count)]
    manifests = storage.read_many([entry.url for entry in surplus])
    over = [entry.url for entry, data in zip(surplus, manifests, strict=True) if _is_over(entry, data, runs)]
    with ThreadPoolExecutor(_DELETIONS) as threads:
        list(threads.map(storage.remove, over))


def _is_over(entry: Entry, data: bytes, runs: list[Entry]) -> bool:
    try:
        status = json.loads(data)["status"]
    except (ValueError, TypeError, KeyError):  # not ours
        return False
    return status != "running" or is_old(entry, runs)
