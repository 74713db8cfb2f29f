"""The whole run in one place: plan, execute, close. Shards → chunks → predictions → Parquet."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock

from trapline.config import RunConfig, parse_deadline, parse_part, parse_since
from trapline.decoding.sampling import Sampling
from trapline.detections.index import Index, Slice, counted, indexed
from trapline.detections.megadetector import Detections
from trapline.errors import ClusterError, OutputConflict, TraplineError, UsageError, in_one_line
from trapline.model import checkpoint
from trapline.model.checkpoint import Model
from trapline.model.predict import DEFAULT_BATCH
from trapline.ray_session import connect, on_shared_cluster
from trapline.results import layout, ledger
from trapline.results.ledger import Result
from trapline.results.rows import classes_csv
from trapline.run import capacity, heartbeat, retention
from trapline.run.capacity import Cluster
from trapline.run.heartbeat import Heartbeat
from trapline.run.job import Job, columns_of, cropping, fingerprint
from trapline.run.manifest import Manifest, Status
from trapline.run.messages import Task
from trapline.run.observer import During, OnEnd, RunObserver, ignore_end
from trapline.run.passes import run_passes
from trapline.run.plan import RunPlan
from trapline.run.precision import settle
from trapline.run.progress import Progress
from trapline.run.ray_stream import RayStream, WorkerClasses
from trapline.run.ray_watch import RayWatch, exit_now, patience
from trapline.sources.selection import Part, newest_first, select
from trapline.sources.shards import Shard, discover
from trapline.storage import store
from trapline.storage.store import Entry

# `ray job submit --working-dir` unpacks the folder there, starts the job in it, and deletes it some time after the job.
_JOB_FOLDER = "/runtime_resources/working_dir_files/"


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
    prepared = _prepare(config)
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


@dataclass(frozen=True)
class _Prepared:
    """A run that is planned.

    Attributes:
        plan: what to do.
        listed: all shards of the inputs, also those that are not selected.
        job: what the workers compute.
        model: what they compute it with.
        detections: the detector's output; None if there is none.
        results: all results in OUTPUT.
        unfinished: files in OUTPUT that were never finished, or are being written.
    """

    plan: RunPlan
    listed: list[Shard]
    job: Job
    model: Model
    detections: Detections | None
    results: list[Result]
    unfinished: list[Entry]


def _prepare(config: RunConfig) -> _Prepared:
    """Load the model, list the input, and compare it with what OUTPUT holds; write nothing."""
    now = datetime.now(UTC)
    stop_at = parse_deadline(config.stop_at, now) if config.stop_at else None
    if stop_at and stop_at <= now:
        raise UsageError(f"--stop-at {config.stop_at}: is over; give a time of day, or a time to come")
    _refuse_job_folder([config.output, *config.inputs])
    size = (config.size, config.size) if config.size else None
    model = checkpoint.load(config.model, size=size, architecture=config.architecture)
    device = capacity.device(config)
    results, unfinished = ledger.survey_all(config.output)
    precision, bound = settle(config.precision, model, device, results)
    columns = columns_of(config, model)
    detections = _detections(config)
    current = fingerprint(config, model, precision, detections.digest if detections else None, bound, device=device)

    since = parse_since(config.since, now) if config.since else None
    listed = discover(config.inputs, config.output, config.image_column, config.video)
    found = select(listed, since, config.where, part_of(config.part), config.output)
    _refuse_job_folder([shard.uri for shard in found.shards])  # of an @FILE
    compared = ledger.plan(found.shards, config.output, current, config.replace, results)
    todo = newest_first(compared.todo) if stop_at else compared.todo
    plan = RunPlan(
        config=config,
        fingerprint=current,
        found=found,
        already_done=compared.done,
        todo=todo[: config.limit],
        results_with_other_fingerprint=compared.results_with_other_fingerprint,
        stop_at=stop_at,
    )
    job = Job(
        size=model.size,
        batch_size=config.batch_size or DEFAULT_BATCH[device],
        device=device,
        precision=precision,
        columns=columns,
        fingerprint=current.digest,
        decode=config.decode,
        cropping=cropping(config),
        sampling=Sampling(config.video_fps, config.video_frames),
        all_matched=config.detections_unmatched == "error",
        stop_at=stop_at,
        bound=bound,
    )
    return _Prepared(plan, listed.shards, job, model, detections, results, unfinished)


def _refuse_job_folder(urls: Iterable[str]) -> None:
    """Raise UsageError for a path in the folder of a submitted job, where relative paths lead."""
    for url in urls:
        place = store.absolute(url)
        if not url.startswith("@") and _JOB_FOLDER in place:
            raise UsageError(
                f"{url}: is in the folder that Ray has unpacked for this job ({place}), and deletes with it; give an "
                "absolute path or a URL"
            )


def _detections(config: RunConfig) -> Detections | None:
    if config.detections is None:
        return None
    return Detections.at(config.detections, config.detection_threshold, config.detection_categories)


def _execute(
    prepared: _Prepared,
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
def _indexed(prepared: _Prepared, progress: Progress, observer: RunObserver) -> Iterator[dict[str, Slice]]:
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


def part_of(option: str | None) -> Part | None:
    """Return the part that a value of `--part` names; None without one."""
    return Part(*parse_part(option)) if option else None


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
