from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.archives import pictures, write_folder, write_parquet, write_tar
from trapline.errors import UsageError
from trapline.sources.own_results import OWN_RESULT
from trapline.sources.shards import Discovery, discover


def result(path: Path) -> Path:
    """A Parquet file with the footer of a result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"key": ["a"]}).replace_schema_metadata({"trapline.fingerprint": "{}", "trapline.shard": "{}"})
    pq.write_table(table, path)
    return path


def found(root: Path) -> tuple[list[str], dict[str, int]]:
    listed: Discovery = discover([str(root)], f"{root}-results")
    return [shard.uri.removeprefix(f"{root}/") for shard in listed.shards], listed.ignored


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    write_tar(root / "a.tar", pictures(1))
    write_folder(root / "cam", pictures(1, ""))
    write_parquet(root / "b.parquet", pictures(1))
    return root


def test_an_output_below_the_input_holds_no_shards(archive: Path) -> None:
    result(archive / "results/a.tar.parquet")
    result(archive / "results/cam/images.parquet")
    (archive / "results/_trapline/runs").mkdir(parents=True)
    (archive / "results/_trapline/runs/1.json").write_text("{}")
    write_parquet(archive / "results/other.parquet", pictures(1))  # written there by something else
    shards, ignored = found(archive)
    assert shards == ["a.tar", "b.parquet", "cam"]
    assert ignored == {OWN_RESULT: 4}


def test_a_result_is_known_by_its_footer_where_its_output_is_not(archive: Path) -> None:
    result(archive / "old/a.tar.parquet")
    result(archive / "old/cam/images.parquet")
    write_parquet(archive / "images.parquet", pictures(1))
    write_parquet(archive / "c.zip.parquet", pictures(1))
    shards, ignored = found(archive)
    assert shards == ["a.tar", "b.parquet", "c.zip.parquet", "cam", "images.parquet"]
    assert ignored == {OWN_RESULT: 2}


def test_pictures_beside_results_are_shards(archive: Path) -> None:
    (archive / "_trapline").mkdir()
    (archive / "_trapline/classes.csv").write_text("")
    result(archive / "a.tar.parquet")
    assert found(archive)[0] == ["a.tar", "cam"]


def test_nothing_but_results_is_no_input(tmp_path: Path) -> None:
    result(tmp_path / "results/a.tar.parquet")
    with pytest.raises(UsageError, match="holds no shard"):
        found(tmp_path / "results")
