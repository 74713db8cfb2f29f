from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.progress import chunk, failure, footer, run_progress, stopped_clock
from trapline.run import progress, worker_time
from trapline.run.worker_time import WorkerCounts


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time, in seconds; it stands still in between."""
    return stopped_clock(monkeypatch, progress, worker_time)


class TestTheSum:
    @settings(deadline=None)  # machines are busy at times
    @given(
        done=st.integers(0, 3),
        left=st.integers(0, 3),
        events=st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["fail", "commit"])), max_size=10),
    )
    def test_of_shards_is_right_at_every_moment(self, done: int, left: int, events: list[tuple[int, str]]) -> None:
        run = run_progress(todo=5, done=done, left=left)
        for place, event in events:
            of = run.plan.todo[place]
            if event == "commit":
                run.commit(footer(of))
            elif of.uri not in run.shards.committed:  # what is committed is not read again
                run.fail(failure(of))
        result = run.manifest("running")
        assert result.shards_in == done + 5 + left
        assert result.shards_in == (
            result.shards_committed + result.shards_already_done + len(result.shards_failed) + result.shards_left
        )
        assert result.shards_left >= left

    def test_a_shard_that_failed_first_and_was_committed_then_is_committed(self) -> None:
        run = run_progress(todo=2)
        for each in run.plan.todo:
            run.fail(failure(each))
        assert run.verdict == "incomplete"
        run.commit(footer(run.plan.todo[0]))
        result = run.manifest(run.verdict)
        assert (result.shards_committed, result.shards_left) == (1, 0)
        assert result.shards_failed == {run.plan.todo[1].uri: f"{run.plan.todo[1].uri}: busy"}
        run.commit(footer(run.plan.todo[1]))
        assert (run.verdict, run.manifest(run.verdict).shards_failed) == ("complete", {})

    def test_the_last_failure_is_the_one_that_is_told(self) -> None:
        run = run_progress(todo=1)
        for reason in ("busy", "gone"):
            run.fail(failure(run.plan.todo[0], reason))
        assert list(run.manifest("incomplete").shards_failed.values()) == [f"{run.plan.todo[0].uri}: gone"]

    def test_of_images_is_that_of_the_footers(self) -> None:
        run = run_progress(todo=3, done=2)
        run.commit(footer(run.plan.todo[0]))
        run.commit(
            footer(run.plan.todo[1], images={"ok": 0, "salvaged": 0, "failed": 1}, reasons={"empty": 1}, species={})
        )
        result = run.manifest("running")
        assert result.images == {"ok": 3, "salvaged": 1, "failed": 2}
        assert result.images_already_done == {"ok": 6, "salvaged": 2, "failed": 2}
        assert result.reasons == {"empty": 2, "truncated": 1}
        assert result.species == {"owl": 4}
        assert result.ignored == {"Thumbs.db": 2, ".mp4": 2}

    def test_a_run_without_shards_is_complete(self) -> None:
        run = run_progress(todo=0, done=3)
        assert run.verdict == "complete"
        assert run.manifest("complete").shards_left == 0
        assert run.shards.fraction_done == 1
        assert run.workers.bound_by == "nothing"

    def test_a_run_that_ran_out_of_time_is_stopped_unless_shards_failed_or_none_is_left(self) -> None:
        run = run_progress(todo=2, stop_at=datetime.now(UTC))
        assert run.verdict == "stopped"
        run.commit(footer(run.plan.todo[0]))
        assert run.verdict == "stopped"
        run.fail(failure(run.plan.todo[1]))
        assert run.verdict == "incomplete"
        run.commit(footer(run.plan.todo[1]))
        assert (run.verdict, run.out_of_time) == ("complete", False)

    def test_a_broken_shard_is_committed_and_named(self) -> None:
        run = run_progress(todo=1)
        run.commit(footer(run.plan.todo[0], broken="cut at byte 9000"))
        result = run.manifest(run.verdict)
        assert (result.status, result.shards_committed) == ("complete", 1)
        assert result.shards_broken == {run.plan.todo[0].uri: "cut at byte 9000"}


class TestTheBudget:
    def test_allows_the_fraction_and_not_one_more(self) -> None:
        run = run_progress(max_failed_fraction=0.1)
        run.record_chunk(chunk(run.plan.todo[0], ok=90, failed=10))
        assert not run.over_budget
        run.record_chunk(chunk(run.plan.todo[1], ok=8, failed=1))
        assert (run.over_budget, run.tallies.failed_seen, run.tallies.images_seen) == (True, 11, 109)
        assert run.verdict == "over_budget"

    def test_lets_one_bad_card_pass_until_there_is_more_to_go_by(self) -> None:
        run = run_progress(max_failed_fraction=0.1)
        run.record_chunk(chunk(run.plan.todo[0], ok=0, failed=99))
        assert not run.over_budget
        run.record_chunk(chunk(run.plan.todo[1], ok=1))
        assert run.over_budget

    def test_counts_in_the_end_also_for_a_small_archive(self) -> None:
        run = run_progress(todo=1, max_failed_fraction=0)
        run.record_chunk(chunk(run.plan.todo[0], ok=5, failed=1))
        assert not run.over_budget
        run.commit(footer(run.plan.todo[0]))
        assert run.over_budget

    def test_is_unlimited_unless_told(self) -> None:
        run = run_progress(todo=1)
        run.record_chunk(chunk(run.plan.todo[0], ok=0, failed=200))
        run.commit(footer(run.plan.todo[0]))
        assert not run.over_budget
        assert run.verdict == "complete"


class TestSpeed:
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
    def test_is_bound_by_the_busiest_workers_and_what_they_do_most(
        self, clock: Callable[[float], None], read: float, decode: float, predict: float, bound_by: str
    ) -> None:
        run = run_progress()
        run.workers.set_workers(WorkerCounts(4, 1))
        clock(1)
        run.record_chunk(chunk(run.plan.todo[0], read=read / 2, decode=decode / 2, predict=predict))
        clock(10)
        run.record_chunk(chunk(run.plan.todo[1], read=read / 2, decode=decode / 2))
        assert run.workers.busy == pytest.approx({"decode": 38 / 40, "predict": predict / 10})
        assert run.workers.bound_by == bound_by
        assert run.manifest("running").step_seconds == {"read": read, "decode": decode, "predict": predict}

    def test_is_that_of_the_workers_that_were_there_while_they_were_there(self, clock: Callable[[float], None]) -> None:
        run = run_progress()
        run.workers.set_workers(WorkerCounts(2, 1))
        clock(10)
        run.workers.set_workers(WorkerCounts(6, 2))
        clock(15)
        run.workers.set_workers(WorkerCounts(1, 1))
        clock(25)
        run.record_chunk(chunk(run.plan.todo[0], read=20, decode=10, predict=15))
        assert run.workers.busy == pytest.approx({"decode": 30 / (20 + 30 + 10), "predict": 15 / (10 + 10 + 10)})
        assert run.workers.seconds == 25

    def test_at_the_moment_the_workers_come_they_were_not_busy(self, clock: Callable[[float], None]) -> None:
        run = run_progress()
        clock(5)
        run.workers.set_workers(WorkerCounts(4, 1))
        assert run.workers.busy == {"decode": 0, "predict": 0}

    @pytest.mark.parametrize(("first", "bound_by"), [(5.5, "start-up"), (4.5, "decode")])
    def test_is_bound_by_start_up_where_half_of_the_time_passed_before_the_first_image(
        self, clock: Callable[[float], None], first: float, bound_by: str
    ) -> None:
        run = run_progress()
        run.workers.set_workers(WorkerCounts(4, 1))
        clock(first)
        run.record_chunk(chunk(run.plan.todo[0], decode=4, predict=0.5))
        clock(10)
        result = run.manifest("complete")
        assert (result.bound_by, result.start_up_seconds) == (bound_by, first)

    @pytest.mark.parametrize(
        ("seconds", "encoded_bytes", "left"),
        [
            (29, 400, None),  # too soon
            (40, 59, None),  # of 4,000 bytes 2 % are 80
            (40, 380, 40 * 3600 / 380),
        ],
    )
    def test_the_time_left_is_told_once_it_means_something(
        self, clock: Callable[[float], None], seconds: float, encoded_bytes: int, left: float | None
    ) -> None:
        run = run_progress()
        run.workers.set_workers(WorkerCounts(4, 1))
        clock(100)  # start-up is no part of the rate
        run.record_chunk(chunk(run.plan.todo[0], encoded_bytes=20))
        clock(100 + seconds)
        run.record_chunk(chunk(run.plan.todo[0], encoded_bytes=encoded_bytes))
        assert run.seconds_left == (left and pytest.approx(left))

    def test_before_any_image_is_bound_by_nothing(self, clock: Callable[[float], None]) -> None:
        run = run_progress()
        run.workers.set_workers(WorkerCounts(4, 1))
        clock(10)
        assert run.workers.bound_by == "nothing"
        assert run.manifest("running").images_per_second == 0

    def test_is_counted_from_when_the_workers_are_there(self, clock: Callable[[float], None]) -> None:
        run = run_progress()
        clock(100)
        run.workers.set_workers(WorkerCounts(1, 1))
        clock(104)
        run.record_chunk(chunk(run.plan.todo[0], ok=20, encoded_bytes=500))
        assert (run.workers.seconds, run.images_per_second) == (4, 5)
        assert run.shards.fraction_done == 500 / 4000

    def test_progress_is_of_bytes_and_what_is_read_again_is_none(self) -> None:
        run = run_progress()
        for _ in range(3):
            run.record_chunk(chunk(run.plan.todo[0], encoded_bytes=400))
        assert run.shards.fraction_done == 0.25
        run.commit(footer(run.plan.todo[0]))
        run.done_by_another(footer(run.plan.todo[1]))
        run.commit(footer(run.plan.todo[2]))
        assert run.shards.fraction_done == 0.75
