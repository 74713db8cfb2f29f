"""What old runs leave is deleted: their manifests, and the boxes that a run which was killed had ready for its workers.

A folder that gets a manifest every night would be listed for ever longer; an index of boxes may have gigabytes.
"""

import json
from concurrent.futures import ThreadPoolExecutor

from trapline.results import layout
from trapline.run.heartbeat import is_old
from trapline.storage import store
from trapline.storage.store import Entry

# Deleting is one request each; the first time, years of them may be due.
_DELETIONS = 16


def tidy(output: str, keep_runs: int) -> None:
    """Delete the manifests of all but the last `keep_runs` runs, by their start, and the boxes of those that are over.

    Nothing is deleted of a run that is at work.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    # Before the manifests: a run writes its own first.
    boxes = store.list_files(layout.detections_folder(output), missing_ok=True)
    entries = store.list_files(layout.runs_folder(output), missing_ok=True)
    runs = [entry for entry in entries if entry.url.endswith(".json")]
    surplus = runs[: max(0, len(runs) - keep_runs)]
    manifest_of = {_name(run).removesuffix(".json"): run for run in runs}
    owners = [manifest_of[_name(index)] for index in boxes if _name(index) in manifest_of]
    asked = [*surplus, *(owner for owner in owners if owner not in surplus)]
    manifests = store.read_many([entry.url for entry in asked])
    over = {entry for entry, data in zip(asked, manifests, strict=True) if _is_over(entry, data, runs)}
    orphans = [index for index in boxes if manifest_of.get(_name(index)) in {*over, None}]
    with ThreadPoolExecutor(_DELETIONS) as threads:
        list(threads.map(store.remove, [entry.url for entry in [*over.intersection(surplus), *orphans]]))


def _name(entry: Entry) -> str:
    return entry.url.rpartition("/")[2]


def _is_over(entry: Entry, data: bytes, runs: list[Entry]) -> bool:
    try:
        status = json.loads(data)["status"]
    except (ValueError, TypeError, KeyError):  # not ours
        return False
    return status != "running" or is_old(entry, runs)
