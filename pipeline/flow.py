"""The whole run in one place: shards → chunks → predictions → Parquet. The only module that imports Ray.

Ray Data moves the work; it is never believed. What counts is what was committed: after each pass the shards without a
result are read again, and what still has none after the last pass is named in the manifest.
"""

import logging
import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, Literal

import ray
import torch
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

from pipeline import checkpoint, commit, storage
from pipeline.checkpoint import Model
from pipeline.chunks import Chunk, Failure
from pipeline.commit import Assembler, Footer
from pipeline.config import RunConfig
from pipeline.errors import TransientError, TraplineError, UsageError
from pipeline.fingerprint import fingerprint
from pipeline.manifest import Account, Manifest, Slots
from pipeline.predict import DEFAULT_BATCH, resolve_precision
from pipeline.rows import Columns
from pipeline.shards import Shard, discover
from pipeline.workers import CPU_THREADS, Job, PredictorActor, Reader, unpack

# The first pass and two more for what it left: transient trouble that outlasts three is not transient.
_PASSES = 3
# A worker that dies takes its task along. Ray would try again for ever, and an input that kills workers would hang us.
_TASK_RETRIES = 3
# Files are written while the next shards are predicted; a writer waits for the store, not for a core.
_COMMIT_THREADS = 4


def classify(config: RunConfig, watch: Callable[[Account], None]) -> Manifest:
    """Classify what the inputs hold and OUTPUT does not, and account for it.

    Args:
        config: the run.
        watch: called after every step with the running totals, to show progress.

    Raises:
        FatalError: the run cannot go on; the message says what to do.
        KeyboardInterrupt: after the manifest was written; what is committed stays.
    """
    size = (config.size, config.size) if config.size else None
    model = checkpoint.load(config.model, size=size, architecture=config.architecture)
    device = _device(config)
    precision = resolve_precision(config.precision, device)
    columns = Columns.of(config, model)
    mark = fingerprint(config, model, precision)

    found = discover(config.inputs, config.output)
    plan = commit.plan(found.shards, config.output, mark, config.replace)
    account = Account(config, mark, found, plan.done, plan.todo[: config.limit])
    if config.dry_run:
        return account.manifest("planned")

    # Find out now, and not in the morning, whether we may write.
    account.manifest("running").write(config.output)
    storage.put(storage.join(config.output, commit.SIDE_FOLDER, "classes.csv"), _classes_csv(model))
    try:
        if account.todo:
            job = Job(model.size, config.batch_size or DEFAULT_BATCH[device], device, precision, columns)
            _work(job, model, account, watch)
    except KeyboardInterrupt:
        account.manifest("interrupted").write(config.output)
        raise
    manifest = account.manifest(account.verdict)
    manifest.write(config.output)
    return manifest


def _work(job: Job, model: Model, account: Account, watch: Callable[[Account], None]) -> None:
    """Pass over what is to do until all of it is committed or beyond help."""
    _connect()
    slots = _slots(job, account.config)
    account.start(slots)
    shared_model = ray.put(model)
    todo = account.todo
    for _ in range(_PASSES):
        _one_pass(_stream(job, shared_model, todo, slots), job.columns, account, watch)
        if account.over_budget:
            break
        todo = _left(todo, account)
        if not todo:
            break


def _one_pass(
    stream: Iterator[Chunk | Failure], columns: Columns, account: Account, watch: Callable[[Account], None]
) -> None:
    """Commit each shard once all of its chunks have come."""
    assembler = Assembler()
    writing: dict[Future[Footer], Shard] = {}
    with ThreadPoolExecutor(_COMMIT_THREADS) as threads:
        for item in stream:
            if isinstance(item, Failure):
                assembler.drop(item.shard)
                account.fail(item)
            else:
                account.saw(item)
                if chunks := assembler.add(item):
                    writing[threads.submit(commit.commit, chunks, columns, account.fingerprint)] = item.shard
            # A store slower than the device holds the flow back here, with few finished shards in memory.
            _settle(writing, account, at_most=2 * _COMMIT_THREADS)
            watch(account)
            if account.over_budget:
                break
        _settle(writing, account, at_most=0)
        watch(account)


def _settle(writing: dict[Future[Footer], Shard], account: Account, at_most: int) -> None:
    """Take in the files that were written; wait until no more than `at_most` are under way."""
    while True:
        for future in [future for future in writing if future.done()]:
            shard = writing.pop(future)
            try:
                account.commit(future.result())
            except TraplineError as error:
                account.fail(Failure(shard, str(error), isinstance(error, TransientError)))
        if len(writing) <= at_most:
            return
        wait(writing, return_when=FIRST_COMPLETED)


def _left(todo: list[Shard], account: Account) -> list[Shard]:
    """The shards worth another pass, as they are now; the others are accounted for as failed."""
    missing = [shard for shard in todo if shard.uri not in account.committed]
    if not missing:
        return []
    now = _listed_again(account.config)
    again = []
    for shard in missing:
        failure = account.failures.get(shard.uri)
        if now is not None and shard.uri not in now:
            failure = Failure(shard, f"{shard.uri}: disappeared after it was listed", transient=False)
        elif failure is None:
            failure = Failure(shard, f"{shard.uri}: the workers that read it died", transient=True)
        account.fail(failure)
        if failure.transient and now is not None:
            again.append(now[shard.uri])
    return again


def _listed_again(config: RunConfig) -> dict[str, Shard] | None:
    """The input as it is now, by URI; None where the store has stopped to answer."""
    try:
        return {shard.uri: shard for shard in discover(config.inputs, config.output).shards}
    except UsageError:  # all of it is gone
        return {}
    except TraplineError:
        return None


def _stream(job: Job, model: "ray.ObjectRef[Model]", todo: list[Shard], slots: Slots) -> Iterator[Chunk | Failure]:
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

    shards = ray.data.from_items([{"shard": pickle.dumps(shard)} for shard in todo], override_num_blocks=len(todo))
    chunks = shards.map_batches(
        Reader(job),
        batch_size=1,
        batch_format="pyarrow",
        compute=TaskPoolStrategy(size=slots.decode),
        num_cpus=1,
        max_retries=_TASK_RETRIES,
    )
    predicted = chunks.map_batches(
        PredictorActor,
        fn_constructor_args=(job, partial(ray.get, model)),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=slots.predict),
        # Not the 1 CPU of a decode task: Ray would fuse equals into one actor that decodes and predicts in turn.
        num_cpus=0.9,
        num_gpus=slots.gpus_per_actor or None,
        max_task_retries=_TASK_RETRIES,
    )
    try:
        for batch in predicted.iter_batches(batch_size=None, batch_format="pyarrow"):
            for item, _ in unpack(batch):
                yield item
    except ray.exceptions.RayError as error:
        raise _ours(error) from error


def _device(config: RunConfig) -> Literal["cpu", "cuda"]:
    if config.device != "auto":
        return config.device
    if "RAY_ADDRESS" not in os.environ:
        return "cuda" if torch.cuda.is_available() else "cpu"
    _connect()
    return "cuda" if ray.cluster_resources().get("GPU", 0) else "cpu"


def _connect() -> None:
    """Join the cluster that RAY_ADDRESS names (`ray job submit` sets it), or else start Ray on this machine."""
    if ray.is_initialized():
        return
    # What is wrong comes back as rows, failures and exceptions; Ray's own remarks are not for who reads our log.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if "RAY_ADDRESS" in os.environ:
        ray.init(**quiet)
    else:
        # Two at least: a decode task and an actor must run at the same time, also on a single core.
        ray.init("local", num_cpus=max(2, os.cpu_count() or 1), include_dashboard=False, **quiet)


def _slots(job: Job, config: RunConfig) -> Slots:
    """How many workers the cluster has room for, or may grow to have."""
    grown = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    now = ray.cluster_resources()
    cores, gpus = (max(now.get(kind, 0), grown.get(kind, 0)) for kind in ("CPU", "GPU"))
    if job.device == "cuda":
        actors = int(gpus / config.gpus_per_actor)
        if not actors:
            raise UsageError("device cuda: the cluster has no GPU; start a GPU node, or choose --device cpu")
    else:
        actors = max(1, int(cores) // CPU_THREADS)
    decode = config.decode_workers or max(1, int(cores) - actors)
    return Slots(decode, actors, job.device, config.gpus_per_actor if job.device == "cuda" else 0)


def _classes_csv(model: Model) -> bytes:
    lines = (f'{index},"{name.replace(chr(34), chr(34) * 2)}"' for index, name in enumerate(model.classes))
    return "\n".join(["index,species", *lines, ""]).encode()


def _ours(error: BaseException) -> BaseException:
    """The error of ours that a worker raised, out of the ones that Ray wraps around it."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, TraplineError):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    return error
