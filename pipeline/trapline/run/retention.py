"""Delete what old runs leave: manifests, boxes of killed runs, and files that were never finished.

With one more manifest every night, listing the folder would take longer and longer; an index of boxes may have
gigabytes.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from trapline.errors import StorageError
from trapline.results import layout
from trapline.run import manifest
from trapline.run.heartbeat import is_young, store_time
from trapline.storage import store
from trapline.storage.local import is_temporary
from trapline.storage.store import Entry

# Files that are deleted at the same time, one request each; the first time there may be years of them.
_DELETIONS = 16


def tidy(output: str, keep_runs: int, run_id: str, among_results: Sequence[Entry] = ()) -> None:
    """Delete the manifests of all but the last `keep_runs` runs, by their start, and the boxes of runs that have ended.

    Nothing is deleted of a run that is active, and no file that Trapline did not write.

    Args:
        output: of the runs.
        keep_runs: the number of manifests to keep.
        run_id: of this run, whose closing manifest has just been written: ages are relative to it.
        among_results: unfinished files that this run found when it began. Those that killed runs left are deleted,
            unless another run is active.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    # Listed before the manifests: a run writes its manifest before its boxes.
    boxes = store.list_files(layout.detections_folder(output), missing_ok=True)
    entries = store.list_files(layout.runs_folder(output), missing_ok=True)
    now = store_time(entries, run_id)
    runs = [entry for entry in entries if entry.url.endswith(".json")]
    surplus = runs[: max(0, len(runs) - keep_runs)]
    manifest_of = {_name(run).removesuffix(".json"): run for run in runs}
    owners = [manifest_of[_name(index)] for index in boxes if _name(index) in manifest_of]
    asked = [*surplus, *(owner for owner in owners if owner not in surplus)]
    ended = {
        entry
        for entry, content in manifest.read(asked)
        # If the store does not date files, a run whose manifest says `running` may still be.
        if content["status"] != "running" or (now and entry.modified and not is_young(entry, now))
    }
    unfinished = [entry for entry in (*entries, *boxes) if is_temporary(entry.url)]
    active = [entry for entry in runs if entry.modified and is_young(entry, now) and _name(entry) != f"{run_id}.json"]
    if among_results and not any(content["status"] == "running" for _, content in manifest.read(active)):
        unfinished += [now_there for entry in among_results if (now_there := _as_it_is(entry))]
    # A file that is still growing is young: its time is that of its last byte.
    abandoned = [entry for entry in unfinished if now and entry.modified and not is_young(entry, now)]
    orphans = [index for index in boxes if index not in unfinished and manifest_of.get(_name(index)) in {*ended, None}]
    with ThreadPoolExecutor(_DELETIONS) as threads:
        list(threads.map(store.remove, [entry.url for entry in [*ended.intersection(surplus), *orphans, *abandoned]]))


def _name(entry: Entry) -> str:
    return entry.url.rpartition("/")[2]


def _as_it_is(entry: Entry) -> Entry | None:
    """Return facts of a file as it is now; None if it is gone."""
    try:
        return store.stat(entry.url)
    except StorageError:
        return None
