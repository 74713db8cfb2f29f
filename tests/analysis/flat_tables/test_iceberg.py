"""The flat tables as an Iceberg table, which readers open through its catalogue."""

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.support.result_files import Planted, columns, write_result
from trapline.analysis import dataset
from trapline.analysis.flat_tables import build
from trapline.analysis.flat_tables.build import Account
from trapline.analysis.flat_tables.iceberg import IcebergName
from trapline.errors import OutputConflict, StorageError, UsageError

catalogs = pytest.importorskip("pyiceberg.catalog.sql")
OF = columns(("wren", "owl"), 1)
NAME = IcebergName("archive.images")


def shard(base: Path, name: str, count: int = 4) -> None:
    planted = [Planted(f"{number}.jpg", (number, 1), [number]) for number in range(count)]
    write_result(f"{base}/results", f"s3://in/{name}", name, planted, OF)


def run(base: Path, name: IcebergName | None = NAME, **options: Any) -> Account:
    return build.build(dataset.find(f"{base}/results"), f"{base}/tables", images_per_file=8, iceberg=name, **options)


def table(base: Path) -> Any:
    """The table as a reader opens it, who has the catalogue and nothing else."""
    path = base / "tables/_trapline/catalog.db"
    return catalogs.SqlCatalog("trapline", uri=f"sqlite:///{path}").load_table("archive.images")


def rows(of: Any) -> Counter[str]:
    return Counter(of.scan().to_arrow()["shard"].to_pylist())


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Of four shards of four images: two files."""
    for number in range(4):
        shard(tmp_path, f"site={number:03}/{number}.tar")
    return tmp_path


def test_a_run_is_a_snapshot_with_all_rows(archive: Path) -> None:
    assert run(archive) == Account(files=2, shards=4, images=16, rows=16)
    assert rows(table(archive)) == {f"s3://in/site={number:03}/{number}.tar": 4 for number in range(4)}
    assert len(table(archive).scan(row_filter="folder = 'site=002'").to_arrow()) == 4
    assert len(list(table(archive).scan(row_filter="folder = 'site=002'").plan_files())) == 1
    assert run(archive) == Account(files=2, unchanged=2, shards=4, images=16, rows=16)
    assert len(table(archive).snapshots()) == 1
    assert not list((archive / "tables").glob("*.parquet"))


def test_a_night_is_seen_whole_and_who_began_before_it_reads_on(archive: Path) -> None:
    run(archive)
    before = table(archive)
    shard(archive, "site=001/1.tar", 7)
    shard(archive, "site=009/9.tar", 1)
    (archive / "results/site=003/3.tar.parquet").unlink()
    assert run(archive) == Account(files=2, shards=4, images=16, rows=16)
    assert rows(before)["s3://in/site=001/1.tar"] == rows(before)["s3://in/site=003/3.tar"] == 4
    assert rows(table(archive)) == {
        "s3://in/site=000/0.tar": 4, "s3://in/site=001/1.tar": 7, "s3://in/site=002/2.tar": 4, "s3://in/site=009/9.tar": 1,
    }  # fmt: skip
    assert len(list((archive / "tables/data").iterdir())) == 4
    assert run(archive).unchanged == 2
    assert len(list((archive / "tables/data").iterdir())) == 2  # what no reader needs any more has gone
    assert len(table(archive).snapshots()) == 1


def test_a_run_that_was_killed_before_its_snapshot_shows_nothing(archive: Path) -> None:
    run(archive)
    shard(archive, "site=001/1.tar", 7)

    def killed(written: Iterable[int], _: int) -> list[int]:
        assert list(written) == [11]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(archive, progress=killed)
    assert rows(table(archive))["s3://in/site=001/1.tar"] == 4
    assert run(archive) == Account(files=2, unchanged=1, shards=4, images=19, rows=19)
    assert rows(table(archive))["s3://in/site=001/1.tar"] == 7
    assert rows(table(archive)).total() == 19


def test_other_columns_replace_the_rows_in_one_snapshot(archive: Path) -> None:
    run(archive)
    with pytest.raises(OutputConflict, match="deployment_from"):
        run(archive, deployment_from=["site={site}"])
    before = table(archive)
    run(archive, deployment_from=["site={site}"], replace=True)
    assert rows(before).total() == rows(table(archive)).total() == 16
    assert set(table(archive).scan().to_arrow()["deployment"].to_pylist()) == {"000", "001", "002", "003"}


def test_the_kinds_of_tables_do_not_mix(archive: Path) -> None:
    run(archive, None)
    with pytest.raises(OutputConflict, match="iceberg"):
        run(archive)
    assert run(archive, replace=True).unchanged == 0
    assert rows(table(archive)).total() == 16
    assert not list((archive / "tables").glob("*.parquet"))
    with pytest.raises(OutputConflict, match=r"is an Iceberg table, .* choose another folder"):
        run(archive, None, replace=True)
    assert rows(table(archive)).total() == 16


def test_a_catalogue_that_has_lost_the_table_is_no_reason_to_remove_files(archive: Path) -> None:
    run(archive)
    (archive / "tables/_trapline/catalog.db").unlink()
    with pytest.raises(OutputConflict, match=r"the catalogue knows no table archive\.images"):
        run(archive)
    assert len(list((archive / "tables/data").iterdir())) == 2
    assert run(archive, replace=True).unchanged == 0
    assert rows(table(archive)).total() == 16


def test_a_name_that_is_none_a_catalogue_that_is_none_and_a_table_elsewhere_are_refused(
    archive: Path, bucket: str
) -> None:
    with pytest.raises(UsageError, match="give a namespace and a name"):
        run(archive, IcebergName("images"))
    with pytest.raises(StorageError, match="--catalog nowhere"):
        run(archive, IcebergName("archive.images", "nowhere"))
    with pytest.raises(UsageError, match="name one of pyiceberg's configuration"):
        build.build(dataset.find(f"{archive}/results"), f"{bucket}/tables", iceberg=NAME)
    run(archive)
    shutil.copytree(archive / "tables/_trapline", archive / "other/_trapline")
    with pytest.raises(OutputConflict, match="is the table of"):
        build.build(dataset.find(f"{archive}/results"), f"{archive}/other", iceberg=NAME)
