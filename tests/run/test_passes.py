"""What one pass leaves without a result is read again; a plain generator stands where Ray Data streams."""

from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from tests.support.archives import pictures, write_tar
from tests.support.progress import Silent, failure, footer
from tests.support.rows import COLUMNS, MARK, chunk
from trapline.config import RunConfig
from trapline.errors import FatalError
from trapline.run.capacity import Cluster, WorkerPlan
from trapline.run.messages import AlreadyDone, Failure, FromPredictor, NotStarted, Task, WorkerNote
from trapline.run.passes import run_passes
from trapline.run.plan import RunPlan
from trapline.run.progress import Progress
from trapline.sources.shards import Shard, discover

pytestmark = pytest.mark.usefixtures("ray_session")

Answer = Callable[[Task], Iterable[FromPredictor]]


class Passes:
    """A run over some archives, which a function answers for; what each pass was given is kept."""

    def __init__(self, folder: Path, shards: int = 3, stop_at: datetime | None = None, **options: Any) -> None:
        self.archive, self.output = folder / "archive", folder / "out"
        for number in range(shards):
            write_tar(self.archive / f"{number}.tar", pictures(1))
        config = RunConfig(inputs=(str(self.archive),), output=str(self.output), model="model.pt", **options)
        found = discover(config.inputs, config.output)
        self.shards = found.shards
        self.progress = Progress(RunPlan(config, MARK, found, [], found.shards, stop_at=stop_at))
        self.observer = Silent()
        self.given: list[list[Task]] = []
        self.closed = 0

    def run(self, answer: Answer) -> None:
        def stream(tasks: list[Task], plan: WorkerPlan) -> Generator[FromPredictor]:
            self.given.append(tasks)
            try:
                for task in tasks:
                    yield from answer(task)
            finally:
                self.closed += 1

        plan = self.progress.plan
        tasks = [Task(shard) for shard in plan.todo]
        run_passes(stream, tasks, COLUMNS, Cluster("cpu", plan), self.progress, self.observer)

    @property
    def names(self) -> list[list[str]]:
        """The shards of each pass."""
        return [[name(task.shard) for task in tasks] for tasks in self.given]

    @property
    def written(self) -> list[str]:
        return sorted(path.name for path in self.output.glob("*.parquet"))

    def assert_adds_up(self) -> None:
        result = self.progress.manifest("running")
        assert min(result.shards_left, result.shards_committed) >= 0
        assert result.shards_in == (
            result.shards_committed + result.shards_already_done + len(result.shards_failed) + result.shards_left
        )


def name(shard: Shard) -> str:
    return Path(shard.uri).name


def test_what_comes_whole_in_the_first_pass_is_committed_and_not_read_again(tmp_path: Path) -> None:
    passes = Passes(tmp_path)
    passes.run(lambda task: [chunk(task.shard, 1), chunk(task.shard, 0, last=False)])
    assert (passes.names, passes.closed) == ([["0.tar", "1.tar", "2.tar"]], 1)
    assert passes.written == ["0.tar.parquet", "1.tar.parquet", "2.tar.parquet"]
    assert passes.progress.verdict == "complete"
    assert sum(passes.progress.tallies.images.values()) == 3 * 6


def test_a_shard_of_which_nothing_or_not_all_comes_is_read_again_each_image_in_a_process_of_its_own(
    tmp_path: Path,
) -> None:
    passes = Passes(tmp_path)

    def answer(task: Task) -> Iterable[FromPredictor]:
        whole = [chunk(task.shard, 0, last=False), chunk(task.shard, 1)]
        return whole if name(task.shard) == "0.tar" or task.isolate else whole[: int(task.shard.uri[-5]) - 1]

    passes.run(answer)
    assert passes.names == [["0.tar", "1.tar", "2.tar"], ["1.tar", "2.tar"]]
    assert [task.isolate for task in passes.given[1]] == [True, True]
    assert (passes.progress.verdict, len(passes.written)) == ("complete", 3)
    assert sum(passes.progress.tallies.images.values()) == 3 * 6


@pytest.mark.parametrize("isolate", [True, False])
def test_a_failure_that_may_pass_is_tried_again_as_it_asks(tmp_path: Path, isolate: bool) -> None:
    passes = Passes(tmp_path, shards=1)

    def answer(task: Task) -> Iterable[FromPredictor]:
        first = len(passes.given) == 1
        return [replace(failure(task.shard), isolate=isolate)] if first else [chunk(task.shard)]

    passes.run(answer)
    assert [[task.isolate for task in tasks] for tasks in passes.given] == [[False], [isolate]]
    assert (passes.progress.verdict, passes.progress.shards.failures) == ("complete", {})


def test_a_failure_for_good_is_not_tried_again_and_takes_what_came_of_the_shard_along(tmp_path: Path) -> None:
    passes = Passes(tmp_path)

    def answer(task: Task) -> Iterable[FromPredictor]:
        if name(task.shard) != "1.tar":
            return [chunk(task.shard)]
        refusal = Failure(task.shard, "no permission", transient=False)
        return [chunk(task.shard, 0, last=False), refusal, chunk(task.shard, 1)]

    passes.run(answer)
    assert (len(passes.given), passes.written) == (1, ["0.tar.parquet", "2.tar.parquet"])
    assert passes.progress.manifest("incomplete").shards_failed == {passes.shards[1].uri: "no permission"}


def test_after_three_passes_without_any_result_the_rest_has_failed(tmp_path: Path) -> None:
    passes = Passes(tmp_path)
    # Two passes bring nothing, the third a shard, and no other one does.
    passes.run(lambda task: [chunk(task.shard)] if len(passes.given) == 3 and name(task.shard) == "1.tar" else [])
    assert passes.names == [["0.tar", "1.tar", "2.tar"]] * 3 + [["0.tar", "2.tar"]] * 3
    assert passes.progress.verdict == "incomplete"
    assert passes.progress.manifest("incomplete").shards_failed == {
        shard.uri: f"{shard.uri}: the workers that read it died, or never came" for shard in passes.shards[::2]
    }


def test_the_next_pass_reads_shards_as_they_are_by_then(tmp_path: Path) -> None:
    passes = Passes(tmp_path)

    def answer(task: Task) -> Iterable[FromPredictor]:
        if len(passes.given) == 2:
            yield chunk(task.shard)
        elif name(task.shard) == "0.tar":
            write_tar(passes.archive / "0.tar", pictures(2))
        elif name(task.shard) == "1.tar":
            Path(task.shard.uri).unlink()

    passes.run(answer)
    assert passes.names[1:] == [["0.tar", "2.tar"]]
    before, (changed, same) = passes.shards, [task.shard for task in passes.given[1]]
    assert changed.identity != before[0].identity
    assert same == before[2]
    gone = before[1].uri
    assert passes.progress.manifest("incomplete").shards_failed == {gone: f"{gone}: disappeared after it was listed"}


def test_where_all_of_the_input_has_gone_each_shard_has_failed(tmp_path: Path) -> None:
    passes = Passes(tmp_path)

    def answer(task: Task) -> Iterable[FromPredictor]:
        Path(task.shard.uri).unlink()
        return []

    passes.run(answer)
    assert len(passes.given) == 1
    assert {why.reason.partition(": ")[2] for why in passes.progress.shards.failures.values()} == {
        "disappeared after it was listed"
    }
    assert len(passes.progress.shards.failures) == 3


def test_a_name_that_is_refused_and_comes_during_the_run_keeps_no_shard_from_another_pass(tmp_path: Path) -> None:
    passes = Passes(tmp_path)

    def answer(task: Task) -> Iterable[FromPredictor]:
        if len(passes.given) == 1:
            (passes.archive / "\udcff.tar").touch()
            return []
        return [chunk(task.shard)]

    passes.run(answer)
    assert [len(tasks) for tasks in passes.given] == [3, 3]
    assert passes.written == ["0.tar.parquet", "1.tar.parquet", "2.tar.parquet"]
    passes.assert_adds_up()


def fatal(task: Task) -> FromPredictor:
    return Failure(task.shard, "out of memory", transient=False, fatal=True)


def test_what_every_shard_would_fail_for_ends_the_run_and_what_was_whole_is_committed(tmp_path: Path) -> None:
    passes = Passes(tmp_path)
    with pytest.raises(FatalError, match="out of memory"):
        passes.run(lambda task: [chunk(task.shard)] if name(task.shard) == "0.tar" else [fatal(task)])
    assert (passes.names, passes.closed) == ([["0.tar", "1.tar", "2.tar"]], 1)
    assert passes.written == ["0.tar.parquet"]
    assert passes.progress.shards.committed == {passes.shards[0].uri}


def test_too_many_failed_images_end_the_run_at_once(tmp_path: Path) -> None:
    passes = Passes(tmp_path, max_failed_fraction=0.1)
    seen: list[str] = []

    def answer(task: Task) -> Iterable[FromPredictor]:
        seen.append(name(task.shard))
        return [chunk(task.shard, images=150)]

    passes.run(answer)
    assert (seen, passes.closed, len(passes.given)) == (["0.tar"], 1, 1)
    assert (passes.progress.verdict, passes.written) == ("over_budget", ["0.tar.parquet"])


# The clock of a worker may be ahead of the driver's.
@pytest.mark.parametrize("driver_is_behind_by", [timedelta(0), timedelta(hours=1)], ids=["same time", "worker ahead"])
def test_once_it_is_time_to_stop_what_was_begun_is_finished_and_the_rest_is_left(
    tmp_path: Path, driver_is_behind_by: timedelta
) -> None:
    passes = Passes(tmp_path, shards=4, stop_at=datetime.now(UTC) + driver_is_behind_by)
    zero, one, _, three = passes.shards
    items: list[FromPredictor] = [chunk(zero, 0, last=False), NotStarted(one), chunk(zero, 1), chunk(three)]
    passes.run(lambda task: items if task.shard == zero else [])
    assert (len(passes.given), passes.closed) == (1, 1)
    assert passes.written == ["0.tar.parquet"]
    assert passes.progress.verdict == "stopped"
    result = passes.progress.manifest("stopped")
    assert (result.shards_committed, result.shards_failed, result.shards_left) == (1, {}, 3)


@pytest.mark.parametrize("order", [1, -1], ids=["known before its chunks", "known after its chunks"])
def test_a_shard_that_another_run_has_done_counts_once_also_where_its_chunks_come(tmp_path: Path, order: int) -> None:
    passes = Passes(tmp_path, shards=2)

    def answer(task: Task) -> Iterable[FromPredictor]:
        if name(task.shard) == "1.tar":
            return [chunk(task.shard)]
        # As where the worker was lost behind its last chunk, and Ray ran the task again.
        images = {"ok": 2, "salvaged": 0, "failed": 1}
        return [AlreadyDone(footer(task.shard, images=images)), chunk(task.shard)][::order]

    passes.run(answer)
    result = passes.progress.manifest("complete")
    assert len(passes.given) == 1
    assert result.shards_committed + result.shards_already_done == 2
    assert sum(result.images.values()) + sum(result.images_already_done.values()) == 2 * 3
    passes.assert_adds_up()


def test_a_shard_that_is_committed_does_not_fail_when_ray_runs_its_task_again(tmp_path: Path) -> None:
    passes = Passes(tmp_path, shards=2)

    def answer(task: Task) -> Iterable[FromPredictor]:
        yield chunk(task.shard)
        if task.shard == passes.shards[1]:
            while not passes.progress.shards.committed:  # its file is being written
                sleep(0.01)
                yield WorkerNote("at work")
            (done, *_) = passes.progress.shards.committed
            yield failure(next(shard for shard in passes.shards if shard.uri == done))

    passes.run(answer)
    assert (passes.progress.verdict, len(passes.given)) == ("complete", 1)
    passes.assert_adds_up()


def test_the_observer_hears_of_every_item_and_gets_the_workers_notes(tmp_path: Path) -> None:
    passes = Passes(tmp_path, shards=2)
    seen: list[int] = []

    class Watching(Silent):
        def __call__(self, progress: Progress) -> None:
            seen.append(progress.tallies.images_seen)

    passes.observer = Watching()
    passes.run(lambda task: [WorkerNote(f"slow at {name(task.shard)}"), chunk(task.shard)])
    assert passes.observer.notes == ["slow at 0.tar", "slow at 1.tar"]
    assert seen == [0, 3, 3, 6, 6]


def test_an_observer_that_interrupts_leaves_the_stream_closed_and_what_was_whole_committed(tmp_path: Path) -> None:
    class Interrupting(Silent):
        def __call__(self, progress: Progress) -> None:
            raise KeyboardInterrupt

    passes = Passes(tmp_path)
    passes.observer = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        passes.run(lambda task: [chunk(task.shard)])
    assert (passes.closed, passes.written) == (1, ["0.tar.parquet"])
    assert passes.progress.shards.committed == {passes.shards[0].uri}
