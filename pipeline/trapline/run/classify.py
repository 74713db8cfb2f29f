"""The whole run in one place: plan, execute, close. Shards → chunks → predictions → Parquet."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from threading import Lock

from trapline.config import RunConfig
from trapline.detections.index import Index, Slice, counted, indexed
from trapline.errors import ClusterError, OutputConflict, TraplineError, UsageError, in_one_line
from trapline.ray_session import connect, on_shared_cluster
from trapline.results import layout, ledger
from trapline.results.rows import classes_csv
from trapline.run import capacity, heartbeat, retention
from trapline.run.capacity import Cluster
from trapline.run.heartbeat import Heartbeat
from trapline.run.manifest import Manifest, Status
from trapline.run.messages import Task
from trapline.run.observer import During, OnEnd, RunObserver, ignore_end
from trapline.run.passes import run_passes
from trapline.run.plan import RunPlan
from trapline.run.prepare import Prepared, part_of, prepare
from trapline.run.progress import Progress
from trapline.run.ray_stream import RayStream, WorkerClasses
from trapline.run.ray_watch import RayWatch, exit_now, patience
from trapline.sources.shards import Shard
from trapline.storage import store


def classify(
    config: RunConfig,
    observer: RunObserver,
    *,
    on_end: OnEnd = ignore_end,
    during: Sequence[During] = (),
    workers: WorkerClasses | None = None,
    end_process: Callable[[str], None] = exit_now,
) -> Manifest:
    """Classify the shards of the inputs that have no result in OUTPUT yet, and return the manifest.

    Args:
        config: the run.
        observer: receives progress and notes.
        on_end: called once with the closing manifest; not for a dry run, nor for a run that failed before its first
            manifest.
        during: contexts to enter while shards are processed, such as `monitoring.prometheus.Metrics`.
        workers: what runs on the workers, in place of the real readers and predictors.
        end_process: called from another thread with the reason when Ray itself has ended (see `RayWatch`), after the
            manifest was written. The default ends this process, as a command should; a program may use the seconds
            until Ray ends it.

    Raises:
        FatalError: the run cannot go on; the message says what to do.
        KeyboardInterrupt: after the manifest was written; what is committed stays.
    """
    prepared = prepare(config)
    progress = Progress(prepared.plan)
    if config.dry_run:
        if prepared.detections:
            index = counted(prepared.detections, prepared.listed, config.output)
            progress.record_index(index)
            _report_detections(index, config, observer)
        return progress.manifest("planned")
    closing = _Closing(progress, on_end)

    def on_loss(process: str) -> None:
        reason = f"Ray has ended: its {process} died or was stopped; run the same command again to carry on"
        with suppress(TraplineError):
            closing("aborted", reason)
        end_process(reason)

    # Find out now, and not in the morning, whether OUTPUT can be written.
    progress.manifest("running").write(config.output)
    ledger.remember(config.output, prepared.results)
    store.put(layout.classes_file(config.output), classes_csv(prepared.model.classes))
    try:
        _execute(prepared, progress, observer, during, workers or WorkerClasses(), on_loss)
    except KeyboardInterrupt:
        closing("interrupted")
        raise
    except Exception as error:
        with suppress(TraplineError):  # the error may be that OUTPUT cannot be written
            closing("aborted", str(error) if isinstance(error, TraplineError) else in_one_line(error))
        raise
    manifest = closing(progress.verdict, f"--stop-at {config.stop_at}" if progress.out_of_time else None)
    try:
        retention.tidy(config.output, config.keep_runs, progress.plan.run_id, prepared.unfinished)
    except TraplineError as error:
        observer.note(f"what old runs left could not be deleted: {error}")
    return manifest


def _execute(
    prepared: Prepared,
    progress: Progress,
    observer: RunObserver,
    during: Sequence[During],
    workers: WorkerClasses,
    on_loss: Callable[[str], None],
) -> None:
    """Process the shards of the plan; `on_loss` is called with the name of a Ray process that has ended."""
    plan, job = prepared.plan, prepared.job
    todo = share_with_concurrent_runs(plan, observer)
    if not todo:
        return
    connect()
    with ExitStack() as contexts:
        contexts.enter_context(Heartbeat(plan.config.output, lambda: progress.manifest("running")))
        watch = contexts.enter_context(RayWatch(capacity.ports(), on_loss, patience(on_shared_cluster())))
        for context in during:
            contexts.enter_context(context(progress))
        slices = contexts.enter_context(_indexed(prepared, progress, observer))
        tasks = [Task(shard, boxes=slices.get(shard.uri)) for shard in todo]
        try:
            stream = RayStream(job, prepared.model, workers)
            run_passes(stream, tasks, job.columns, Cluster(job.device, plan), progress, observer)
        except ClusterError:
            watch.wait_while_closed()
            raise


@contextmanager
def _indexed(prepared: Prepared, progress: Progress, observer: RunObserver) -> Iterator[dict[str, Slice]]:
    """Store the detector's boxes for the workers, as long as the context lasts; yield their place by shard URI."""
    detections, plan = prepared.detections, prepared.plan
    if detections is None:
        yield {}
        return
    output = plan.config.output
    url = store.join(layout.detections_folder(output), plan.run_id)
    # All shards of the inputs, because which image a name means must not depend on what this run selects.
    with indexed(detections, prepared.listed, plan.todo, output, url) as index:
        progress.record_index(index)
        _report_detections(index, plan.config, observer)
        yield index.slices


def _report_detections(index: Index, config: RunConfig, observer: RunObserver) -> None:
    """Report what the detector could not read, and names in its file that match no image.

    Raises:
        UsageError: there are such names, with `--detections-unmatched error`.
    """
    if unread := index.unread(str(config.detections)):
        observer.note(unread)
    unmatched = index.unmatched(str(config.detections))
    if unmatched and config.detections_unmatched == "error":
        raise UsageError(f"{unmatched}; correct the names, or run with --detections-unmatched warn")
    if unmatched:
        observer.note(unmatched)


def share_with_concurrent_runs(plan: RunPlan, observer: RunObserver) -> list[Shard]:
    """Return the shards to do, in reverse order if another run may do the same ones: the two meet in the middle.

    Args:
        plan: of this run, whose manifest has just been written.
        observer: receives a note about the other run.

    Raises:
        OutputConflict: the other run has another fingerprint.
    """
    mine, sharing = part_of(plan.config.part), False
    for other in heartbeat.others(plan.config.output, plan.run_id):
        run = f"run {other['run_id']}"
        if other["fingerprint"]["digest"] != plan.fingerprint.digest:
            raise OutputConflict(
                f"{plan.config.output}: {run} is writing there with another model or other options, or was killed "
                "within the last minutes; wait for it, or choose another OUTPUT"
            )
        theirs = part_of(other.get("config", {}).get("part"))
        if not sharing and (mine is None or theirs is None or mine.overlaps(theirs)):
            observer.note(
                f"{run} is at work on the same output, or was killed within the last minutes; sharing the work"
            )
            sharing = True
    return plan.todo[::-1] if sharing else plan.todo


class _Closing:
    """Write the closing manifest of a run and report it, once.

    Args:
        progress: of the run.
        on_end: called with the manifest and its URL.
    """

    def __init__(self, progress: Progress, on_end: OnEnd) -> None:
        self._progress = progress
        self._on_end = on_end
        self._lock = Lock()
        self._closed = False

    def __call__(self, status: Status, ended_by: str | None = None) -> Manifest:
        """Write the manifest and report it, unless that has been done; return it.

        Raises:
            StorageError, TransientError: the store refuses, or does not answer.
        """
        manifest = self._progress.manifest(status, ended_by)
        with self._lock:
            if not self._closed:
                url = manifest.write(self._progress.plan.config.output)
                self._closed = True
                self._on_end(manifest, url)
        return manifest
