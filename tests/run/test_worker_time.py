from collections.abc import Callable

import pytest

from tests.support.progress import stopped_clock
from trapline.run import worker_time
from trapline.run.worker_time import WorkerCounts, WorkerTime


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time, in seconds; it stands still in between."""
    return stopped_clock(monkeypatch, worker_time)


@pytest.mark.parametrize(
    ("read", "decode", "predict", "bound_by"),
    [
        # Of 10 s and four decode workers, which have 40 s.
        (10, 28, 9.6, "predict"),
        (10, 28, 9.4, "decode"),
        (28, 10, 9.6, "predict"),
        (28, 10, 9.4, "read"),
    ],
)
def test_a_run_is_bound_by_the_busiest_workers_and_what_they_do_most(
    clock: Callable[[float], None], read: float, decode: float, predict: float, bound_by: str
) -> None:
    workers = WorkerTime()
    workers.set_workers(WorkerCounts(4, 1))
    clock(1)
    workers.record({"read": read / 2, "decode": decode / 2, "predict": predict})
    clock(10)
    workers.record({"read": read / 2, "decode": decode / 2})
    assert workers.busy == pytest.approx({"decode": 38 / 40, "predict": predict / 10})
    assert workers.bound_by == bound_by
    assert workers.step_seconds == {"read": read, "decode": decode, "predict": predict}
    assert workers.decoders_per_predictor == pytest.approx(38 / predict)


def test_workers_are_busy_for_a_share_of_the_time_that_they_were_there(clock: Callable[[float], None]) -> None:
    workers = WorkerTime()
    workers.set_workers(WorkerCounts(2, 1))
    clock(10)
    workers.set_workers(WorkerCounts(6, 2))
    clock(15)
    workers.set_workers(WorkerCounts(1, 1))
    clock(25)
    workers.record({"read": 20, "decode": 10, "predict": 15})
    assert workers.busy == pytest.approx({"decode": 30 / (20 + 30 + 10), "predict": 15 / (10 + 10 + 10)})
    assert (workers.seconds, workers.counts) == (25, WorkerCounts(1, 1))


def test_workers_that_are_gone_for_a_while_do_not_count_for_it(clock: Callable[[float], None]) -> None:
    workers = WorkerTime()
    workers.set_workers(WorkerCounts(4, 1))
    clock(10)
    workers.set_workers(WorkerCounts(0, 0))
    clock(1000)
    workers.record({"decode": 20, "predict": 5})
    assert workers.busy == pytest.approx({"decode": 20 / 40, "predict": 5 / 10})


def test_time_is_counted_from_when_the_workers_come_and_they_were_not_busy_before(
    clock: Callable[[float], None],
) -> None:
    workers = WorkerTime()
    assert (workers.busy, workers.bound_by, workers.decoders_per_predictor) == ({}, "nothing", None)
    clock(100)
    workers.set_workers(WorkerCounts(4, 1))
    assert (workers.seconds, workers.busy) == (0, {"decode": 0, "predict": 0})
    clock(104)
    workers.set_workers(WorkerCounts(5, 1))
    assert (workers.seconds, workers.bound_by) == (4, "nothing")


@pytest.mark.parametrize(("first", "bound_by"), [(5.5, "start-up"), (4.5, "decode")])
def test_a_run_is_bound_by_start_up_where_half_of_the_time_passed_before_the_first_chunk(
    clock: Callable[[float], None], first: float, bound_by: str
) -> None:
    workers = WorkerTime()
    workers.set_workers(WorkerCounts(4, 1))
    clock(first / 2)
    assert workers.start_up_seconds == first / 2  # so far
    clock(first)
    workers.record({"decode": 4, "predict": 0.5})
    clock(10)
    workers.record({"decode": 0.5})
    assert (workers.bound_by, workers.start_up_seconds) == (bound_by, first)
