"""EVENTS as analysts open it: each table a folder that every reader reads whole, whatever deployments are called."""

import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from tests.support.result_files import Planted, columns, write_result
from trapline.analysis import dataset, event_dataset
from trapline.analysis.events import build
from trapline.analysis.events.build import Account, Options
from trapline.analysis.events.sessions import Gap
from trapline.errors import UsageError

START = datetime(2024, 5, 17, 23, 59)
# Names that readers take for numbers, dates, nulls, partitions, or files to skip; or that differ in nothing but case.
NAMES = [
    "007", "7", "08", "1e3", "1000", "true", "2024-05-01", "__HIVE_DEFAULT_PARTITION__", "_x", ".x", "a=b", "NA", "null",
    "Fen", "fen", "fen 1", "fen-1", "Bäume", "灯", "'\"", "%2F", "x" * 200,
]  # fmt: skip


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Account]:
    """EVENTS of one deployment a name, each with two events of two images and one image without time."""
    place = str(tmp_path_factory.mktemp("archive"))
    moments = [0, 10, 500, 510, None]
    for number, name in enumerate(NAMES):
        images = [
            Planted(
                f"{moment}.jpg", np.log([0.5, 0.25, 0.25]), (0, 0), json.dumps({"station": name}),
                facts={} if moment is None else {"captured_at": START + timedelta(seconds=moment)},
            )
            for moment in moments
        ]  # fmt: skip
        write_result(f"{place}/results", f"s3://in/{number}.tar", f"{number}.tar", images, columns(["a", "b", "c"], 2))
    options = Options(Gap(), ["metadata:station"])
    return f"{place}/events", build.build(dataset.find(f"{place}/results"), f"{place}/events", options)


READERS: dict[str, Callable[[str], list[dict[str, Any]]]] = {
    "pandas": lambda folder: pd.read_parquet(folder).to_dict("records"),
    "pyarrow table": lambda folder: pq.read_table(folder).to_pylist(),
    "pyarrow dataset": lambda folder: pads.dataset(folder, partitioning="hive").to_table().to_pylist(),
    "polars": lambda folder: pl.read_parquet(folder).to_dicts(),
    "polars scan": lambda folder: pl.scan_parquet(f"{folder}/**/*.parquet", hive_partitioning=True).collect().to_dicts(),
    "duckdb": lambda folder: duckdb.sql(f"from '{folder}/**/*.parquet'").to_arrow_table().to_pylist(),
    "duckdb hive": lambda folder: duckdb.sql(
        f"from read_parquet('{folder}/*.parquet', hive_partitioning = true)"
    ).to_arrow_table().to_pylist(),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_finds_the_rows_that_the_job_counted_and_the_names_as_text(
    reader: str, archive: tuple[str, Account]
) -> None:
    folder, account = archive
    read = READERS[reader]
    assert account.deployments == len(NAMES)
    events = read(f"{folder}/events")
    assert len(events) == account.events == 2 * len(NAMES)
    assert Counter(row["deployment"] for row in events) == dict.fromkeys(NAMES, 2)
    assert Counter(row["camera"] for row in events) == dict.fromkeys(NAMES, 2)
    images = read(f"{folder}/images")
    assert len(images) == account.images == 4 * len(NAMES)
    assert Counter(row["deployment"] for row in images) == dict.fromkeys(NAMES, 4)
    assert {row["event_id"] for row in images} == {row["event_id"] for row in events}
    unassigned = read(f"{folder}/unassigned")
    assert Counter(row["reason"] for row in unassigned) == account.unassigned == {"no_time": len(NAMES)}
    assert {row["deployment"] for row in unassigned} == set(NAMES)


def test_a_file_name_is_readable_and_is_that_of_one_deployment() -> None:
    urls = [event_dataset.table_url("s3://b/events", "events", name) for name in NAMES]
    assert len({url.lower() for url in urls}) == len(NAMES)
    assert urls[NAMES.index("fen 1")].startswith("s3://b/events/events/fen-1-")
    assert max(len(url.rpartition("/")[2]) for url in urls) < 100
    assert not [url for url in urls if url.rpartition("/")[2][0] in "._" or "=" in url]


def test_events_of_other_results_are_refused(archive: tuple[str, Account]) -> None:
    folder, _ = archive
    results = folder.replace("/events", "/results")
    files = event_dataset.find(folder, dataset.find(results))
    assert (len(files.events), len(files.images), len(files.unassigned)) == (len(NAMES), len(NAMES), 1)
    write_result(results, "s3://in/more.tar", "more.tar", [Planted("1", np.zeros(3), (0, 0))], columns("abc", 2))
    with pytest.raises(UsageError, match="as it is now; run `trapline events` again"):
        event_dataset.find(folder, dataset.find(results))
    with pytest.raises(UsageError, match="holds no events; `trapline events` writes them"):
        event_dataset.find(results, dataset.find(results))


def test_events_without_a_single_event_are_refused(tmp_path: Path) -> None:
    write_result(
        f"{tmp_path}/results", "s3://in/x/1.tar", "x/1.tar", [Planted("1", np.zeros(3), (0, 0))], columns("abc", 2)
    )
    found = dataset.find(f"{tmp_path}/results")
    build.build(found, f"{tmp_path}/events", Options(Gap(), ["in/{deployment}"]))
    with pytest.raises(UsageError, match="every image is in `unassigned`"):
        event_dataset.find(f"{tmp_path}/events", found)


@pytest.mark.parametrize("reader", READERS)
def test_an_archive_without_any_time_has_tables_without_rows_until_it_has(reader: str, tmp_path: Path) -> None:
    read, count = READERS[reader], []
    for facts in ({}, {}, {"captured_at": START}, {}):
        image = Planted("1", np.zeros(3), (0, 0), facts=facts)
        write_result(f"{tmp_path}/results", "s3://in/x/1.tar", "x/1.tar", [image], columns("abc", 2))
        build.build(dataset.find(f"{tmp_path}/results"), f"{tmp_path}/events", Options(Gap(), ["in/{deployment}/*"]))
        count.append([len(read(f"{tmp_path}/events/{name}")) for name in ("events", "images", "unassigned")])
        assert len(list(tmp_path.glob("events/*/*.parquet"))) == 3
    assert count == [[0, 0, 1], [0, 0, 1], [1, 1, 0], [0, 0, 1]]


def test_half_of_the_events_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        image = Planted("1", np.zeros(3), (0, 0), facts={"captured_at": START})
        write_result(f"{tmp_path}/results", f"s3://in/{number}/1.tar", f"{number}/1.tar", [image], columns("abc", 2))
    found = dataset.find(f"{tmp_path}/results")
    build.build(found, f"{tmp_path}/events", Options(Gap(), ["in/{deployment}/*"]))
    removed: list[str] = []

    def remove(url: str) -> None:
        if len(removed) == 2:
            raise KeyboardInterrupt
        removed.append(url)
        Path(url).unlink()

    other = Options(Gap(7), ["in/{deployment}/*"])
    monkeypatch.setattr(build.store, "remove", remove)
    with pytest.raises(KeyboardInterrupt):
        build.build(found, f"{tmp_path}/events", other, replace=True)
    with pytest.raises(UsageError, match="run `trapline events` again"):
        event_dataset.find(f"{tmp_path}/events", found)
