import re
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.progress import footer, run_progress
from trapline.results.ledger import Result
from trapline.run.plan import STATUSES
from trapline.storage.store import Entry


def test_it_is_fixed() -> None:
    with pytest.raises(FrozenInstanceError):
        run_progress().plan.todo = []  # type: ignore[misc]


def test_its_size_is_that_of_the_shards_to_do_alone() -> None:
    plan = run_progress(todo=3, done=2, left=4).plan
    assert plan.todo_bytes == 3 * 1000
    assert replace(plan, todo=[]).todo_bytes == 0


def test_images_already_done_are_those_of_the_results_by_status() -> None:
    plan = run_progress(todo=1, done=2).plan
    other = footer(plan.todo[0], images={"ok": 10, "salvaged": 0, "failed": 4})
    plan = replace(plan, already_done=[*plan.already_done, Result.of(Entry("u", 1, "1-e"), other)])
    assert plan.images_already_done == {"ok": 3 + 3 + 10, "salvaged": 2, "failed": 1 + 1 + 4}
    nothing = replace(plan, already_done=[]).images_already_done
    assert {status: nothing[status] for status in STATUSES} == dict.fromkeys(STATUSES, 0)


@pytest.mark.parametrize(
    ("stop_in", "passed"), [(None, False), (timedelta(hours=1), False), (timedelta(0), True), (-timedelta(1), True)]
)
def test_its_deadline_passes_once_it_has_come(stop_in: timedelta | None, passed: bool) -> None:
    stop_at = None if stop_in is None else datetime.now(UTC) + stop_in
    assert run_progress(stop_at=stop_at).plan.deadline_passed is passed


def test_the_id_of_a_run_is_its_own_and_sorts_by_the_time_of_its_start() -> None:
    plans = [run_progress().plan for _ in range(50)]
    assert len({plan.run_id for plan in plans}) == 50
    for plan in plans:
        assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", plan.run_id)
