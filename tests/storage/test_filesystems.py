from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.store_files import names, one_line, write
from trapline.errors import StorageError
from trapline.storage import store
from trapline.storage.filesystems import resolve


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}", "{}/../{name}", "{}//", "{}/./"])
def test_a_folder_has_one_url_however_it_is_written(form: str, tmp_path: Path) -> None:
    folder = tmp_path / "SD card #1"
    write(folder / "a.tar")
    url = form.format(folder, name=folder.name)
    assert store.absolute(url) == str(folder)
    assert names(url, str(folder)) == ["a.tar"]


@pytest.mark.parametrize("form", ["cards", "./cards", "cards/", "../{}/cards"])
def test_a_relative_path_starts_where_the_user_is(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "cards" / "a.tar")
    monkeypatch.chdir(tmp_path)
    assert store.absolute(form.format(tmp_path.name)) == f"{tmp_path}/cards"


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.absolute("~/cards") == f"{tmp_path}/cards"


@pytest.mark.parametrize("name", ["site::1.tar", "zip::a/b.tar", "a?versionId=1.tar", "simplecache::x"])
def test_a_local_name_is_no_chain_of_filesystems(name: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    assert store.absolute(f"{tmp_path}/{name}") == f"{tmp_path}/{name}"
    assert store.absolute(f"file://{tmp_path}/{name}") == f"{tmp_path}/{name}"
    (entry,) = store.list_files(str(tmp_path))
    assert store.stat(entry.url) == entry
    assert store.read_many([entry.url])[0] == (tmp_path / name).read_bytes()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("webhdfs://one:9870/cards/a.tar", "webhdfs://one:9870/cards/a.tar"),
        ("webhdfs://me@two:9870/cards/", "webhdfs://me@two:9870/cards"),
        ("webhdfs://me:secret@two:9870/cards", "webhdfs://me@two:9870/cards"),
    ],
)
def test_a_url_keeps_the_host_that_it_names(given: str, expected: str) -> None:
    assert store.absolute(given) == expected
    assert store.absolute(expected) == expected
    fs, path = resolve(expected)
    assert path == "/" + expected.partition(":9870/")[2]
    assert urlsplit(expected).hostname in fs.url


def test_a_store_that_is_not_installed_is_named() -> None:
    with pytest.raises(StorageError, match="nosuch://a/b"):
        store.list_files("nosuch://a/b")


def test_an_empty_name_is_not_the_current_folder() -> None:
    with pytest.raises(StorageError, match=r"empty path .*; give .* \. for the current folder"):
        store.absolute("")


@pytest.mark.parametrize("url", ["s3://", "s3a:///"])
def test_a_url_without_a_bucket_says_so_at_once(url: str) -> None:
    with pytest.raises(StorageError, match="names no bucket"):
        store.list_files(url)


@pytest.mark.parametrize("url", ["s3:/bucket/a", "gs:/bucket"])
def test_a_url_that_lacks_a_slash_says_so(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match=f"{url}: .*; write {url.replace(':/', '://')}$"):
        store.list_files(url)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / url.partition("/")[0]
    folder.mkdir()
    assert store.absolute(url) == str(folder / url.partition("/")[2])


def test_whatever_a_store_lacks_on_this_machine_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of HDFS it is Java's library, which pyarrow misses with an OSError."""
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    monkeypatch.setenv("HADOOP_HOME", "/nowhere")
    with pytest.raises(StorageError, match=r"^hdfs://one/cards: .*; check the URL") as caught:
        store.list_files("hdfs://one/cards")
    one_line(caught.value)
