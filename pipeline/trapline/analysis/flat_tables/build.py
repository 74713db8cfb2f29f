"""Keep the flat tables of an archive up to date: which files are to be written, and which are to go."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from trapline.analysis import dataset, deployments, parallel, tables
from trapline.analysis.dataset import Results
from trapline.analysis.flat_tables import contents, packing
from trapline.analysis.flat_tables.contents import Part, TableFile
from trapline.analysis.flat_tables.flat_columns import flat_columns
from trapline.analysis.flat_tables.iceberg import DATA, IcebergName, IcebergTable
from trapline.analysis.flat_tables.packing import FilePlan
from trapline.analysis.flat_tables.table_file import Writer
from trapline.errors import OutputConflict, TransientError
from trapline.ray_session import on_shared_cluster
from trapline.results import layout
from trapline.results.fingerprint import Fingerprint
from trapline.storage import store

# Raise it when the columns of the tables, or what they mean, change.
TABLES_VERSION = 1
# 77 bytes a row, measured with five species and few EXIF values: a file of 77 MB and more.
IMAGES_PER_FILE = 1_000_000


@dataclass
class Account:
    """What a run did.

    Attributes:
        files: that there are now.
        unchanged: of these, how many were already as they should be.
        removed: files whose shards all have gone.
        shards: in all files.
        images: images and clips in all files.
        rows: in all files, with those of crops and of frames.
    """

    files: int = 0
    unchanged: int = 0
    removed: int = 0
    shards: int = 0
    images: int = 0
    rows: int = 0


def build(
    source: Results,
    output: str,
    deployment_from: Sequence[str] = (),
    images_per_file: int = IMAGES_PER_FILE,
    replace: bool = False,
    iceberg: IcebergName | None = None,
    progress: Callable[[Iterable[int], int], Iterable[int]] = lambda answers, total: answers,
) -> Account:
    """Write the files of the flat tables that are missing or out of date.

    Args:
        source: the results of `classify` or `rescore`.
        output: a folder for the tables alone.
        deployment_from: where deployments are looked up, as in `deployments.py`; without it the tables have no columns
            `deployment` and `camera`.
        images_per_file: after so many a file takes no more shards.
        replace: overwrite tables that were made of other results or with other options.
        iceberg: make an Iceberg table of this name, of which each run is one snapshot.
        progress: wraps the iterator over written files; its second argument is their number.

    Raises:
        UsageError: one of OUTPUT and the results lies in the other, or `deployment_from` is wrong.
        OutputConflict: OUTPUT holds tables that were made in another way, or foreign Parquet files; or the results
            hold a shard or an image twice.
        StorageError, TransientError: a store refuses, or does not answer; or workers on a cluster have died.
    """
    output = store.absolute(output)
    tables.refuse_nested(source.output, output)
    sources = tuple(map(deployments.parse, deployment_from))
    fingerprint = _fingerprint(source, deployment_from, iceberg)
    columns = flat_columns(dataset.schema(source), _top_k(source), sources)
    writer = Writer(source, columns, sources, fingerprint, threads=1 if on_shared_cluster() else None)
    found = _survey(output, fingerprint, replace)
    if not iceberg and any("iceberg" in file.origin.fingerprint.facts for file in found.values()):
        raise OutputConflict(
            f"{output}: is an Iceberg table, and its metadata would stay in the way of those who read the folder; "
            "choose another folder, or keep --iceberg"
        )
    table = IcebergTable(iceberg, output, writer.schema, may_create=replace or not found) if iceberg else None
    if table:
        table.expire()
    existing = _tidied(output, found, fingerprint, table)
    wanted = [Part.of(file, source.output) for file in source.files]
    plans = packing.assign(wanted, existing, store.join(output, DATA) if table else output, images_per_file)
    removed = existing.keys() - {plan.before for plan in plans}
    todo = [plan.renamed(fingerprint.digest) if table else plan for plan in plans if not plan.complete]
    if not table:
        for url in sorted(removed):
            store.remove(url)
    unfinished: list[str] = []

    def lost(plan: FilePlan, why: str) -> int:
        unfinished.append(f"{plan.url} ({why})")
        return 0

    # On this machine DuckDB uses all cores for one file at a time.
    rows = sum(progress(parallel.each(writer, todo, threads=1, lost=lost), len(todo)))
    if unfinished:
        raise TransientError(f"{len(unfinished):,} files are not up to date, such as {unfinished[0]}; run it again")
    complete = {plan.url for plan in plans if plan.complete}
    if table:
        table.commit(writer.schema, [plan.url for plan in todo], keep=complete)
    return Account(
        files=len(plans),
        unchanged=len(complete),
        removed=len(removed),
        shards=len(wanted),
        images=sum(part.images for part in wanted),
        rows=rows + sum(existing[url].origin.rows for url in complete),
    )


def _survey(output: str, fingerprint: Fingerprint, replace: bool) -> dict[str, TableFile]:
    """Return the files that there are, refusing foreign ones and, without `replace`, those made in another way."""
    found = contents.survey(output)
    if foreign := sorted(url for url, file in found.items() if file is None):
        raise OutputConflict(
            f"{foreign[0]}: not written by `trapline tables`, and readers would take it for a part; move it"
        )
    files = {url: file for url, file in found.items() if file}
    if not replace:
        tables.refuse_others({url: file.origin for url, file in files.items()}, fingerprint, output)
    return files


def _tidied(
    output: str, found: dict[str, TableFile], fingerprint: Fingerprint, table: IcebergTable | None
) -> dict[str, TableFile]:
    """Return the files that are made in this way and that readers see; remove what no reader is to see.

    Files made in another way go before anything is written, since an image would be in two files; those of an Iceberg
    table go after the snapshot without them.
    """
    layout.remove_partial(output)
    seen = table.files().keys() if table else found.keys()
    mine = {url for url in seen & found.keys() if found[url].origin.fingerprint == fingerprint}
    for url in sorted(found.keys() - (seen if table else mine)):
        store.remove(url)
    return {url: found[url] for url in sorted(mine)}


def _top_k(source: Results) -> int:
    return min(int(source.fingerprint.facts.get("top_k", 5)), len(source.classes))


def _fingerprint(source: Results, deployment_from: Sequence[str], iceberg: IcebergName | None) -> Fingerprint:
    facts: dict[str, object] = {
        "tables_version": TABLES_VERSION,
        "deployment_from": list(deployment_from),
        "results": source.output,
        "results_fingerprint": source.fingerprint.digest,
    }
    if iceberg:
        facts["iceberg"] = iceberg.table
    return Fingerprint.from_json(json.dumps(facts))
