"""Each operation of an asynchronous filesystem ends; web servers are the real ones at hand, for all stores of fsspec."""

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest

from tests.support.broken_answers import OBJECT, BrokenServer, Fault, at_once, broken_server
from trapline.errors import CheckpointError, StorageError, TransientError
from trapline.model.download import fetch
from trapline.storage import deadlines, retry, store, watched_loop
from trapline.storage.filesystems import resolve
from trapline.storage.watched_loop import transfer

# Longer than ten requests and their answers take on a busy machine.
SHORT = 0.3


@pytest.fixture(scope="module")
def server() -> Iterator[BrokenServer]:
    with broken_server() as server:
        yield server


@pytest.fixture
def broken(server: BrokenServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[BrokenServer]:
    """The server; deadlines are short, each call is tried once, and a body gets as long as no body."""
    monkeypatch.setattr(retry, "_PAUSES", ())
    monkeypatch.setattr(deadlines, "SILENCE", SHORT)
    monkeypatch.setattr(deadlines, "_SLOWEST", 2**50)
    monkeypatch.setattr(watched_loop, "UNKNOWN", 2 * SHORT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield server
    server.faults = []


def stream(url: str) -> bytes:
    with store.open_unchanged(url, f"{len(OBJECT)}-1") as file:
        return file.read()


# Each way to read, and the request of it that goes wrong.
WAYS: dict[str, tuple[str, Callable[[str], object]]] = {
    "stat": ("HEAD|GET", lambda url: store.stat(url).size),
    "read": ("get", lambda url: store.read_many([url])),
    "range": ("ranged get", lambda url: store.read_end(store.Entry(url, len(OBJECT), ""), 1000)),
    "stream": ("ranged get", stream),
    "checkpoint": ("get", fetch),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("way", WAYS)
def test_every_request_to_a_web_server_ends(way: str, broken: BrokenServer) -> None:
    verb, action = WAYS[way]
    for phase, misdeed in product(["connect", "headers", "chunk header", "body"], ["silent", "dribble", "garbage"]):
        if phase in ("chunk header", "body") and "HEAD" in verb:
            continue  # a HEAD has no body
        if (phase, misdeed) == ("body", "garbage"):
            continue  # without a checksum, bytes are bytes
        if (phase, misdeed) == ("connect", "dribble"):
            continue  # what does not begin with HTTP is garbage
        folder = f"{phase}-{misdeed}".replace(" ", "-")
        broken.faults.append(Fault(verb, phase, misdeed, folder))  # type: ignore[arg-type]

    def assert_it_ends(fault: Fault) -> None:
        url = f"{broken.endpoint}/{fault.bucket}/x/a"
        with pytest.raises((TransientError, CheckpointError), match=url) as caught:
            action(url)
        assert fault.misdeed == "garbage" or "cancelled" in str(caught.value), fault
        assert fault.strikes, fault

    at_once(assert_it_ends, broken.faults)


@pytest.mark.parametrize("way", WAYS)
def test_a_sound_server_is_understood(way: str, broken: BrokenServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "SILENCE", 10.0)
    monkeypatch.setattr(watched_loop, "UNKNOWN", 10.0)
    _, action = WAYS[way]
    action(f"{broken.endpoint}/x/a")


def test_a_server_that_takes_no_upload_is_given_up(broken: BrokenServer) -> None:
    fs, path = resolve(f"{broken.endpoint}/x/c")
    broken.faults = [Fault("put", "connect", "silent")]
    with pytest.raises(TransientError, match="cancelled"):
        retry.with_retries(path, lambda: fs.pipe_file(path, bytes(2**24)), sent=2**24)


def test_a_cancelled_operation_leaves_no_task_behind(broken: BrokenServer) -> None:
    broken.faults = [Fault("get", "chunk header", "silent")]
    with pytest.raises(TransientError, match="cancelled"):
        store.read_many([f"{broken.endpoint}/x/a"])
    while asyncio.all_tasks(watched_loop.watched_loop()):
        time.sleep(0.01)


def run(coroutine: object, sent: int = 0, received: int | None = 0) -> object:
    with transfer(sent, received):
        return asyncio.run_coroutine_threadsafe(coroutine, watched_loop.watched_loop()).result(30)  # type: ignore[arg-type]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "SILENCE", SHORT)


@pytest.mark.usefixtures("short")
class TestAnOperation:
    def test_goes_on_while_one_of_its_tasks_does(self) -> None:
        async def child() -> str:
            for _ in range(50):
                await asyncio.sleep(SHORT / 20)
            return "done"

        async def parent() -> list[str]:
            return list(await asyncio.gather(child(), child()))

        assert run(parent(), received=None) == ["done", "done"]

    def test_ends_with_all_its_tasks(self) -> None:
        ended = []

        async def child() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        async def parent() -> None:
            await asyncio.gather(child(), child())

        with pytest.raises(ConnectionError, match="cancelled"):
            run(parent(), received=None)
        assert ended == [True, True]

    def test_ends_although_it_catches_the_error_and_tries_again(self) -> None:
        async def stubborn() -> None:
            for _ in range(5):
                try:
                    await asyncio.Event().wait()
                except ConnectionError as error:
                    last = error
            raise last

        with pytest.raises(ConnectionError, match="cancelled"):
            run(stubborn())

    def test_hears_its_own_cancellations_as_such(self) -> None:
        async def timed() -> str:
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.Event().wait()
            except TimeoutError:
                return "its own timeout"
            return "none"

        assert run(timed()) == "its own timeout"


@pytest.mark.parametrize(
    ("status", "expected"), [(404, "not found|404"), (403, "check credentials"), (401, "check credentials")]
)
def test_what_a_web_server_refuses_is_told_at_once(status: int, expected: str, broken: BrokenServer) -> None:
    broken.status = f"{status} No"
    try:
        for way in ("stat", "read", "range"):
            with pytest.raises(StorageError, match=expected):
                WAYS[way][1](f"{broken.endpoint}/x/a")
    finally:
        broken.status = None
