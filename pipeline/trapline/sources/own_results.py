"""Leave the results of earlier runs out of the input: an OUTPUT often lies below the archive that it was made from."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from trapline.sources.file_types import count_ignored
from trapline.storage import store
from trapline.storage.store import Entry

OWN_RESULT = "(result of Trapline)"

# The folder of an OUTPUT for everything but rows.
_SIDE_FOLDER = "/_trapline/"
# Names of results; for files that no longer lie in an OUTPUT, the footer decides.
_RESULT_NAME = re.compile(r"\.(tar|tar\.gz|tgz|zip|parquet)\.parquet|/images\.parquet", re.IGNORECASE)
_RESULT_KEY = b"trapline.fingerprint"
# The key-value metadata stands at the end of a Parquet file.
_FOOTER_BYTES = 2**16
_FOOTERS_AT_ONCE = 32


def without_results(entries: Sequence[Entry], ignored: Counter[str]) -> Iterator[Entry]:
    """Yield the files that are no results of earlier runs; count the rest."""
    outputs = {url.partition(_SIDE_FOLDER)[0] for entry in entries if _SIDE_FOLDER in (url := entry.url)}
    suspects = [entry for entry in entries if _has_result_name(entry.url) and not _is_below_any(entry.url, outputs)]
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as threads:
        results = {
            entry.url for entry, found in zip(suspects, threads.map(_has_footer, suspects), strict=True) if found
        }
    for entry in entries:
        in_output = entry.url.endswith(".parquet") and _is_below_any(entry.url, outputs)
        if _SIDE_FOLDER in entry.url or in_output or entry.url in results:
            count_ignored(ignored, OWN_RESULT)
        else:
            yield entry


def _has_result_name(url: str) -> bool:
    return bool(url.endswith(".parquet") and _RESULT_NAME.search(url))


def _is_below_any(url: str, folders: set[str]) -> bool:
    """Return whether a file lies in one of the folders, at any depth."""
    while folders and url:
        url = url.rpartition("/")[0]
        if url in folders:
            return True
    return False


def _has_footer(entry: Entry) -> bool:
    return _RESULT_KEY in store.read_end(entry, _FOOTER_BYTES)
