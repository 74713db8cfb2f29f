"""The manifests in RESULTS/_trapline/runs, as a table."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from trapline.analysis.sql import Table
from trapline.results import layout
from trapline.storage import store

# The last month of nights.
_MOST_RUNS = 30

_NAMES = (
    "started", "status", "shards", "images", "failed", "images/s", "bound by", "decoding busy", "predicting busy",
    "took",
)  # fmt: skip


def table(output: str) -> Table:
    """Return the last runs over these results, in the order of their start; files that are no manifest are left out.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    folder = store.list_files(layout.runs_folder(output), missing_ok=True)
    urls = [entry.url for entry in sorted(folder, key=attrgetter("url")) if entry.url.endswith(".json")]
    rows = [row for row in map(_row, store.read_many(urls[-_MOST_RUNS:])) if row]
    return Table(_NAMES, rows, max(0, len(urls) - _MOST_RUNS))


def _row(data: bytes) -> tuple[Any, ...] | None:
    try:
        run: Mapping[str, Any] = json.loads(data)
        images = {status: int(count) for status, count in run["images"].items()}
        return (
            datetime.fromisoformat(run["started_at"]),
            str(run["status"]),
            int(run["shards_committed"]),
            sum(images.values()),
            images.get("failed", 0),
            float(run["images_per_second"]),
            str(run["bound_by"]),
            float(run["busy"].get("decode", 0)),
            float(run["busy"].get("predict", 0)),
            str(timedelta(seconds=round(run["seconds"]))),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):  # half a file, or of another version
        return None
