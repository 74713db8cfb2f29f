"""Each thread computes alone, and the number of torch's other threads stays."""

import threading
from collections.abc import Iterator
from threading import Barrier, current_thread
from time import monotonic, process_time, sleep, thread_time

import pytest
import torch

from trapline.model.cpu_threads import CpuThreads


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Torch divides operations between two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def own_share(_: int) -> float:
    """The share of the processor time of large operations that the calling thread itself has taken."""
    values = torch.ones(4_000_000)
    own, all_threads = thread_time(), process_time()
    for _ in range(40):
        values.exp_()
    return (thread_time() - own) / (process_time() - all_threads)


@pytest.mark.usefixtures("two_threads")
def test_each_thread_computes_alone() -> None:
    assert own_share(0) < 0.7  # or else there would be nothing to be seen below
    threads = CpuThreads(2)
    once = threading.Lock()

    def in_turn(number: int) -> float:
        with once:
            return own_share(number)

    assert min(threads.map(in_turn, range(4))) > 0.8


@pytest.mark.usefixtures("two_threads")
def test_other_threads_compute_as_before() -> None:
    threads = CpuThreads(3)
    assert torch.get_num_threads() == CpuThreads().count == 2
    assert own_share(0) < 0.7
    shares: list[float] = []
    later = threading.Thread(target=lambda: shares.append(own_share(0)))
    later.start()
    later.join()
    assert shares[0] < 0.7
    assert threads.map(own_share, [0])[0] < 0.7  # a single part is divided


def test_parts_are_computed_side_by_side_and_come_back_in_order() -> None:
    side_by_side = Barrier(3)

    def name(part: str) -> tuple[str, str]:
        side_by_side.wait(10)
        return part, current_thread().name

    found = CpuThreads(3).map(name, list("abcdef"))
    assert [part for part, _ in found] == list("abcdef")
    assert len({thread for _, thread in found}) == 3


def test_one_thread_is_the_callers() -> None:
    assert CpuThreads(1).map(lambda part: (part, current_thread()), [1, 2]) == [
        (1, current_thread()), (2, current_thread()),
    ]  # fmt: skip


def test_the_first_error_is_raised() -> None:
    def fail(part: int) -> int:
        if part in (2, 4):
            raise ValueError(part)
        return part

    threads = CpuThreads(2)
    with pytest.raises(ValueError, match=r"^2$"):
        threads.map(fail, range(6))
    assert threads.map(fail, [0, 1]) == [0, 1]


def test_threads_end_with_the_last_reference() -> None:
    before = set(threading.enumerate())
    threads = CpuThreads(2)
    assert len(set(threading.enumerate()) - before) == 2
    del threads
    until = monotonic() + 10
    while set(threading.enumerate()) - before:
        assert monotonic() < until
        sleep(0.01)


def test_threads_that_the_system_refuses_are_an_error_that_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    before, start, number = set(threading.enumerate()), threading.Thread.start, torch.get_num_threads()
    started: list[threading.Thread] = []

    def refuse_the_second(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_the_second)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        CpuThreads(2)
    monkeypatch.undo()
    assert torch.get_num_threads() == number
    started[0].join(10)
    assert set(threading.enumerate()) - before == set()
