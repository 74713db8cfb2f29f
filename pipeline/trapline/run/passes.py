"""Passes over the shards: each pass reads the shards that the one before left without a result.

Ray Data moves the work; only committed files count. Shards without a result after the last pass are named in the
manifest.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace

from trapline.config import RunConfig
from trapline.errors import FatalError, OutputConflict, TraplineError, UsageError
from trapline.results.schema import Columns
from trapline.run.capacity import CapacityMonitor, Cluster, WorkerPlan
from trapline.run.messages import AlreadyDone, Failure, FromPredictor, NotStarted, Task, WorkerNote
from trapline.run.observer import RunObserver
from trapline.run.progress import Progress
from trapline.run.writer import Assembler, Writer
from trapline.sources.shards import EmptyInput, Shard, discover

# Passes go on as long as they bring results. A fault that lasts for three passes without any is not transient.
_FRUITLESS_PASSES = 3

Stream = Callable[[list[Task], WorkerPlan], Generator[FromPredictor]]
"""Sends shards through the workers, and yields what comes back."""


def run_passes(
    stream: Stream, tasks: list[Task], columns: Columns, cluster: Cluster, progress: Progress, observer: RunObserver
) -> None:
    """Retry unfinished shards until all are committed or have failed permanently.

    Args:
        stream: sends the shards through the workers.
        tasks: the shards, in the order in which to begin them.
        columns: of the result.
        cluster: where the workers are.
        progress: records what comes back.
        observer: receives the progress after each step, and notes.

    Raises:
        FatalError: the run cannot go on.
    """
    fruitless = 0
    while tasks and fruitless < _FRUITLESS_PASSES and cluster.wait_for_capacity(observer.note):
        workers = cluster.worker_plan()
        progress.workers.set_workers(workers.now)
        before = progress.shards.settled
        progress.retry(task.shard for task in tasks)
        # Always closed here: at the end of the process, closing it would start Ray again, and hang.
        with CapacityMonitor(cluster, progress, observer.note), closing(stream(tasks, workers)) as items:
            _one_pass(items, columns, progress, observer)
        if progress.over_budget or progress.out_of_time:
            break
        fruitless = fruitless + 1 if progress.shards.settled == before else 0
        tasks = _unfinished(tasks, progress)


def _one_pass(items: Iterator[FromPredictor], columns: Columns, progress: Progress, observer: RunObserver) -> None:
    """Commit each shard once all of its chunks have come."""
    assembler = Assembler()
    stopping = False
    with Writer(columns, progress) as writer:
        for item in items:
            if isinstance(item, Failure):
                if item.fatal:
                    raise FatalError(item.reason)
                assembler.drop(item.shard)
                progress.fail(item)
            elif isinstance(item, AlreadyDone):
                progress.done_by_another(item.footer)
            elif isinstance(item, WorkerNote):
                observer.note(item.text)
            elif isinstance(item, NotStarted):
                assembler.drop(item.shard)
                progress.stop()
                stopping = True
            else:
                progress.record_chunk(item)
                if chunks := assembler.add(item):
                    writer.write(chunks)
            # If the store is slower than the device, the stream waits here, with few finished shards in memory.
            writer.settle()
            observer(progress)
            # No further shard is begun; those begun of which no chunk has come yet are given up with them.
            if progress.over_budget or (stopping and not assembler.under_way):
                break
    observer(progress)


def _unfinished(tasks: list[Task], progress: Progress) -> list[Task]:
    """Return the shards to read again, as they are now; record the others as failed."""
    missing = [task for task in tasks if not progress.shards.has_result(task.shard.uri)]
    if not missing:
        return []
    now = _listed_again(progress.plan.config, [task.shard for task in missing])
    again = []
    for task in missing:
        shard = task.shard
        failure = progress.shards.failures.get(shard.uri)
        isolate = task.isolate or failure is None or failure.isolate
        if now is not None and shard.uri not in now:
            failure = Failure(shard, f"{shard.uri}: disappeared after it was listed", transient=False)
        elif failure is None:
            failure = Failure(shard, f"{shard.uri}: the workers that read it died, or never came", transient=True)
        progress.fail(failure)
        if failure.transient and now is not None:
            again.append(replace(task, shard=now[shard.uri], isolate=isolate))
    return again


def _listed_again(config: RunConfig, missing: list[Shard]) -> dict[str, Shard] | None:
    """Return the shards of the input as they are now, by URI; None if the store does not answer.

    If the input holds something now for which a run is refused, return the missing shards as they were listed.
    """
    try:
        return {
            shard.uri: shard
            for shard in discover(config.inputs, config.output, config.image_column, config.video).shards
        }
    except EmptyInput:
        return {}
    except (UsageError, OutputConflict):
        return {shard.uri: shard for shard in missing}
    except TraplineError:
        return None
