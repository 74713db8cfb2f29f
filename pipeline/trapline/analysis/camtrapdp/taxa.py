"""The table that names the classes of a model as the standard does."""

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from trapline.analysis import csv_input
from trapline.analysis.camtrapdp import descriptor
from trapline.analysis.spelling import respelled
from trapline.errors import UsageError

_TYPES = ("animal", "human", "vehicle", "blank")
_NAMES = ("class", "scientificName", "observationType", "taxonID", "taxonRank")


def load(connection: duckdb.DuckDBPyConnection, url: str | None, classes: Sequence[str]) -> None:
    """Create the table `taxa`, a row per class: class, scientificName, observationType, taxonID, taxonRank.

    Args:
        connection: that gets the table.
        url: a CSV with the columns class and scientificName, and perhaps the others; None: the classes are scientific
            names of animals.
        classes: names of the classes.

    Raises:
        UsageError: the table is none, does not name every class once, or says what the standard does not allow.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    rows = _read(url, classes) if url else [{"class": each, "scientificName": each} for each in classes]
    columns = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in _NAMES}
    connection.register("given_taxa", pa.table(columns))
    connection.execute("""
        create or replace temp table taxa as
        select * replace (coalesce(observationType, 'animal') as observationType) from given_taxa""")


def _read(url: str, classes: Sequence[str]) -> list[dict[str, str | None]]:
    found = csv_input.read(url, _NAMES[:2], _NAMES[2:]).to_pylist()
    as_model = respelled({row["class"] for row in found if row["class"]}, classes)
    rows = [{name: row.get(name) for name in _NAMES} for row in found]
    for row in rows:
        row["class"] = as_model.get(row["class"] or "", row["class"])
    rows = [row for row in rows if row["class"] in set(classes)]
    named = [row["class"] for row in rows]
    _refuse(url, "lacks the class", [each for each in classes if each not in set(named)])
    _refuse(url, "names twice the class", sorted({each for each in named if each and named.count(each) > 1}))
    kinds = [row for row in rows if (row["observationType"] or "animal") not in _TYPES]
    _refuse(url, f"observationType is none of {', '.join(_TYPES)}, of the class", [row["class"] for row in kinds])
    nameless = [row for row in rows if not row["scientificName"] and (row["observationType"] or "animal") == "animal"]
    _refuse(url, "says no scientificName of the class", [row["class"] for row in nameless])
    ranks = descriptor.profile()["properties"]["taxonomic"]["items"]["properties"]["taxonRank"]["enum"]
    for row in rows:
        row["taxonRank"] = row["taxonRank"] and row["taxonRank"].lower()
    wrong = [row["class"] for row in rows if row["taxonRank"] and row["taxonRank"] not in ranks]
    _refuse(url, f"taxonRank is none of {', '.join(ranks)}, of the class", wrong)
    return rows


def _refuse(url: str, problem: str, classes: Sequence[str | None]) -> None:
    if classes:
        more = f" (and {len(classes) - 1:,} more)" if len(classes) > 1 else ""
        raise UsageError(f"{url}: {problem} {classes[0]}{more}")
