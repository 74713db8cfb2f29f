"""Plan a run: load the model, list the input, and compare it with what OUTPUT holds."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from trapline.config import RunConfig, parse_deadline, parse_part, parse_since
from trapline.decoding.sampling import Sampling
from trapline.detections.megadetector import Detections
from trapline.errors import UsageError
from trapline.model import checkpoint
from trapline.model.checkpoint import Model
from trapline.model.predict import DEFAULT_BATCH
from trapline.results import ledger
from trapline.results.ledger import Result
from trapline.run import capacity
from trapline.run.job import Job, columns_of, cropping, fingerprint
from trapline.run.plan import RunPlan
from trapline.run.precision import choose_precision
from trapline.sources.selection import Part, newest_first, select
from trapline.sources.shards import Shard, discover
from trapline.storage import store
from trapline.storage.store import Entry

# `ray job submit --working-dir` unpacks the folder there, starts the job in it, and deletes it some time after the job.
_JOB_FOLDER = "/runtime_resources/working_dir_files/"


@dataclass(frozen=True)
class Prepared:
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


def prepare(config: RunConfig) -> Prepared:
    """Load the model, list the input, and compare it with what OUTPUT holds; write nothing.

    Raises:
        FatalError: the run cannot be planned; the message says what to do.
        TransientError: a store does not answer.
    """
    now = datetime.now(UTC)
    stop_at = parse_deadline(config.stop_at, now) if config.stop_at else None
    if stop_at and stop_at <= now:
        raise UsageError(f"--stop-at {config.stop_at}: is over; give a time of day, or a time to come")
    _refuse_job_folder([config.output, *config.inputs])
    size = (config.size, config.size) if config.size else None
    model = checkpoint.load(config.model, size=size, architecture=config.architecture)
    device = capacity.device(config)
    results, unfinished = ledger.survey_all(config.output)
    precision, bound = choose_precision(config.precision, model, device, results)
    columns = columns_of(config, model)
    detections = _detections(config)
    current = fingerprint(config, model, precision, detections.digest if detections else None, bound, device=device)

    since = parse_since(config.since, now) if config.since else None
    listed = discover(config.inputs, config.output, config.image_column, config.video)
    found = select(listed, since, config.where, part_of(config.part), config.output)
    _refuse_job_folder([shard.uri for shard in found.shards])  # of an @FILE
    compared = ledger.plan(found.shards, config.output, current, config.replace, results)
    # Last, because a file may stay unavailable: with `--limit`, other shards would never be read.
    todo = [*_ordered(compared.todo, stop_at), *_ordered(compared.unavailable, stop_at)]
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
    return Prepared(plan, listed.shards, job, model, detections, results, unfinished)


def _ordered(shards: list[Shard], stop_at: datetime | None) -> list[Shard]:
    return newest_first(shards) if stop_at else shards


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


def part_of(option: str | None) -> Part | None:
    """Return the part that a value of `--part` names; None without one."""
    return Part(*parse_part(option)) if option else None
