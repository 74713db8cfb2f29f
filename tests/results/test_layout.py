from pathlib import Path

import pytest

from tests.support.store_files import folder_for_all, unprivileged, write
from trapline.errors import StorageError
from trapline.results import layout, ledger
from trapline.storage.local import temporary_name
from trapline.storage.store import Entry


def test_no_side_file_is_taken_for_data() -> None:
    side = [
        layout.classes_file("/out"),
        layout.ledger_cache("/out"),
        layout.manifest("/out", "r1"),
        layout.runs_folder("/out"),
        layout.detections_folder("/out"),
        layout.side_file("/out", "x.parquet"),
    ]
    assert all(url.startswith("/out/_trapline/") for url in side)
    data = ["/out/a.tar.parquet", "/out/site=1/images.parquet", "/out/_trapline.tar.parquet"]
    entries = [Entry(url, 1, "1-e") for url in [*side, *data, "/out/notes.txt"]]
    assert [entry.url for entry in layout.data_files(entries)] == data


def test_a_manifest_is_named_by_its_run() -> None:
    assert layout.manifest("s3://b/out/", "r1") == "s3://b/out/_trapline/runs/r1.json"


def test_what_a_killed_program_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    left = [tmp_path / temporary_name(), tmp_path / "a" / temporary_name()]
    mine = [tmp_path / "mine.partial", tmp_path / "a" / "_mine.parquet"]
    for path in left + mine:
        path.write_bytes(b"")
    layout.remove_partial(str(tmp_path))
    layout.remove_partial(f"{tmp_path}/missing")
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(mine)


def test_the_root_of_a_disk_can_be_an_output() -> None:
    with folder_for_all() as root:
        disk = root / "disk"
        write(disk / "a.parquet")
        (disk / "lost+found").mkdir(mode=0)
        write(root / "other" / "closed" / "a.parquet")
        (root / "other" / "closed").chmod(0)
        with unprivileged():
            assert [result.url for result in ledger.survey(str(disk))] == [f"{disk}/a.parquet"]
            with pytest.raises(StorageError, match="access denied"):
                ledger.survey(str(root / "other"))
            with pytest.raises(StorageError, match="access denied"):
                layout.list_files(str(disk / "lost+found"))
