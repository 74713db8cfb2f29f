"""What a caller of `classify` may hand in: each observer that there is takes progress and notes, from two threads."""

from collections.abc import Callable
from io import StringIO
from threading import Thread

import pytest
from rich.console import Console

import trapline
from tests.support.progress import Silent, chunk, run_progress
from trapline.monitoring.console import ConsoleObserver
from trapline.monitoring.json_log import JsonLog
from trapline.run.observer import OnEnd, RunObserver, ignore_end


def observers() -> list[RunObserver]:
    return [
        Silent(),
        trapline._NoObserver(),
        JsonLog(Console(file=StringIO())),
        ConsoleObserver(Console(file=StringIO())),
    ]


@pytest.mark.parametrize("observer", observers(), ids=lambda observer: type(observer).__name__)
def test_each_takes_progress_and_notes_also_from_another_thread(observer: RunObserver) -> None:
    run = run_progress(todo=2)
    observer(run)  # before anything has come
    note = Thread(target=observer.note, args=("nothing has come back for 0:02:00",))
    note.start()
    run.record_chunk(chunk(run.plan.todo[0], ok=3))
    observer(run)
    note.join()
    observer(run)
    assert run.tallies.images_seen == 3


@pytest.mark.parametrize("kind", [JsonLog, ConsoleObserver])
def test_a_note_is_shown(kind: Callable[[Console], RunObserver]) -> None:
    shown = StringIO()
    kind(Console(file=shown, width=200)).note("slow today")
    assert "slow today" in shown.getvalue()


def test_an_end_that_is_ignored_changes_nothing() -> None:
    on_end: OnEnd = ignore_end
    manifest = run_progress().manifest("complete")
    before = repr(manifest)
    on_end(manifest, "results/_trapline/runs/x.json")
    assert repr(manifest) == before
