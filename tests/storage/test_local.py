import errno
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.support.store_files import folder_for_all, names, parquet, unprivileged, write
from trapline.errors import StorageError
from trapline.storage import store
from trapline.storage.local import leads_nowhere


def said_by_a_child(action: Callable[[], object]) -> str:
    """Return what a forked child raised; it may change its limits and its user without harm to this process."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            action()
        except Exception as error:  # noqa: BLE001  # returned to the test
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        text = said.read()
    os.waitpid(process, 0)
    return text


def test_links_are_followed_but_not_around_in_circles(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    write(tmp_path / "elsewhere" / "a.tar")
    (archive / "cam").mkdir(parents=True)
    (archive / "folder").symlink_to(tmp_path / "elsewhere")
    (archive / "file.tar").symlink_to(tmp_path / "elsewhere" / "a.tar")
    (archive / "cam" / "up").symlink_to(archive)
    (tmp_path / "elsewhere" / "across").symlink_to(archive / "cam")
    assert names(str(archive), str(archive)) == ["file.tar", "folder/a.tar"]
    assert names(f"{archive}/**/*.tar", str(archive)) == ["file.tar", "folder/a.tar"]


def test_a_link_that_leads_nowhere_is_listed_so_that_its_absence_shows(tmp_path: Path) -> None:
    (tmp_path / "a.tar").symlink_to(tmp_path / "unmounted" / "a.tar")
    (entry,) = store.list_files(str(tmp_path))
    with pytest.raises(StorageError, match="not found"), store.open_unchanged(entry.url, entry.identity):
        pass


def test_links_in_a_circle_are_listed_and_stop_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.tar").symlink_to("b.tar")
    (tmp_path / "b.tar").symlink_to("a.tar")
    assert len(store.list_files(str(tmp_path))) == 2
    assert leads_nowhere(str(tmp_path / "a.tar"))
    write(tmp_path / "c.tar")
    assert not leads_nowhere(str(tmp_path / "c.tar"))


def test_pipes_and_sockets_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    assert store.list_files(str(tmp_path)) == []


def test_a_folder_that_may_not_be_read_is_an_error_and_not_passed_over() -> None:
    with folder_for_all() as folder:
        write(folder / "closed" / "a.tar")
        (folder / "closed").chmod(0)
        with unprivileged(), pytest.raises(StorageError, match=r"access denied .*closed"):
            store.list_files(str(folder))


def test_a_folder_that_may_not_be_read_is_left_out_where_that_is_allowed() -> None:
    with folder_for_all() as folder:
        write(folder / "a.tar")
        (folder / "lost+found").mkdir(mode=0)
        with unprivileged():
            listed = store.list_files(str(folder), left_out=lambda path: path.endswith("/lost+found"))
    assert [entry.url for entry in listed] == [f"{folder}/a.tar"]


def test_of_a_folder_only_that_is_left_out_which_may_be() -> None:
    with folder_for_all() as root:
        write(root / "closed" / "place" / "x")
        write(root / "cam" / "a.tar")
        (root / "cam" / ".thumbnails").symlink_to(root / "closed" / "place")
        (root / "closed").chmod(0)

        def left_out(path: str) -> bool:
            return path.endswith("/.thumbnails")

        folder = str(root / "cam")
        with unprivileged():
            listed = [store.list_files(folder, left_out=left_out), store.list_folder(folder, left_out)]
            listed.append(store.list_files(f"{root}/ca*", left_out=left_out))
            for listing in (store.list_files, store.list_folder):
                with pytest.raises(StorageError, match=r"access denied .*thumbnails"):
                    listing(folder)
    assert [[entry.url for entry in entries] for entries in listed] == [[f"{root}/cam/a.tar"]] * 3


def test_identity_changes_with_the_content_though_size_and_second_stay(tmp_path: Path) -> None:
    file = write(tmp_path / "a", b"one")
    identities = set()
    for nanosecond in range(1, 4):
        os.utime(file, ns=(0, 1_700_000_000_000_000_000 + nanosecond * 1000))
        identities.add(store.stat(str(file)).identity)
    assert len(identities) == 3


def test_a_file_that_breaks_off_while_it_is_published_keeps_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = write(tmp_path / "store" / "a", b"old")
    source = write(tmp_path / "large", b"new" * 2**20)

    def breaking(source: object, sink: Any, length: int) -> None:
        sink.write(b"new")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", breaking)
    with pytest.raises(StorageError, match="No space left"):
        store.put_file(str(target), str(source))
    assert target.read_bytes() == b"old"
    assert list(target.parent.iterdir()) == [target]


def test_put_takes_names_as_long_as_the_file_system_does(tmp_path: Path) -> None:
    store.put(f"{tmp_path}/{'n' * 255}", b"x")
    with pytest.raises(StorageError, match="too long"):
        store.put(f"{tmp_path}/{'n' * 256}", b"x")


def test_a_disk_that_takes_no_more_keeps_the_old_file_and_no_rest(tmp_path: Path) -> None:
    target = write(tmp_path / "a", b"old")

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        store.put(str(target), bytes(2000))

    assert said_by_a_child(fill).startswith("StorageError")
    assert names(str(tmp_path), str(tmp_path)) == ["a"]
    assert target.read_bytes() == b"old"


def test_a_writer_killed_at_any_moment_leaves_no_partial_file(memory_disk: Path) -> None:
    target = memory_disk / "site=1" / "a.parquet"
    contents = [parquet(rows) for rows in (200_000, 300_000)]
    rng = random.Random(5)
    seen, rests = set(), 0
    for _ in range(20):
        writer = os.fork()
        if writer == 0:
            while True:
                for data in contents:
                    store.put(str(target), data)
        time.sleep(rng.uniform(0.002, 0.03))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        if target.exists():
            assert target.read_bytes() in contents
            query = f"SELECT count(*) FROM read_parquet('{memory_disk}/**/*.parquet', hive_partitioning = true)"
            seen.update(duckdb.sql(query).fetchall())
        for rest in memory_disk.rglob("_*"):
            rests += 1
            rest.unlink()
    assert seen == {(200_000,), (300_000,)}
    assert rests, "no kill hit a file half written: the test proves nothing"


@pytest.fixture
def memory_disk(tmp_path: Path) -> Iterator[Path]:
    """Where a file is written fast and synced at once, so that most of the time goes into writing."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else tmp_path) as name:
        yield Path(name)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take shorter paths")
def test_folders_are_listed_however_deep_they_lie(tmp_path: Path) -> None:
    path = str(tmp_path)
    levels = (4000 - len(path)) // 2  # Linux takes paths of 4,095 bytes
    deepest = f"{path}{'/d' * levels}"
    made = 0
    try:
        for made in range(1, levels + 1):
            os.mkdir(f"{path}{'/d' * made}")  # noqa: PTH102  # pathlib calls itself for each level
        with open(f"{deepest}/a.tar", "xb"):  # noqa: PTH123
            pass
        assert [entry.url for entry in store.list_files(path)] == [f"{deepest}/a.tar"]
        assert len(store.list_files(f"{path}/*")) == 1
    finally:
        with suppress(FileNotFoundError):
            os.unlink(f"{deepest}/a.tar")  # noqa: PTH108  # pytest, too, would call itself for each
        for level in range(made, 0, -1):
            with suppress(FileNotFoundError):
                os.rmdir(f"{path}{'/d' * level}")  # noqa: PTH106
