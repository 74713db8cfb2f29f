"""Work is done again and again, beside other work, and not any more after that."""

from threading import Event
from time import sleep

from trapline.run.periodic import Periodic


def test_work_is_done_again_and_again_and_never_after_the_context() -> None:
    calls: list[int] = []
    third = Event()

    def work() -> None:
        calls.append(1)
        if len(calls) == 3:
            third.set()

    with Periodic(work, every=0.01):
        assert third.wait(60)
    made = len(calls)
    sleep(0.05)
    assert len(calls) == made


def test_the_first_call_is_not_at_once() -> None:
    calls: list[int] = []
    with Periodic(lambda: calls.append(1), every=60):
        pass
    assert not calls


def test_leaving_waits_for_the_call_under_way() -> None:
    begun, done = Event(), Event()

    def work() -> None:
        begun.set()
        sleep(0.1)
        done.set()

    with Periodic(work, every=0.01):
        assert begun.wait(60)
    assert done.is_set()
