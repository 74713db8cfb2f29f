"""Where `trapline events` writes its tables, and whether they belong to the results as they are now.

    EVENTS/events/NAME.parquet       one row per event
    EVENTS/images/NAME.parquet       one row per image that is in an event
    EVENTS/unassigned/…              one row per image that is in no event, and why
    EVENTS/deployments/…             where a table of deployments was given, its rows: where each stood and when

Each of the folders is one table, which every Parquet reader opens as a whole. NAME stands for a deployment, and
no reader takes it for a column: the tables name the deployment themselves, as text.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from trapline.analysis import tables
from trapline.analysis.dataset import Results
from trapline.errors import UsageError
from trapline.results.fingerprint import Fingerprint
from trapline.storage import store

EVENTS = "events"
IMAGES = "images"
UNASSIGNED = "unassigned"
DEPLOYMENTS = "deployments"

# Of a deployment's name in a file name; with the digest well below the 255 bytes that file systems allow.
_READABLE_LENGTH = 60


@dataclass(frozen=True)
class EventFiles:
    """The files of the tables, by URL, and how they were made; of `deployments` none where no such table was given."""

    events: tuple[str, ...]
    images: tuple[str, ...]
    unassigned: tuple[str, ...]
    deployments: tuple[str, ...]
    fingerprint: Fingerprint

    @property
    def deployment_from(self) -> tuple[str, ...]:
        """Return where deployments were looked up, as in `deployments.py`."""
        return tuple(self.fingerprint.facts["deployment_from"])

    @property
    def corrects_clocks(self) -> bool:
        """Return whether times in these tables may differ from those of the results."""
        return not self.fingerprint.facts.keys().isdisjoint({"corrections_sha256", "timezone"})


def table_url(folder: str, table: str, deployment: str) -> str:
    """Return where the file of a deployment belongs; of the name "", the file without rows where there is no event.

    The name is readable and has no `=`, `_` or `.` at its start, which readers take for a partition or skip; the digest
    keeps apart what differs in other characters only, also where a file system ignores case.
    """
    readable = re.sub(r"[^A-Za-z0-9]+", "-", deployment).strip("-")[:_READABLE_LENGTH]
    digest = hashlib.sha256(deployment.encode(errors="surrogatepass")).hexdigest()[:12]
    return store.join(folder, table, "-".join(filter(None, (readable, digest))) + ".parquet")


def unassigned_url(folder: str) -> str:
    """Return where the images that are in no event are listed."""
    return store.join(folder, UNASSIGNED, "unassigned.parquet")


def deployments_url(folder: str) -> str:
    """Return where the deployments are listed, if they were given as a table."""
    return store.join(folder, DEPLOYMENTS, "deployments.parquet")


def find(folder: str, results: Results) -> EventFiles:
    """Return the files of the events that were made of these results as they are now.

    Raises:
        UsageError: there are none, or the results have changed since.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    folder = store.absolute(folder)
    known = {url: table for url, table in tables.survey(folder).items() if table}
    if not known:
        raise UsageError(f"{folder}: holds no events; `trapline events` writes them")
    # This table is written last, and from all files.
    last = known.get(unassigned_url(folder))
    if (
        not last
        or last.identity != tables.identity(results.files)
        or any(table.fingerprint != last.fingerprint for table in known.values())
    ):
        raise UsageError(f"{folder}: not the events of {results.output} as it is now; run `trapline events` again")
    events, images, unassigned, deployments = (
        _below(known, store.join(folder, table)) for table in (EVENTS, IMAGES, UNASSIGNED, DEPLOYMENTS)
    )
    found = EventFiles(events, images, unassigned, deployments, last.fingerprint)
    if not any(known[url].rows for url in found.events):
        raise UsageError(
            f"{folder}: every image is in `{UNASSIGNED}`, and none in an event; its column `reason` says why"
        )
    return found


def _below(urls: Iterable[str], folder: str) -> tuple[str, ...]:
    return tuple(sorted(url for url in urls if url.startswith(f"{folder}/")))
