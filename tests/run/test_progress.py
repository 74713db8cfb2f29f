from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.progress import chunk, failure, footer, run_progress, stopped_clock
from trapline.run import progress, worker_time
from trapline.run.worker_time import WorkerCounts


def test_a_manifest_shows_no_secrets_of_urls() -> None:
    model = "https://me:secret@host/m.pt?sig=secret"
    run = run_progress(model=model, inputs=("sftp://me:secret@host/a", "s3://b"), detections=model)
    manifest = asdict(run.manifest("complete"))
    assert manifest["config"]["model"] == manifest["config"]["detections"] == "https://host/m.pt?…"
    assert manifest["config"]["inputs"] == ["sftp://host/a", "s3://b"]
    assert "secret" not in str(manifest)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time, in seconds; it stands still in between."""
    return stopped_clock(monkeypatch, progress, worker_time)


class TestTheSum:
    @settings(deadline=None)  # machines are busy at times
    @given(
        done=st.integers(0, 3),
        left=st.integers(0, 3),
        events=st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["fail", "commit", "elsewhere"])), max_size=10),
    )
    def test_of_shards_is_right_at_every_moment(self, done: int, left: int, events: list[tuple[int, str]]) -> None:
        run = run_progress(todo=5, done=done, left=left)
        for place, event in events:
            of = run.plan.todo[place]
            if event == "commit":
                run.commit(footer(of))
            elif event == "elsewhere":
                run.done_by_another(footer(of))
            else:
                run.fail(failure(of))
        result = run.manifest("running")
        assert result.shards_in == done + 5 + left
        assert result.shards_in == (
            result.shards_committed + result.shards_already_done + len(result.shards_failed) + result.shards_left
        )
        assert result.shards_left >= left
        assert sum(result.images.values()) == 5 * result.shards_committed
        assert sum(result.images_already_done.values()) == 5 * result.shards_already_done

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

    def test_a_run_is_stopped_also_where_only_a_worker_s_clock_says_that_the_time_has_come(self) -> None:
        run = run_progress(todo=1, stop_at=datetime.now(UTC) + timedelta(hours=1))
        assert run.verdict == "complete"
        run.stop()
        assert run.verdict == "stopped"

    def test_a_broken_shard_is_committed_and_named(self) -> None:
        run = run_progress(todo=1)
        run.commit(footer(run.plan.todo[0], broken="cut at byte 9000"))
        result = run.manifest(run.verdict)
        assert (result.status, result.shards_committed, result.shards_left) == ("incomplete", 1, 0)
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
