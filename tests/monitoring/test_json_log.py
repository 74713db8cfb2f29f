"""Lines for a log collector."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from tests.support.progress import chunk, footer, run_progress, stopped_clock
from trapline.monitoring import json_log
from trapline.monitoring.json_log import JsonLog
from trapline.run import progress, worker_time
from trapline.run.worker_time import WorkerCounts


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    return stopped_clock(monkeypatch, progress, worker_time, json_log)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=20)


def lines(console: Console) -> list[dict[str, Any]]:
    return [json.loads(line) for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_totals_are_logged_every_thirty_seconds_with_the_run_s_id(
    clock: Callable[[float], None], console: Console
) -> None:
    run, watch = run_progress(todo=4), JsonLog(console)
    run.workers.set_workers(WorkerCounts(1, 1))
    run.record_chunk(chunk(run.plan.todo[0], ok=9, failed=1, encoded_bytes=1000, decode=20, predict=10))
    run.commit(footer(run.plan.todo[0]))
    for second in range(0, 65, 5):
        clock(second)
        watch(run)
    first, second = lines(console)
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "run_id": run.plan.run_id,
        "event": "progress",
        "images": 10,
        "failed": 1,
        "images_per_second": 0.33,
        "shards_committed": 1,
        "shards_todo": 4,
        "fraction_done": 0.25,
        "busy": {"decode": 0.667, "predict": 0.333},
    }
    assert second["event"] == "progress"


def test_what_is_noted_is_one_line_whatever_it_is(clock: Callable[[float], None], console: Console) -> None:
    watch, text = JsonLog(console), "no [red] node\nfor the second half of a line that is far longer than the console é"
    watch.note(text)
    watch(run_progress())
    watch.note("again")
    first, second = lines(console)
    assert (first["event"], first["run_id"], first["text"]) == ("note", None, text)
    assert second["run_id"] is not None
