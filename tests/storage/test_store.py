import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import s3fs

from tests.support.servers import S3Server
from tests.support.store_files import names, one_line, parquet, write
from trapline.errors import PermanentError, ShardBroken, StorageError, TransientError
from trapline.storage import retry, store
from trapline.storage.s3 import S3Files

# Listing


def test_a_listing_holds_every_file_below_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ["b/2.tar", "b/1.tar", "a.tar", ".hidden/c.tar", "site=12/ä.tar"]:
        write(tmp_path / name)
    (tmp_path / "empty").mkdir()
    expected = [".hidden/c.tar", "a.tar", "b/1.tar", "b/2.tar", "site=12/ä.tar"]
    assert names(str(tmp_path), str(tmp_path)) == expected
    assert [entry.url for entry in store.list_folder(f"{tmp_path}/b")] == [
        f"{tmp_path}/b/1.tar",
        f"{tmp_path}/b/2.tar",
    ]


def test_a_single_file_lists_as_itself(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tar", b"12345")
    (entry,) = store.list_files(str(file))
    assert (entry.url, entry.size) == (str(file), 5)
    assert entry == store.stat(str(file))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.tar", ["top.tar"]),
        ("*/*.tar", ["cam1/a.tar", "cam2/a.tar"]),
        ("cam?", ["cam1/a.tar", "cam1/b.zip", "cam2/a.tar", "cam2/deep/c.tar"]),
        ("cam[2-9]/**", ["cam2/a.tar", "cam2/deep/c.tar"]),
        ("**/*.tar", ["cam1/a.tar", "cam2/a.tar", "cam2/deep/c.tar", "top.tar"]),
    ],
)
def test_a_pattern_matches_files_and_whole_folders_once(pattern: str, expected: list[str], tmp_path: Path) -> None:
    for name in ["top.tar", "cam1/a.tar", "cam1/b.zip", "cam2/a.tar", "cam2/deep/c.tar"]:
        write(tmp_path / name)
    assert names(f"{tmp_path}/{pattern}", str(tmp_path)) == expected


def test_a_name_that_looks_like_a_pattern_is_a_name_where_it_exists(tmp_path: Path) -> None:
    write(tmp_path / "cam[1]" / "what?.tar")
    write(tmp_path / "cam1" / "other.tar")
    assert names(f"{tmp_path}/cam[1]", str(tmp_path)) == ["cam[1]/what?.tar"]
    assert names(f"{tmp_path}/cam[1]/what?.tar", str(tmp_path)) == ["cam[1]/what?.tar"]
    assert names(f"{tmp_path}/cam[12]", str(tmp_path)) == ["cam1/other.tar"]
    assert store.read_many([f"{tmp_path}/cam[1]/what?.tar"]) == [b"x"]


@pytest.mark.parametrize("name", ["missing", "missing/*.tar", "*.zip"])
def test_nothing_there_is_an_error_unless_expected(name: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"not found|no match") as caught:
        store.list_files(f"{tmp_path}/{name}")
    assert name in one_line(caught.value)
    assert store.list_files(f"{tmp_path}/{name}", missing_ok=True) == []


def test_an_empty_folder_is_there(tmp_path: Path) -> None:
    assert store.list_files(str(tmp_path)) == []


# Reading what must not change


def test_what_stays_the_same_can_be_read(tmp_path: Path) -> None:
    file = write(tmp_path / "a", b"0123456789")
    with store.open_unchanged(str(file), store.stat(str(file)).identity) as stream:
        assert stream.read(3) == b"012"
        assert stream.seek(-2, os.SEEK_END) == 8
        assert stream.read() == b"89"
        assert stream.seek(2**70) == 10
        assert stream.read(5) == b""
        with pytest.raises(OSError, match="before the start"):
            stream.seek(-11, os.SEEK_END)


def replace(file: Path) -> None:
    write(file.with_name("new"), b"9876543210").replace(file)


def overwrite(file: Path) -> None:
    file.write_bytes(b"9876543210")


def append(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"more")


def read_while(change: Callable[[], object], url: str, identity: str, breaks: bool) -> None:
    with store.open_unchanged(url, identity) as stream:
        stream.read(3)
        time.sleep(0.01)  # the clock of the file system ticks every 4 ms
        change()
        if breaks:
            raise ShardBroken("nonsense")


@pytest.mark.parametrize("change", [replace, overwrite, append])
@pytest.mark.parametrize("breaks", [False, True], ids=["reads on", "looks broken"])
def test_what_changes_while_it_is_read_is_to_be_tried_again(
    change: Callable[[Path], None], breaks: bool, tmp_path: Path
) -> None:
    file = write(tmp_path / "a", b"0123456789")
    identity = store.stat(str(file)).identity
    with pytest.raises(TransientError, match="changed"):
        read_while(lambda: change(file), str(file), identity, breaks)
    with pytest.raises(TransientError, match="changed"), store.open_unchanged(str(file), identity):
        pytest.fail("opened although it has changed")


def test_what_is_broken_and_has_not_changed_is_broken(tmp_path: Path) -> None:
    file = write(tmp_path / "a")
    with pytest.raises(PermanentError, match="nonsense"):
        read_while(lambda: None, str(file), store.stat(str(file)).identity, breaks=True)


def test_what_vanishes_while_it_is_read_is_not_found(tmp_path: Path) -> None:
    file = write(tmp_path / "a")
    with pytest.raises(StorageError, match="not found"):
        read_while(file.unlink, str(file), store.stat(str(file)).identity, breaks=False)


def test_small_files_come_in_the_order_asked_for(tmp_path: Path) -> None:
    files = [str(write(tmp_path / f"{number}*.jpg", bytes([number]))) for number in range(40)]
    assert store.read_many(files) == [bytes([number]) for number in range(40)]
    assert store.read_many([]) == []


def test_text_in_another_encoding_is_named(tmp_path: Path) -> None:
    assert store.read_text(str(write(tmp_path / "bom", "\ufeffa\n".encode()))) == "a\n"
    with pytest.raises(StorageError, match="UTF-8"):
        store.read_text(str(write(tmp_path / "latin", "Fuß".encode("latin-1"))))


# Publishing


def test_put_makes_folders_and_replaces(tmp_path: Path) -> None:
    target = f"{tmp_path}/site=12/cam[1]/a #1.parquet"
    store.put(target, b"one")
    store.put(target, b"two")
    assert names(str(tmp_path), str(tmp_path)) == ["site=12/cam[1]/a #1.parquet"]
    assert Path(target).read_bytes() == b"two"


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_file_of_this_machine_is_published_whole_and_can_be_deleted(kind: str, tmp_path: Path, bucket: str) -> None:
    place = bucket if kind == "s3" else str(tmp_path / "store")
    source = write(tmp_path / "large", b"new" * 2**20)
    store.put(f"{place}/a/b", b"old")
    store.put_file(f"{place}/a/b", str(source))
    assert store.read_many([f"{place}/a/b"]) == [source.read_bytes()]
    assert names(place, place) == ["a/b"]
    for _ in range(2):
        store.remove(f"{place}/a/b")
        assert store.list_files(place, missing_ok=True) == []


def test_put_where_something_else_is_says_so(tmp_path: Path) -> None:
    write(tmp_path / "folder" / "a")
    with pytest.raises(StorageError, match="choose another path"):
        store.put(f"{tmp_path}/folder", b"x")
    with pytest.raises(StorageError, match="choose another path"):
        store.put(f"{tmp_path}/folder/a/b", b"x")
    assert names(str(tmp_path), str(tmp_path)) == ["folder/a"]


# S3


@pytest.fixture
def fresh_clients(s3: S3Server) -> Iterator[None]:
    """Clients are kept by their options, which do not show the environment."""
    S3Files.clear_instance_cache()
    yield
    S3Files.clear_instance_cache()


KEYS = ["a b/#1 [x].tar", "site=12/cam/ä.tar", "site=1/50%.tar", "site=1/a+b?.tar", "top.tar"]


def test_an_s3_bucket_gives_back_what_was_put(bucket: str) -> None:
    for number, key in enumerate(KEYS):
        store.put(f"{bucket}/{key}", bytes([number]))
    entries = store.list_files(bucket)
    assert [entry.url for entry in entries] == [f"{bucket}/{key}" for key in sorted(KEYS)]
    assert store.read_many([f"{bucket}/{key}" for key in KEYS]) == [bytes([number]) for number in range(len(KEYS))]
    assert [store.stat(entry.url) for entry in entries] == entries
    for entry in entries:
        with store.open_unchanged(entry.url, entry.identity) as stream:
            assert len(stream.read()) == 1


def test_an_s3_prefix_ends_at_a_slash(bucket: str) -> None:
    for key in KEYS:
        store.put(f"{bucket}/{key}", b"x")
    assert names(f"{bucket}/site=1", bucket) == ["site=1/50%.tar", "site=1/a+b?.tar"]
    assert names(f"{bucket}/site=1/", bucket) == ["site=1/50%.tar", "site=1/a+b?.tar"]
    assert names(f"{bucket}/top.tar", bucket) == ["top.tar"]
    assert names(f"{bucket}/site=1/a+b?.tar", bucket) == ["site=1/a+b?.tar"]
    assert [entry.url for entry in store.list_folder(f"{bucket}/site=1")] == [
        f"{bucket}/site=1/50%.tar",
        f"{bucket}/site=1/a+b?.tar",
    ]


def test_an_s3_pattern_matches_keys_and_prefixes(bucket: str) -> None:
    for key in KEYS:
        store.put(f"{bucket}/{key}", b"x")
    assert names(f"{bucket}/*.tar", bucket) == ["top.tar"]
    assert names(f"{bucket}/site=*", bucket) == ["site=1/50%.tar", "site=1/a+b?.tar", "site=12/cam/ä.tar"]
    assert names(f"{bucket}/**/*.tar", bucket) == sorted(KEYS)


def test_a_key_that_stands_for_a_folder_is_no_file(bucket: str, s3: S3Server) -> None:
    store.put(f"{bucket}/cam/a.tar", b"x")
    s3.filesystem().call_s3("put_object", Bucket=bucket.removeprefix("s3://"), Key="cam/", Body=b"")
    s3.filesystem().call_s3("put_object", Bucket=bucket.removeprefix("s3://"), Key="empty/", Body=b"")
    assert names(bucket, bucket) == ["cam/a.tar"]
    assert [entry.url for entry in store.list_folder(f"{bucket}/cam")] == [f"{bucket}/cam/a.tar"]


def test_an_s3_listing_shows_at_once_what_others_write(bucket: str, s3: S3Server) -> None:
    store.put(f"{bucket}/cam/a.jpg", b"x")
    store.list_folder(f"{bucket}/cam")
    store.list_files(bucket)
    s3.filesystem().pipe_file(f"{bucket}/cam/b.jpg", b"x")
    assert len(store.list_folder(f"{bucket}/cam")) == len(store.list_files(bucket)) == 2


@pytest.mark.parametrize("breaks", [False, True], ids=["reads on", "looks broken"])
def test_an_s3_object_that_is_replaced_while_it_is_read_is_to_be_tried_again(breaks: bool, bucket: str) -> None:
    store.put(f"{bucket}/a", bytes(1000))
    entry = store.stat(f"{bucket}/a")
    with pytest.raises(TransientError, match="changed"):
        read_while(lambda: store.put(entry.url, bytes(999) + b"x"), entry.url, entry.identity, breaks)


def test_a_footer_costs_no_more_than_its_tail(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = parquet(500_000)
    store.put(f"{bucket}/a.parquet", data)
    fetched = spy_on_ranges(monkeypatch)
    with store.open_tail(f"{bucket}/a.parquet") as stream:
        assert pq.read_metadata(stream).num_rows == 500_000
    assert sum(fetched) < 2**17 < len(data)


def spy_on_ranges(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the ranges that are asked of S3 from now on."""
    fetched: list[int] = []
    fetch = s3fs.core.S3File._fetch_range

    def spy(file: s3fs.core.S3File, start: int, end: int) -> bytes:
        fetched.append(end - start)
        return fetch(file, start, end)

    monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", spy)
    return fetched


def all_ways_in(url: str) -> list[Callable[[], object]]:
    return [
        lambda: store.list_files(url),
        lambda: store.stat(f"{url}/a.tar"),
        lambda: store.read_text(f"{url}/a.tar"),
        lambda: store.put(f"{url}/out.parquet", b"x"),
    ]


def complaints(url: str) -> list[str]:
    """What each way into a store says of its trouble, at the first try: a pause before another would exceed the budget."""
    texts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry, "_PAUSES", (10**6,))
        for way in all_ways_in(url):
            with pytest.raises(StorageError) as caught:
                way()
            text = one_line(caught.value)
            assert text.startswith(url)
            texts.append(text)
    return texts


@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_wrong_key_is_refused_in_one_line(
    wrong: str, bucket: str, fresh_clients: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(f"{bucket}/a.tar", b"x")
    S3Files.clear_instance_cache()
    monkeypatch.setenv(wrong, "nonsense")
    for text in complaints(bucket):
        assert "access denied" in text


def test_no_key_at_all_is_said_in_one_line(
    bucket: str, fresh_clients: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for text in complaints(bucket):
        assert "AWS_ACCESS_KEY_ID" in text


def test_a_profile_that_does_not_exist_is_named(
    bucket: str, fresh_clients: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    for text in complaints(bucket):
        assert "nobody" in text


def test_a_missing_bucket_is_named(s3: S3Server) -> None:
    for text in complaints("s3://no-such-bucket"):
        assert "not found" in text


def test_a_name_that_no_bucket_can_have_is_named(s3: S3Server) -> None:
    complaints("s3://No Such Bucket")


def test_a_missing_prefix_is_named(bucket: str) -> None:
    with pytest.raises(StorageError, match=f"{bucket}/no/such: not found"):
        store.list_files(f"{bucket}/no/such")
    with pytest.raises(StorageError, match="no match"):
        store.list_files(f"{bucket}/*.tar")
    assert store.list_files(bucket) == []


def test_a_server_that_is_down_is_given_up(bucket: str, fresh_clients: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_PAUSES", (0.1,))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(TransientError) as caught:
        store.list_files(bucket)
    assert "127.0.0.1:9" in one_line(caught.value)
