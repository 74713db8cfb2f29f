"""Every path below OUTPUT except those of the results, and which files can be results.

    OUTPUT/…/NAME.parquet               the result of a shard, named by `sources.shards`
    OUTPUT/_trapline/classes.csv        the order of `probabilities`
    OUTPUT/_trapline/ledger.cache       what the footers of the results say
    OUTPUT/_trapline/runs/RUN.json      the manifest of a run
    OUTPUT/_trapline/detections/RUN     the boxes of a run with --detections, while it is active

Names of files that are not data do not end in `.parquet`, so that no reader's glob matches them.
"""

from collections.abc import Iterable

from trapline.sources.file_types import junk_below
from trapline.storage import store
from trapline.storage.local import is_temporary
from trapline.storage.store import Entry

SIDE_FOLDER = "_trapline"


def side_file(output: str, *parts: str) -> str:
    """Return the URL of a file that is not data."""
    return store.join(store.absolute(output), SIDE_FOLDER, *parts)


def classes_file(output: str) -> str:
    """Return the URL of the list of classes."""
    return side_file(output, "classes.csv")


def ledger_cache(output: str) -> str:
    """Return the URL of the ledger's cache, which is Parquet, but has a name that no reader's glob matches."""
    return side_file(output, "ledger.cache")


def runs_folder(output: str) -> str:
    """Return the URL of the folder that holds the manifests of runs."""
    return side_file(output, "runs")


def manifest(output: str, run_id: str) -> str:
    """Return the URL of a run's manifest."""
    return store.join(runs_folder(output), f"{run_id}.json")


def detections_folder(output: str) -> str:
    """Return the URL of the folder that holds the boxes of active runs."""
    return side_file(output, "detections")


def list_files(output: str, missing_ok: bool = False) -> list[Entry]:
    """List every file in OUTPUT, except junk without read permission; arguments and errors as of `store.list_files`."""
    return store.list_files(output, missing_ok, junk_below(store.absolute(output)))


def data_files(entries: Iterable[Entry]) -> list[Entry]:
    """Return those files of an OUTPUT that readers take for its data."""
    return [entry for entry in entries if entry.url.endswith(".parquet") and f"/{SIDE_FOLDER}/" not in entry.url]


def remove_partial(output: str) -> None:
    """Delete the partial files that killed programs left in OUTPUT; raise as `store.put` does."""
    for entry in list_files(output, missing_ok=True):
        if is_temporary(entry.url):
            store.remove(entry.url)
