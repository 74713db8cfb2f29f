from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faulty_store import Fault, faulty_store
from tests.support.servers import PUBLIC_BUCKET, S3Server
from tests.support.store_files import one_line
from trapline.errors import StorageError
from trapline.storage import store
from trapline.storage.s3 import S3Files


@pytest.fixture
def fresh_clients(s3: S3Server) -> Iterator[None]:
    """Clients are kept by their options, which do not show the environment."""
    S3Files.clear_instance_cache()
    yield
    S3Files.clear_instance_cache()


@pytest.fixture
def no_credentials(fresh_clients: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.fixture
def public(s3: S3Server) -> str:
    """The URL of a bucket that holds one object and may be read by all."""
    s3.make_bucket(PUBLIC_BUCKET)
    s3.filesystem().pipe_file(f"{PUBLIC_BUCKET}/x/a.tar", b"data")
    return f"s3://{PUBLIC_BUCKET}"


def test_a_public_bucket_needs_no_credentials_where_the_environment_says_so(
    public: str, bucket: str, no_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match=r"no credentials; .*AWS_PROFILE.*role.*TRAPLINE_S3_ANONYMOUS=1") as caught:
        store.list_files(public)
    one_line(caught.value)
    monkeypatch.setenv("TRAPLINE_S3_ANONYMOUS", "1")
    (entry,) = store.list_files(public)
    with store.open_unchanged(entry.url, entry.identity) as stream:
        assert stream.read() == b"data"
    with pytest.raises(StorageError, match="access denied"):
        store.list_files(bucket)
    with pytest.raises(StorageError, match="access denied"):
        store.put(f"{public}/b", b"data")


def test_with_credentials_nothing_changes_for_public_buckets(public: str) -> None:
    assert store.read_many([f"{public}/x/a.tar"]) == [b"data"]


def test_a_setting_that_is_neither_yes_nor_no_is_named(public: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAPLINE_S3_ANONYMOUS", "maybe")
    with pytest.raises(StorageError, match="TRAPLINE_S3_ANONYMOUS=maybe: set it to 1 or 0"):
        store.list_files(public)


def test_an_archived_object_is_called_archived(
    s3: S3Server, bucket: str, fresh_clients: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(f"{bucket}/x/a", b"data")
    S3Files.clear_instance_cache()
    with faulty_store(s3) as faulty:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", faulty.server.endpoint)
        entry = store.stat(f"{bucket}/x/a")
        faulty.faults.append(Fault("error", r"GET .*/x/a", code="InvalidObjectState", status=403))
        before = len(faulty.log)
        with (
            store.open_unchanged(entry.url, entry.identity) as stream,
            pytest.raises(
                StorageError, match=rf"^{bucket}/x/a: archived .*; restore it first, then run again$"
            ) as caught,
        ):
            stream.read()
        one_line(caught.value)
        assert sum(request.startswith("GET") for request in faulty.log[before:]) == 1


@pytest.mark.parametrize("key", ["a.tar?versionId=null", "site::1/a.tar", "cam?versionId=2/x.tar?versionId="])
def test_a_key_is_a_name_and_no_syntax(key: str, bucket: str) -> None:
    store.put(f"{bucket}/{key}", b"x")
    (entry,) = store.list_files(bucket)
    assert entry.url == f"{bucket}/{key}"
    assert store.stat(entry.url) == entry
    with store.open_unchanged(entry.url, entry.identity) as file:
        assert file.read() == b"x"
    store.remove(entry.url)
    assert store.list_files(bucket, missing_ok=True) == []
