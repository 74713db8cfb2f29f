"""What every job writes, opened by every reader: the rows that the job counted, and keys that no reader re-types."""

import io
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pandas
import polars
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from tests.support import r_session
from tests.support.events import CLASSES, at
from tests.support.result_files import MARK, columns, write_result
from trapline.cli import duplicates, events, rescore, tables
from trapline.results.fingerprint import Fingerprint

# Each of them is a number, a date, a truth or nothing to some reader that takes folders for columns; some are equal then.
SITES = ("007", "7", "08", "1e3", "2024-05-01", "true", "__HIVE_DEFAULT_PARTITION__")
COPY = {"content_sha256": b"\1" * 32}


@dataclass(frozen=True)
class Written:
    """A table that a job has written.

    Attributes:
        place: its folder, or its file.
        rows: how many rows the job said that it has.
        key: a column, and the values that it has.
        mirrors: whether it mirrors the input's folders, so that they must be kept from becoming columns.
    """

    place: Path
    rows: int
    key: str
    values: frozenset[str]
    mirrors: bool = False


def ran(command: Callable[[list[str]], int], *arguments: object) -> list[int]:
    """The numbers that a command printed."""
    with redirect_stdout(io.StringIO()) as printed:
        assert command([str(argument) for argument in arguments]) == 0
    return [int(number.replace(",", "")) for number in re.findall(r"(?<![\w.])[\d,]+(?![\w.])", printed.getvalue())]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Written]:
    """Seven sites with an event of two pictures each, two of them copies, and a picture that failed."""
    base = tmp_path_factory.mktemp("readers")
    of = columns(CLASSES, 2)
    for site in SITES:
        planted = [
            at(0, facts=COPY if site in "007" else {}),
            at(20),
            at(None, key="x.jpg", status="failed", error="e: e"),
        ]
        name = f"site={site}/a.tar"
        footer = write_result(f"{base}/results", f"/in/{name}", name, planted, of, loose=False)
        assert sum(footer.images.values()) == 3
    results, pattern = base / "results", "site={deployment}/…"
    listed = duckdb.sql(f"SELECT image_uri FROM read_parquet('{results}/*/*.parquet', hive_partitioning = false)")
    uris = frozenset(uri for (uri,) in listed.fetchall())
    failed = frozenset(uri for uri in uris if uri.endswith("x.jpg"))
    rescored, *_ = ran(rescore.main, results, base / "rescored", "--temperature", 2)
    said = ran(events.main, results, base / "events", "--deployment-from", pattern)
    _, _, _, event_count, in_events, in_none = said[:6]
    *_, copies, _ = ran(duplicates.main, results, "--parquet", base / "copies/copies.parquet")
    _, _, _, flat, _, _ = ran(
        tables.main, results, base / "tables", "--deployment-from", pattern, "--images-per-file", 6
    )
    sites = frozenset(SITES)
    same = frozenset(uri for uri in uris if re.search(r"site=0*7/a\.tar#DCIM/0\.jpg", uri))
    return {
        "results": Written(results, 3 * len(SITES), "image_uri", uris, mirrors=True),
        "rescored": Written(base / "rescored", rescored, "image_uri", uris, mirrors=True),
        "events": Written(base / "events/events", event_count, "deployment", sites),
        "images": Written(base / "events/images", in_events, "image_uri", uris - failed),
        "unassigned": Written(base / "events/unassigned", in_none, "image_uri", failed),
        "duplicates": Written(base / "copies", copies, "image_uri", same),
        "tables": Written(base / "tables", flat, "deployment", sites),
    }


TABLES = ("results", "rescored", "events", "images", "unassigned", "duplicates", "tables")


def in_pandas(of: Written) -> list[Any]:
    frame = pandas.read_parquet(of.place, **({"partitioning": None} if of.mirrors else {}))
    return list(frame[of.key])


def in_pyarrow(of: Written) -> list[Any]:
    found: list[Any] = pq.read_table(of.place, **({"partitioning": None} if of.mirrors else {}))[of.key].to_pylist()
    return found


def in_an_arrow_dataset(of: Written) -> list[Any]:
    dataset = pyarrow.dataset.dataset(of.place, format="parquet")
    found: list[Any] = dataset.to_table()[of.key].to_pylist()
    return found


def in_polars(of: Written) -> list[Any]:
    options: dict[str, Any] = {"hive_partitioning": False} if of.mirrors else {}
    return polars.read_parquet(of.place / "**/*.parquet", **options)[of.key].to_list()


def in_duckdb(of: Written) -> list[Any]:
    options = ", hive_partitioning = false" if of.mirrors else ""
    rows = duckdb.sql(f"FROM read_parquet('{of.place}/**/*.parquet'{options})").to_arrow_table()
    found: list[Any] = rows[of.key].to_pylist()
    return found


READERS = [in_pandas, in_pyarrow, in_an_arrow_dataset, in_polars, in_duckdb]


def agree(found: Iterable[Any], of: Written) -> None:
    found = list(found)
    assert len(found) == of.rows
    assert set(found) == of.values


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_a_table_has_the_rows_that_its_job_counted(
    written: dict[str, Written], name: str, read: Callable[[Written], list[Any]]
) -> None:
    agree(read(written[name]), written[name])


def test_the_flat_tables_say_places_as_the_folders_do(written: dict[str, Written]) -> None:
    assert set(in_polars(Written(written["tables"].place, 0, "folder", frozenset()))) == {f"site={s}" for s in SITES}


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    sql = pytest.importorskip("pyspark.sql")
    if not shutil.which("java"):
        pytest.skip("Java is not on this machine")
    builder = sql.SparkSession.builder.master("local[1]")
    for name, value in {
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.shuffle.partitions": "1",
    }.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_spark_agrees(written: dict[str, Written], spark: Any, tmp_path: Path) -> None:
    for of in written.values():
        reader = spark.read.option("recursiveFileLookup", "true") if of.mirrors else spark.read
        # A row as a whole, so that each column is opened.
        agree((row[of.key] for row in reader.parquet(str(of.place)).collect()), of)
    half = columns(CLASSES, 2, embedding="float16")
    write_result(
        str(tmp_path), "/in/b.tar", "b.tar", [at(0)], half, Fingerprint({**MARK.facts, "embedding": "float16"})
    )
    with pytest.raises(Exception, match=r"FLOAT16|Illegal Parquet type"):  # as the help of --embedding says
        spark.read.parquet(str(tmp_path / "b.tar.parquet")).select("image_uri").collect()


@pytest.mark.slow
def test_r_agrees(written: dict[str, Written]) -> None:
    r_session.require("nanoparquet", "jsonlite")
    names = ["events", "images", "unassigned", "duplicates", "tables"]
    code = "\n".join(
        f"""files <- list.files("{of.place}", "parquet$", full.names = TRUE)
        keys <- c(keys, list(unlist(lapply(files, function(f) nanoparquet::read_parquet(f)[["{of.key}"]]))))"""
        for of in map(written.__getitem__, names)
    )
    found = r_session.answer(f"keys <- list()\n{code}\ncat(jsonlite::toJSON(keys))")
    for name, keys in zip(names, found, strict=True):
        agree(keys, written[name])
