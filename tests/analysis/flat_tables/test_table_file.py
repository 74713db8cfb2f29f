"""One file of the flat tables, written by itself."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.support.clip_rows import clip_rows
from tests.support.result_files import Planted, columns, write_result
from trapline.analysis import dataset, deployments
from trapline.analysis.dataset import Results
from trapline.analysis.flat_tables.contents import Part
from trapline.analysis.flat_tables.flat_columns import flat_columns
from trapline.analysis.flat_tables.packing import FilePlan
from trapline.analysis.flat_tables.table_file import Writer
from trapline.errors import OutputConflict
from trapline.results.fingerprint import Fingerprint

OF = columns(("wren", "owl"), 2)
START = datetime(2024, 5, 17, 3)


def image(key: str, minute: int) -> Planted:
    return Planted(key, (1, 0), (1, 0), facts={"captured_at": START + timedelta(minutes=minute)})


def shard(base: Path, name: str, *rows: Planted) -> None:
    write_result(f"{base}/results", f"s3://in/{name}", name, rows, OF)


def written(
    base: Path, found: Results, kept: tuple[Part, ...] = (), changed: tuple[Part, ...] | None = None, source: str = ""
) -> list[dict[str, Any]]:
    """The rows of the file, after it was written with these parts; without `changed`, with those of all results."""
    sources = [deployments.parse(source)] if source else []
    writer = Writer(found, flat_columns(dataset.schema(found), 2, sources), tuple(sources), Fingerprint({}))
    url = f"{base}/tables/images-00001.parquet"
    plan = FilePlan(url, url if kept else None, kept, parts(found) if changed is None else changed)
    count = writer(plan)
    table = pq.read_table(url)
    assert table.schema == writer.schema
    assert len(table) == count
    return list(table.to_pylist())


def parts(found: Results) -> tuple[Part, ...]:
    return tuple(Part.of(file, found.output) for file in found.files)


@pytest.mark.parametrize(("source", "place"), [("", "folder"), ("site={site}", "deployment")])
def test_rows_are_sorted_by_place_and_time_and_frames_stand_behind_their_clip(
    source: str, place: str, tmp_path: Path
) -> None:
    failed = Planted("x.jpg", status="failed", error="empty: x")
    shard(tmp_path, "site=b/1.tar", image("c.jpg", 9), *clip_rows([image("d.mp4", 3)] * 2), failed)
    shard(tmp_path, "site=b/2.tar", image("e.jpg", 5))
    shard(tmp_path, "site=a/3.tar", image("f.jpg", 7))
    rows = written(tmp_path, dataset.find(f"{tmp_path}/results"), source=source)
    sites = [row[place].removeprefix("site=") for row in rows]
    assert list(zip(sites, (row["key"] for row in rows), (row["frame_seconds"] for row in rows), strict=True)) == [
        ("a", "f.jpg", None),
        ("b", "x.jpg", None),
        *[("b", "d.mp4", seconds) for seconds in (None, 0.0, 1.0)],
        ("b", "e.jpg", None),
        ("b", "c.jpg", None),
    ]


def test_rows_that_are_kept_come_from_the_file_as_it_was(tmp_path: Path) -> None:
    shard(tmp_path, "1.tar", image("c.jpg", 3), image("d.jpg", 4))
    shard(tmp_path, "2.tar", image("a.jpg", 1), *clip_rows([image("b.mp4", 2)]))
    written(tmp_path, dataset.find(f"{tmp_path}/results"))
    shard(tmp_path, "1.tar", image("e.jpg", 0))
    found = dataset.find(f"{tmp_path}/results")
    one, two = parts(found)
    (tmp_path / "results/2.tar.parquet").unlink()
    rows = written(tmp_path, found, kept=(two,), changed=(one,))
    assert [row["key"] for row in rows] == ["e.jpg", "a.jpg", "b.mp4", "b.mp4"]


def test_rows_that_the_ledger_does_not_know_are_no_table(tmp_path: Path) -> None:
    shard(tmp_path, "5.tar", *(image(f"{number}.jpg", number) for number in range(4)))
    found = dataset.find(f"{tmp_path}/results")
    shard(tmp_path, "5.tar", *(image(f"{number}.jpg", number) for number in range(5)))
    with pytest.raises(OutputConflict, match=r"5\.tar\.parquet: 5 images were read of it, and its footer says 4"):
        written(tmp_path, found)
    assert not list(tmp_path.glob("tables/*.parquet"))


@pytest.mark.parametrize("twice", [[image("a.jpg", 1)], clip_rows([image("a.mp4", 1)])[1:]])
def test_an_image_or_a_frame_that_a_result_has_twice_is_named(twice: list[Planted], tmp_path: Path) -> None:
    shard(tmp_path, "a.tar", image("a.jpg", 1), *clip_rows([image("a.mp4", 1)]), *twice)
    with pytest.raises(OutputConflict, match=rf"a\.tar\.parquet: has s3://in/a\.tar#{twice[0].key} twice"):
        written(tmp_path, dataset.find(f"{tmp_path}/results"))
