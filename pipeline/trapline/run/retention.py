"""Delete what old runs leave: manifests, boxes of killed runs, and files that were never finished.

A folder that gets a manifest every night would be listed for ever longer; an index of boxes may have gigabytes.
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

# Deleting is one request each; the first time, years of them may be due.
_DELETIONS = 16


def tidy(output: str, keep_runs: int, run_id: str, among_results: Sequence[Entry] = ()) -> None:
    """Delete the manifests of all but the last `keep_runs` runs, by their start, and the boxes of runs that have ended.

    Nothing is deleted of a run that is active, and no file that Trapline did not write.

    Args:
        output: of the runs.
        keep_runs: of how many runs the manifests are kept.
        run_id: of this run, whose closing manifest was just written: ages are measured from it.
        among_results: files that were being written when this run began, or that killed runs left; those of the latter
            are deleted, as long as no other run is active.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    # Before the manifests: a run writes its own first.
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
        # Where the store does not say when it was written, a run that says `running` may be.
        if content["status"] != "running" or (now and entry.modified and not is_young(entry, now))
    }
    unfinished = [entry for entry in (*entries, *boxes) if is_temporary(entry.url)]
    active = [entry for entry in runs if entry.modified and is_young(entry, now) and _name(entry) != f"{run_id}.json"]
    if among_results and not any(content["status"] == "running" for _, content in manifest.read(active)):
        unfinished += [now_there for entry in among_results if (now_there := _as_it_is(entry))]
    # One that grows is young: a store's time of it is that of its last byte.
    abandoned = [entry for entry in unfinished if now and entry.modified and not is_young(entry, now)]
    orphans = [index for index in boxes if index not in unfinished and manifest_of.get(_name(index)) in {*ended, None}]
    with ThreadPoolExecutor(_DELETIONS) as threads:
        list(threads.map(store.remove, [entry.url for entry in [*ended.intersection(surplus), *orphans, *abandoned]]))


def _name(entry: Entry) -> str:
    return entry.url.rpartition("/")[2]


def _as_it_is(entry: Entry) -> Entry | None:
    """Return facts of a file as it is now; None where it has gone."""
    try:
        return store.stat(entry.url)
    except StorageError:
        return None
