"""Every request to a store ends, whatever the store does in the middle of it."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product
from threading import Event

import fsspec.asyn
import pytest

from tests.support.broken_answers import MISDEEDS, OBJECT, PHASES, VERBS, BrokenServer, Fault, at_once, broken_s3
from trapline.errors import StorageError, TransientError
from trapline.storage import deadlines, retry, store
from trapline.storage.deadlines import DeadlineError, in_time

# Long enough for 18 requests and their answers on a busy machine, short enough for two tries.
SHORT = 0.5
# Two parts of S3, which are cut small for the test.
LARGE = bytes(2**16)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines are short, and there are two tries."""
    monkeypatch.setattr(retry, "_PAUSES", (0.01,))
    monkeypatch.setattr(deadlines, "SILENCE", SHORT)
    monkeypatch.setattr(deadlines, "_CLEANUP", SHORT)


@pytest.fixture(scope="module")
def server() -> Iterator[BrokenServer]:
    with broken_s3() as server:
        yield server


@pytest.fixture
def broken(server: BrokenServer, impatient: None) -> Iterator[BrokenServer]:
    yield server
    server.faults = []


def multipart(url: str) -> None:
    fs, path = store.resolve(f"{url}/c")
    retry.with_retries(url, lambda: fs.pipe_file(path, LARGE, chunksize=2**15))


# What makes each request, of a folder.
WAYS: dict[str, Callable[[str], object]] = {
    "head": lambda url: store.stat(f"{url}/a").size,
    "get": lambda url: store.read_many([f"{url}/a"]),
    "ranged get": lambda url: store.read_end(store.Entry(f"{url}/a", len(OBJECT), ""), 1000),
    "list": lambda url: [entry.url for entry in store.list_files(url)],
    "put": lambda url: store.put(f"{url}/c", b"data"),
    "delete": lambda url: store.remove(f"{url}/a"),
    "start of a multipart put": multipart,
    "part of a multipart put": multipart,
    "end of a multipart put": multipart,
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_sound_server_is_understood(verb: str, broken: BrokenServer) -> None:
    expected = {
        "head": len(OBJECT),
        "get": [OBJECT],
        "ranged get": OBJECT[-1000:],
        "list": ["s3://b/x/a"],
    }
    assert WAYS[verb]("s3://b/x") == expected.get(verb)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("verb", VERBS)
def test_every_request_ends(verb: str, broken: BrokenServer) -> None:
    broken.faults = [
        Fault(verb, phase, misdeed, f"{phase}-{misdeed}".replace(" ", "-"))  # type: ignore[arg-type]
        for phase, misdeed in product(PHASES, MISDEEDS)
    ]
    at_once(assert_it_ends, broken.faults)


def assert_it_ends(fault: Fault) -> None:
    url = f"s3://{fault.bucket}/x"
    no_body = fault.verb in ("head", "delete", "put", "part of a multipart put")
    if fault.phase == "after" or (no_body and fault.phase in ("chunk header", "body")):
        # The answer was whole, or its status at least was; only a connection that is lost may spoil it.
        with suppress(TransientError):
            WAYS[fault.verb](url)
    elif (fault.phase, fault.misdeed) == ("body", "garbage"):
        # Without a checksum, bytes are bytes.
        with suppress(TransientError, StorageError):
            WAYS[fault.verb](url)
    else:
        with pytest.raises(TransientError, match=url):
            WAYS[fault.verb](url)
    assert fault.strikes, fault


def test_a_cancelled_request_leaves_no_task_behind(broken: BrokenServer) -> None:
    store.put("s3://b/x/c", b"data")
    before = tasks()
    broken.faults = [Fault("put", "continue", "silent")]
    with pytest.raises(TransientError, match="cancelled"):
        store.put("s3://b/x/c", b"data")
    while tasks() > before:
        time.sleep(0.01)


def tasks() -> int:
    """How many tasks the loop has in which s3fs makes its requests."""
    return len(asyncio.all_tasks(fsspec.asyn.get_loop()))


@pytest.fixture
def slow(broken: BrokenServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[BrokenServer]:
    """The server waits between the pieces of 16 MiB, of which 4 fit into a connection: 2.3 s without progress."""
    monkeypatch.setattr(retry, "_PAUSES", ())
    monkeypatch.setattr(deadlines, "_SLOWEST", 2**21)
    broken.pause = 0.2
    yield broken
    broken.pause = 0


def test_an_upload_that_moves_is_not_cut_off(slow: BrokenServer) -> None:
    store.put("s3://b/x/c", bytes(2**24))


def test_an_upload_that_is_stuck_is_cut_off(slow: BrokenServer) -> None:
    slow.pause = 60
    with pytest.raises(TransientError, match="cancelled"):
        store.put("s3://b/x/c", bytes(2**24))


def test_an_upload_that_crawls_is_cut_off(slow: BrokenServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "_SLOWEST", 2**50)
    with pytest.raises(TransientError, match="cancelled"):
        store.put("s3://b/x/c", bytes(2**24))


def test_an_action_that_takes_too_long_is_left_behind() -> None:
    with pytest.raises(DeadlineError, match="given up"):
        in_time(Event().wait, 0.01)


def test_an_action_in_time_returns_and_raises_as_it_is() -> None:
    assert in_time(lambda: 1, 10) == 1
    with pytest.raises(TimeoutError, match="its own"):
        in_time(throw, 10)


def throw() -> None:
    raise TimeoutError("its own")
