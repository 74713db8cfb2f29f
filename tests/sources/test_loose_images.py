"""Loose images of a folder: what is fetched together, and links that lead nowhere."""

from collections import Counter
from collections.abc import Callable
from errno import EIO
from pathlib import Path
from typing import Any

import pytest

from tests.support.archives import write_folder
from tests.support.reading import read_all, read_sound, shard_of
from tests.support.store_files import folder_for_all, unprivileged
from trapline.errors import StorageError, TransientError
from trapline.sources import loose_images
from trapline.sources.loose_images import UNAVAILABLE, Fetcher, Loose, batches
from trapline.sources.records import read
from trapline.sources.shards import discover
from trapline.sources.sidecars import UNAVAILABLE_SIDECAR, UNREADABLE
from trapline.sources.spooled import NoRoom, SpooledFile
from trapline.storage import retry, store
from trapline.storage.local import LocalFiles
from trapline.storage.store import Entry


def loose(name: str, size: int) -> Loose:
    return Loose(Entry(f"/cam/{name}", size, "1", None, None), None)


def fail_reading(monkeypatch: pytest.MonkeyPatch, fails: Callable[[str], bool]) -> None:
    """Let every read of a file for which `fails` holds, in a folder `cam`, end as that of a bad sector."""
    whole, opened = LocalFiles.cat_file, Path.open

    def cat_file(self: LocalFiles, path: str, **options: Any) -> bytes:
        if fails(path):
            raise OSError(EIO, "Input/output error")
        return bytes(whole(self, path, **options))

    def open_clip(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.parent.name == "cam" and fails(str(self)):
            raise OSError(EIO, "Input/output error")
        return opened(self, *arguments, **options)

    monkeypatch.setattr(LocalFiles, "cat_file", cat_file)
    monkeypatch.setattr(Path, "open", open_clip)
    monkeypatch.setattr(retry, "_PAUSES", (0.0,))


def test_a_batch_holds_some_images_and_not_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loose_images, "_HELD_BYTES", 100)
    monkeypatch.setattr(loose_images, "_FETCHED_AT_ONCE", 3)
    sizes = [40, 40, 40, 1, 1, 1, 1, 300, 5]
    found = [[each.image.size for each in batch] for batch in batches([loose("a.jpg", size) for size in sizes])]
    assert found == [[40, 40], [40, 1, 1], [1, 1], [300], [5]]
    assert [len(batch) for batch in batches([loose("a.mp4", 300)] * 3)] == [3]  # clips are not held


def test_a_link_that_leads_nowhere_costs_itself_alone(tmp_path: Path) -> None:
    folder = tmp_path / "cam"
    folder.mkdir()
    for name in ("a.jpg", "z.jpg"):
        (folder / name).write_bytes(b"x")
    (folder / "linked.jpg").symlink_to("a.jpg")
    (folder / "gone.jpg").symlink_to("unfetched.jpg")
    (folder / "gone.mp4").symlink_to("unfetched.mp4")
    (folder / "to.jpg").symlink_to("fro.jpg")
    (folder / "fro.jpg").symlink_to("to.jpg")
    (folder / "z.json").symlink_to("unfetched.json")
    (shard,) = discover([str(tmp_path)], str(tmp_path / "out")).shards
    outcome = read_all(shard)
    assert outcome.error is None
    lost = dict.fromkeys(("gone.jpg", "gone.mp4", "to.jpg", "fro.jpg"), "unreadable")
    assert outcome.kinds == {"a.jpg": None, "linked.jpg": None, "z.jpg": None, **lost}
    assert outcome.ignored == {UNREADABLE: 1}
    (folder / "unfetched.jpg").write_bytes(b"yy")
    (again,) = discover([str(tmp_path)], str(tmp_path / "out")).shards
    assert again.identity != shard.identity
    assert read_sound(folder).images["gone.jpg"] == b"yy"


def test_a_folder_of_links_that_all_lead_nowhere_is_an_error_as_of_a_disk_that_is_not_mounted(tmp_path: Path) -> None:
    folder = tmp_path / "cam"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").symlink_to(tmp_path / "disk" / f"{number}.jpg")
    outcome = read_all(folder)
    assert outcome.records == []
    assert isinstance(outcome.error, StorageError)
    assert "mount the disk" in str(outcome.error)


def test_a_file_that_may_not_be_read_costs_itself_alone() -> None:
    names = ("a.jpg", "b.jpg", "b.json", "c.mp4", "d.mp4", "z.jpg")
    with folder_for_all() as root:
        folder = write_folder(root / "cam", dict.fromkeys(names, b"x"))
        for name in ("b.jpg", "b.json", "d.mp4"):
            (folder / name).chmod(0)
        with unprivileged():
            outcome = read_all(folder)
            known = {record.key: record.identity or "" for record in outcome.records if not record.error}
            again = list(read(shard_of(folder), Counter(), known))
    assert outcome.error is None
    assert outcome.kinds == {"a.jpg": None, "b.jpg": UNAVAILABLE, "c.mp4": None, "d.mp4": UNAVAILABLE, "z.jpg": None}
    assert outcome.ignored == {UNAVAILABLE_SIDECAR: 1}
    errors = [str(record.error) for record in outcome.records if record.error]
    assert all("access denied" in error and "check credentials and permissions" in error for error in errors)
    # Where the others are known and not fetched, one of them is asked.
    assert {record.key for record in again if record.error} == {"b.jpg", "d.mp4"}


def test_a_folder_of_which_no_file_may_be_read_is_an_error() -> None:
    with folder_for_all() as root:
        folder = write_folder(root / "cam", {f"{number:03}.jpg": b"x" for number in range(50)})
        for file in folder.iterdir():
            file.chmod(0)
        with unprivileged(), pytest.raises(StorageError, match="access denied"):
            next(read(shard_of(folder), Counter()))


def test_a_place_that_the_disk_cannot_read_costs_its_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "cam", dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), b"x"))
    fail_reading(monkeypatch, lambda path: path.endswith("/b.jpg"))
    assert read_all(folder).kinds == {"a.jpg": None, "b.jpg": UNAVAILABLE, "c.jpg": None}


def test_files_that_the_disk_cannot_read_do_not_cost_the_one_that_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "cam", dict.fromkeys([f"{number:02}.jpg" for number in range(24)], b"x"))
    fail_reading(monkeypatch, lambda path: not path.endswith("/20.jpg"))
    monkeypatch.setattr(loose_images, "_FETCHED_AT_ONCE", 4)
    kinds = read_all(folder).kinds
    assert {key for key, kind in kinds.items() if kind is None} == {"20.jpg"}
    assert len(kinds) == 24


def test_a_clip_that_can_be_read_stands_for_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["0.jpg", "a.mp4", *(f"c{number:02}.jpg" for number in range(40)), "z.mp4"]
    folder = write_folder(tmp_path / "cam", dict.fromkeys(names, b"x"))
    asked = []

    def fails(path: str) -> bool:
        asked.append(path.rpartition("/")[2])
        return not path.endswith("/a.mp4")

    fail_reading(monkeypatch, fails)
    files = [Loose(store.stat(str(folder / name)), None) for name in names]
    fetcher = Fetcher(files, set())
    assert isinstance(fetcher.clip(files[1]), SpooledFile)
    asked.clear()
    assert isinstance(fetcher.clip(files[-1]), TransientError)
    assert set(asked) == {"z.mp4", "a.mp4"}


def test_a_clip_is_read_again_before_it_counts_as_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "cam", {"a.jpg": b"x", "b.mp4": b"x"})
    failures = iter([True])
    fail_reading(monkeypatch, lambda path: path.endswith("/b.mp4") and next(failures, False))
    assert read_all(folder).kinds == {"a.jpg": None, "b.mp4": None}
    assert next(failures, None) is None


def test_a_fault_of_the_disk_for_copies_is_none_of_the_clip(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(f"{bucket}/cam/a.jpg", b"x")
    store.put(f"{bucket}/cam/b.mp4", b"x")

    def broken() -> None:
        raise OSError(EIO, "Input/output error")

    (shard,) = discover([bucket], str(tmp_path)).shards
    monkeypatch.setattr("tempfile.TemporaryFile", broken)
    with pytest.raises(NoRoom, match="set TMPDIR"):
        list(read(shard, Counter()))
