"""The whole run in one place: shards → chunks → predictions → Parquet.

Ray Data moves the work; it is never believed. What counts is what was committed: after each pass the shards without a
result are read again, and what still has none after the last pass is named in the manifest.
"""

import pickle
import warnings
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

import ray
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy
from ray.data.exceptions import ExecutionTimeoutError

from trapline.config import RunConfig, parse_deadline, parse_since
from trapline.detections.index import counted, indexed
from trapline.detections.megadetector import Detections
from trapline.errors import FatalError, OutputConflict, TraplineError, UsageError
from trapline.model import checkpoint
from trapline.model.checkpoint import Model
from trapline.model.predict import DEFAULT_BATCH, resolve_precision
from trapline.monitoring.notify import Notice
from trapline.monitoring.prometheus import Metrics
from trapline.ray_session import connect
from trapline.results import layout, ledger
from trapline.results.rows import classes_csv
from trapline.results.schema import Columns
from trapline.run import capacity, heartbeat, retention
from trapline.run.capacity import DECODE_CPUS, PREDICT_CPUS, Cluster, Crew, Lookout
from trapline.run.heartbeat import Heartbeat
from trapline.run.job import Job, columns_of, cropping, fingerprint
from trapline.run.manifest import Manifest, Status
from trapline.run.messages import AlreadyDone, Failure, FromPredictor, NotStarted, Task, WorkerNote
from trapline.run.packing import unpack
from trapline.run.progress import Account
from trapline.run.workers import PredictorActor, Reader
from trapline.run.writer import Assembler, Writer
from trapline.sources.selection import newest_first, select
from trapline.sources.shards import Shard, discover
from trapline.storage import store

# As long as passes bring results there is another one. Trouble that outlasts three without any is not transient.
_FRUITLESS_PASSES = 3
# A worker that dies takes its task along. Ray would try again for ever, and an input that kills workers would hang us;
# the next pass knows better.
_TASK_RETRIES = 1


class Watch(Protocol):
    """Whoever looks on."""

    def __call__(self, account: Account) -> None:
        """The running totals, after every step."""

    def note(self, text: str) -> None:
        """Something that a person should know."""


def classify(config: RunConfig, watch: Watch) -> Manifest:
    """Classify what the inputs hold and OUTPUT does not, and account for it.

    Args:
        config: the run.
        watch: is told of what happens.

    Raises:
        FatalError: the run cannot go on; the message says what to do.
        KeyboardInterrupt: after the manifest was written; what is committed stays.
    """
    with Notice(None if config.dry_run else config.notify, watch.note) as notice:
        return _classify(config, watch, notice)


def _classify(config: RunConfig, watch: Watch, notice: Notice) -> Manifest:
    now = datetime.now(UTC)
    stop_at = parse_deadline(config.stop_at, now) if config.stop_at else None
    if stop_at and stop_at <= now:
        raise UsageError(f"--stop-at {config.stop_at}: is over; give a time of day, or a time to come")
    size = (config.size, config.size) if config.size else None
    model = checkpoint.load(config.model, size=size, architecture=config.architecture)
    device = capacity.device(config)
    precision = resolve_precision(config.precision, device)
    columns = columns_of(config, model)
    detections = _detections(config)
    mark = fingerprint(config, model, precision, detections.digest if detections else None)

    since = parse_since(config.since, now) if config.since else None
    found = select(discover(config.inputs, config.output, config.image_column), since, config.where)
    plan = ledger.plan(found.shards, config.output, mark, config.replace)
    todo = newest_first(plan.todo) if stop_at else plan.todo
    others = plan.results_with_other_fingerprint
    account = Account(config, mark, found, plan.done, todo[: config.limit], others, stop_at)
    if config.dry_run:
        if detections:
            account.detections = counted(detections, found.shards, config.output)
            _check_unmatched(account, watch)
        return account.manifest("planned")

    # Find out now, and not in the morning, whether we may write.
    account.manifest("running").write(config.output)
    ledger.remember(config.output, plan.results)
    store.put(layout.classes_file(config.output), classes_csv(model.classes))
    try:
        _mind_others(account, watch)
        if account.todo:
            job = Job(
                size=model.size,
                batch_size=config.batch_size or DEFAULT_BATCH[device],
                device=device,
                precision=precision,
                columns=columns,
                fingerprint=mark.digest,
                decode=config.decode,
                cropping=cropping(config),
                stop_at=stop_at,
            )
            connect()
            beating = Heartbeat(config.output, lambda: account.manifest("running"))
            with beating, Metrics(account), _indexed(detections, account, watch):
                _work(job, model, account, watch)
    except KeyboardInterrupt:
        notice(*_written(account, "interrupted"))
        raise
    except FatalError as error:
        with suppress(TraplineError):  # what ends the run may be that nothing can be written
            notice(*_written(account, "aborted", str(error)))
        raise
    manifest, url = _written(account, account.verdict, f"--stop-at {config.stop_at}" if account.out_of_time else None)
    notice(manifest, url)
    try:
        retention.tidy(config.output, config.keep_runs)
    except TraplineError as error:
        watch.note(f"what old runs left could not be deleted: {error}")
    return manifest


def _written(account: Account, status: Status, ended_by: str | None = None) -> tuple[Manifest, str]:
    manifest = account.manifest(status, ended_by)
    return manifest, manifest.write(account.config.output)


def _detections(config: RunConfig) -> Detections | None:
    if config.detections is None:
        return None
    return Detections.at(config.detections, config.detection_threshold, config.detection_categories)


@contextmanager
def _indexed(detections: Detections | None, account: Account, watch: Watch) -> Iterator[None]:
    """The detector's boxes lie ready for the workers, as long as the context."""
    if detections is None:
        yield
        return
    output = account.config.output
    url = store.join(layout.detections_folder(output), account.run_id)
    with indexed(detections, account.found.shards, account.todo, output, url) as account.detections:
        _check_unmatched(account, watch)
        yield


def _check_unmatched(account: Account, watch: Watch) -> None:
    """Report names in the detector's file that match no image; raises UsageError where that was asked for."""
    config = account.config
    unmatched = account.detections.unmatched(str(config.detections)) if account.detections else None
    if unmatched and config.detections_unmatched == "error":
        raise UsageError(f"{unmatched}; correct the names, or run with --detections-unmatched warn")
    if unmatched:
        watch.note(unmatched)


def _mind_others(account: Account, watch: Watch) -> None:
    """Where another run is at work here, begin at the other end: we meet in the middle."""
    for other in heartbeat.others(account.config.output, account.run_id):
        run = f"run {other['run_id']}"
        if other["fingerprint"]["digest"] != account.fingerprint.digest:
            raise OutputConflict(
                f"{account.config.output}: {run} is writing there with another model or other options, or was killed "
                "within the last minutes; wait for it, or choose another OUTPUT"
            )
        watch.note(f"{run} is at work on the same output, or was killed within the last minutes; sharing the work")
        account.todo.reverse()
        return


def _work(job: Job, model: Model, account: Account, watch: Watch) -> None:
    """Pass over what is to do until all of it is committed or beyond help."""
    there = Cluster(job.device, account)
    shared_model = ray.put(model)
    slices = account.detections.slices if account.detections else {}
    tasks = [Task(shard, boxes=slices.get(shard.uri)) for shard in account.todo]
    fruitless = 0
    while tasks and fruitless < _FRUITLESS_PASSES and there.muster(watch.note):
        crew = there.crew()
        account.staff(crew.now)
        before = account.settled
        account.try_again(task.shard for task in tasks)
        # Closed here, whatever ended it: left to the end of the process, Ray would start anew to close it, and hang.
        with Lookout(there, account, watch.note), closing(_stream(job, shared_model, tasks, crew)) as stream:
            _one_pass(stream, job.columns, account, watch)
        if account.over_budget or account.out_of_time:
            break
        fruitless = fruitless + 1 if account.settled == before else 0
        tasks = _left(tasks, account)


def _one_pass(stream: Iterator[FromPredictor], columns: Columns, account: Account, watch: Watch) -> None:
    """Commit each shard once all of its chunks have come."""
    assembler = Assembler()
    stopping = False
    with Writer(columns, account) as writer:
        for item in stream:
            if isinstance(item, Failure):
                if item.fatal:
                    raise FatalError(item.reason)
                assembler.drop(item.shard)
                account.fail(item)
            elif isinstance(item, AlreadyDone):
                account.found_done(item.footer)
            elif isinstance(item, WorkerNote):
                watch.note(item.text)
            elif isinstance(item, NotStarted):
                assembler.drop(item.shard)
                stopping = True
            else:
                account.saw(item)
                if chunks := assembler.add(item):
                    writer.write(chunks)
            # A store slower than the device holds the flow back here, with few finished shards in memory.
            writer.settle()
            watch(account)
            # Those that have not begun by now never will: what is begun and has shown nothing yet is left with them.
            if account.over_budget or (stopping and not assembler.under_way):
                break
    watch(account)


def _left(tasks: list[Task], account: Account) -> list[Task]:
    """The shards worth another pass, as they are now; the others are accounted for as failed."""
    missing = [task for task in tasks if not account.has_result(task.shard.uri)]
    if not missing:
        return []
    now = _listed_again(account.config)
    again = []
    for task in missing:
        shard = task.shard
        failure = account.failures.get(shard.uri)
        isolate = task.isolate or failure is None or failure.isolate
        if now is not None and shard.uri not in now:
            failure = Failure(shard, f"{shard.uri}: disappeared after it was listed", transient=False)
        elif failure is None:
            failure = Failure(shard, f"{shard.uri}: the workers that read it died, or never came", transient=True)
        account.fail(failure)
        if failure.transient and now is not None:
            again.append(replace(task, shard=now[shard.uri], isolate=isolate))
    return again


def _listed_again(config: RunConfig) -> dict[str, Shard] | None:
    """The input as it is now, by URI; None where the store has stopped to answer."""
    try:
        return {shard.uri: shard for shard in discover(config.inputs, config.output, config.image_column).shards}
    except UsageError:  # all of it is gone
        return {}
    except TraplineError:
        return None


def _stream(job: Job, model: "ray.ObjectRef[Model]", tasks: list[Task], crew: Crew) -> Generator[FromPredictor]:
    """Shards through the cluster, as predicted chunks, in whatever order they come."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A block for every chunk: Ray otherwise gathers up to 128 MiB before it hands anything on.
    context.target_max_block_size = max(1, job.batch_size * 3 * job.size[0] * job.size[1] // 2)
    # A lost block is a shard that stays uncommitted, and the next pass finds it.
    context.max_errored_blocks = -1
    context.actor_init_max_retries = 0
    # Its retry limits have no other name until Ray 2.64, which the constraints exclude.
    warnings.filterwarnings("ignore", category=ray.util.annotations.RayDeprecationWarning)

    shards = ray.data.from_items([{"task": pickle.dumps(task)} for task in tasks], override_num_blocks=len(tasks))
    chunks = shards.map_batches(
        Reader(job),
        batch_size=1,
        batch_format="pyarrow",
        compute=TaskPoolStrategy(size=crew.most.decode),
        num_cpus=DECODE_CPUS,
        label_selector=crew.decode_where,
        max_retries=_TASK_RETRIES,
    )
    # A GPU works on one chunk while the pixels of another are copied to it; a CPU has no core to spare.
    calls = 2 if job.device == "cuda" else 1
    predicted = chunks.map_batches(
        PredictorActor,
        fn_constructor_args=(job, partial(ray.get, model)),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            min_size=crew.now.predict,
            initial_size=crew.now.predict,
            max_size=crew.most.predict,
            max_concurrent_calls_per_actor=calls,
            enable_true_multi_threading=calls > 1,
        ),
        num_cpus=PREDICT_CPUS,
        num_gpus=crew.predictor_gpus or None,
        max_task_retries=_TASK_RETRIES,
    )
    try:
        for batch in predicted.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from unpack(batch)  # type: ignore[misc]  # predictors leave no decoded chunk
    except ExecutionTimeoutError:
        return  # half an hour without any step: the nodes are gone, and the next pass waits for others
    except ray.exceptions.RayError as error:
        raise _ours(error) from error


def _ours(error: BaseException) -> BaseException:
    """The error of ours that a worker raised, out of the ones that Ray wraps around it."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, TraplineError):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    return error
