"""Loose images of a folder: what is fetched together, and links that lead nowhere."""

from pathlib import Path

import pytest

from tests.support.reading import read_all, read_sound
from trapline.errors import StorageError
from trapline.sources import loose_images
from trapline.sources.loose_images import Loose, batches
from trapline.sources.shards import discover
from trapline.sources.sidecars import UNREADABLE
from trapline.storage.store import Entry


def loose(name: str, size: int) -> Loose:
    return Loose(Entry(f"/cam/{name}", size, "1", None, None), None)


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
