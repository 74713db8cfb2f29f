"""The clients of Google's and Azure's stores, where they are installed: each call ends, and a refusal is one."""

from collections.abc import Callable, Iterator

import fsspec
import pytest

from tests.support.broken_answers import BrokenServer, Fault, at_once, broken_server
from trapline.errors import StorageError, TransientError
from trapline.storage import deadlines, retry, store, watched_loop
from trapline.storage.filesystems import resolve

pytestmark = pytest.mark.slow

CLIENTS = {"gs": "gcsfs", "abfs": "adlfs"}
SHORT = 0.5

WAYS: dict[str, Callable[[str], object]] = {
    "stat": store.stat,
    "read": lambda url: store.read_many([url]),
    "range": lambda url: store.read_end(store.Entry(url, 10_000, ""), 1000),
    "list": store.list_files,
    "put": lambda url: store.put(url, b"data"),
    "remove": store.remove,
}


@pytest.fixture(params=CLIENTS)
def scheme(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a store whose client is installed; deadlines are short, and each call is tried twice."""
    pytest.importorskip(CLIENTS[request.param])
    monkeypatch.setattr(retry, "_PAUSES", (0.01,))
    monkeypatch.setattr(deadlines, "SILENCE", SHORT)
    monkeypatch.setattr(deadlines, "_SLOWEST", 2**50)
    monkeypatch.setattr(watched_loop, "UNKNOWN", 2 * SHORT)
    return str(request.param)


@pytest.fixture
def broken(scheme: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BrokenServer]:
    """The broken server, to which both schemes lead."""
    with broken_server() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.endpoint)
        account = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5"
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"{account};BlobEndpoint={server.endpoint}/a;")
        yield server
    fsspec.get_filesystem_class(scheme).clear_instance_cache()


def refused(way: str, url: str) -> Exception:
    with pytest.raises((StorageError, TransientError), match=url) as caught:
        WAYS[way](url)
    return caught.value


@pytest.mark.timeout(60)
@pytest.mark.parametrize("misdeed", ["silent", "reset", "garbage", "dribble"])
@pytest.mark.parametrize("phase", ["connect", "headers", "body"])
def test_every_call_ends(phase: str, misdeed: str, scheme: str, broken: BrokenServer) -> None:
    if (phase, misdeed) in (("connect", "dribble"), ("body", "garbage")):
        pytest.skip("that is garbage from the first byte on, and without a checksum, bytes are bytes")
    ways = ["read", "range"] if phase == "body" else list(WAYS)
    broken.faults = [Fault(".", phase, misdeed, f"bucket-{way}/") for way in ways]  # type: ignore[arg-type]

    def check(fault: Fault) -> None:
        error = refused(ways[broken.faults.index(fault)], f"{scheme}://{fault.bucket}x/a")
        assert isinstance(error, TransientError)
        assert fault.strikes
        if misdeed != "reset":
            assert "cancelled" in str(error)

    at_once(check, broken.faults)


@pytest.mark.parametrize(("status", "kind"), [(401, StorageError), (403, StorageError), (503, TransientError)])
def test_a_refusal_is_told_from_a_store_that_is_busy(
    status: int, kind: type, scheme: str, broken: BrokenServer
) -> None:
    broken.status = f"{status} No"
    for way in WAYS:
        assert isinstance(refused(way, f"{scheme}://bucket/x/a"), kind)


def test_a_url_of_azure_keeps_the_account_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("adlfs")
    monkeypatch.setenv("AZURE_STORAGE_ANON", "1")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "other")
    for url in (
        "abfs://c@one.dfs.core.windows.net/x/a",
        "abfs://d@one.dfs.core.windows.net/x",
        "abfs://c/x?versionid=1",
    ):
        assert store.absolute(url) == url
        fs, _ = resolve(url)
        assert fs.account_name == ("one" if "one" in url else "other")
