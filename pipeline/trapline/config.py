"""The configuration of a run: frozen, validated, and the only place where the options of `classify` are declared."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Literal

from cyclopts import Group, Parameter
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from trapline.choices import DecodeMode, Device, Precision, Stage

# Headings of `trapline classify --help`, in their order there.
INPUT, MODEL, OUTPUT, NIGHTLY, CLUSTER, DETECTIONS, VIDEO = (
    Parameter(group=Group(name, sort_key=order))
    for order, name in enumerate(
        ("Input", "Model", "Output", "Nightly runs", "Cluster", "Detections", "Video"), start=1
    )
)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Options(BaseModel):
    """How to classify. The command line, a config file and the Python API all build this."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[str, MODEL] = Field(
        min_length=1,
        description="Checkpoint: a path, a URL, or a hub name such as birder-project/hiera_abswin_base_mim.",
    )
    architecture: Annotated[str | None, MODEL] = Field(
        default=None, description="Name of the Hiera variant, for a checkpoint that does not contain it."
    )
    size: Annotated[int | None, MODEL] = Field(
        default=None, ge=32, multiple_of=32, description="Side of the input in pixels; default: the checkpoint's."
    )
    precision: Annotated[Precision, MODEL] = Field(
        default="auto",
        description="bf16 keeps 8 significant bits. checked: bf16, and again in fp32 where bf16 leaves the species in "
        "doubt. auto: as OUTPUT has it; else bf16 on GPUs, checked on CPUs that multiply in bf16, fp32 on others.",
    )
    decode: Annotated[DecodeMode, MODEL] = Field(
        default="exact",
        description="exact: the same pixels as birder's transform. Else the JPEG decoder shrinks large images. "
        "close: 1.2 times as fast, pixels differ by 0.4 of 255 on average. fast: 1.3 times, 0.6. "
        "fastest: 1.6 times, 1.2.",
    )
    limit: Annotated[int | None, INPUT] = Field(
        default=None, ge=1, description="Classify at most this many shards in this run."
    )
    since: Annotated[str | None, INPUT] = Field(
        default=None,
        description="Only shards added or changed since: a date, an ISO 8601 time, or an age such as 36h or 7d.",
    )
    where: Annotated[tuple[str, ...], INPUT] = Field(
        default=(),
        description="Only shards in a folder name=value, such as site=12. Repeat it for several values or names.",
    )
    part: Annotated[str | None, INPUT] = Field(
        default=None,
        description="Only the shards of one part, such as 3/8: the third of eight runs that share an archive.",
    )
    image_column: Annotated[str | None, INPUT] = Field(
        default=None,
        min_length=1,
        description="Column of Parquet inputs that holds the images; default: found by name, type and first rows.",
    )
    top_k: Annotated[int, OUTPUT] = Field(default=5, ge=1, le=100, description="Number of species to list per image.")
    probabilities: Annotated[Literal["full", "top-k"], OUTPUT] = Field(
        default="full", description="Write the probabilities of all classes, or only the top k."
    )
    embedding: Annotated[Literal["float32", "float16", "none"], OUTPUT] = Field(
        default="float32",
        description="Data type of the embedding column; none leaves it out. Spark cannot open files with float16.",
    )
    features: Annotated[tuple[Stage, ...], OUTPUT] = Field(
        default=(),
        description="Also write the feature maps of these stages, as float16; stage4 at 384 pixels is 221 KB an image.",
    )
    replace: Annotated[bool, OUTPUT] = Field(
        default=False, description="Overwrite results that were written with another model or other options."
    )
    detections: Annotated[str | None, DETECTIONS] = Field(
        default=None,
        min_length=1,
        description="Boxes to classify: the batch output of MegaDetector, or a Parquet file; a path or URL.",
    )
    detection_threshold: Annotated[float, DETECTIONS] = Field(
        default=0.2, ge=0, le=1, description="Minimum confidence of a box."
    )
    detection_categories: Annotated[tuple[str, ...], DETECTIONS] = Field(
        default=("animal",), min_length=1, description="Categories of boxes to classify, by name or number."
    )
    crop_padding: Annotated[float, DETECTIONS] = Field(
        default=0.1, ge=0, le=10, description="Margin on each side of a box, as a fraction of its longer side."
    )
    crop_square: Annotated[bool, DETECTIONS, Parameter(negative="--no-crop-square")] = Field(
        default=True, description="Extend crops to squares where the image has room."
    )
    without_boxes: Annotated[Literal["whole", "skip"], DETECTIONS] = Field(
        default="whole", description="Classify an image without boxes as a whole, or skip it."
    )
    detections_unmatched: Annotated[Literal["warn", "error"], DETECTIONS] = Field(
        default="warn",
        description="What to do if names in the detector's file match no image of the input. With error, a run does "
        "not begin where a name is of no shard, and a shard fails that does not hold an image of a name.",
    )
    video: Annotated[bool, VIDEO, Parameter(negative="--no-video")] = Field(
        default=True, description="Classify clips by sampled frames, or leave them out, counted."
    )
    video_fps: Annotated[float, VIDEO] = Field(
        default=1.0, gt=0, le=1000, allow_inf_nan=False, description="Frames to sample per second of a clip."
    )
    video_frames: Annotated[int, VIDEO] = Field(
        default=60,
        ge=1,
        le=1000,
        description="Maximum number of frames per clip; a longer clip is sampled less often, over its whole length.",
    )
    stop_at: Annotated[str | None, NIGHTLY] = Field(
        default=None,
        description="Start no shard after this time, such as 06:00; finish those under way. Newest shards come first.",
    )
    notify: Annotated[str | None, NIGHTLY] = Field(
        default=None,
        min_length=1,
        description="Shell command to run at the end of the run, with the run's manifest on standard input.",
    )
    log: Annotated[Literal["text", "json"], NIGHTLY] = Field(
        default="text", description="json: one JSON object per line with the run's id, for log collectors."
    )
    keep_runs: Annotated[int, NIGHTLY] = Field(
        default=400, ge=1, description="Number of run manifests to keep in OUTPUT."
    )
    max_failed_fraction: Annotated[float, NIGHTLY] = Field(
        default=1.0, ge=0, le=1, description="Stop when more than this fraction of the images has failed."
    )
    dry_run: Annotated[bool, NIGHTLY] = Field(
        default=False, description="Print what the run would do, and write nothing."
    )
    device: Annotated[Device, CLUSTER] = Field(
        default="auto", description="Where inference runs. auto: on GPUs if the cluster has any, else on CPUs."
    )
    batch_size: Annotated[int | None, CLUSTER] = Field(
        default=None, ge=1, le=4096, description="Images per inference batch; default: 256 on a GPU, 8 on a CPU."
    )
    decode_workers: Annotated[int | None, CLUSTER] = Field(
        default=None, ge=1, description="Number of parallel decode tasks; default: chosen from the cluster's cores."
    )
    predict_workers: Annotated[int | None, CLUSTER] = Field(
        default=None, ge=1, description="Number of inference actors; default: chosen from the cluster's GPUs or cores."
    )
    gpus_per_actor: Annotated[float, CLUSTER] = Field(
        default=1.0, gt=0, le=1, description="Fraction of a GPU that one inference actor takes."
    )

    @field_validator("detection_categories")
    @classmethod
    def _sorted_categories(cls, categories: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(categories)))

    @field_validator("features")
    @classmethod
    def _sorted_stages(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        return tuple(sorted(set(stages)))

    @field_validator("since", "stop_at")
    @classmethod
    def _is_a_time(cls, text: str | None, info: ValidationInfo) -> str | None:
        parse: Callable[[str, datetime], datetime] = parse_since if info.field_name == "since" else parse_deadline
        try:
            if text is not None:
                parse(text, datetime.now(UTC))
        except ValueError as error:
            raise PydanticCustomError("time", "{why}", {"why": str(error)}) from error
        return text

    @field_validator("part")
    @classmethod
    def _is_a_part(cls, text: str | None) -> str | None:
        try:
            if text is not None:
                parse_part(text)
        except ValueError as error:
            raise PydanticCustomError("part", "{why}", {"why": str(error)}) from error
        return text

    @field_validator("where")
    @classmethod
    def _are_partitions(cls, partitions: tuple[str, ...]) -> tuple[str, ...]:
        for partition in partitions:
            name, equals, value = partition.partition("=")
            if not (name and equals and value):
                raise PydanticCustomError("partition", "must be name=value, such as site=12")
        return partitions


class RunConfig(Options):
    """A whole run: what to read, where to write, and how to classify."""

    inputs: tuple[str, ...] = Field(
        min_length=1, description="Archives, folders, patterns, or @FILE with one of these a line; any fsspec URL."
    )
    output: str = Field(min_length=1, description="Folder that mirrors the input, one Parquet file per shard.")


def parse_since(text: str, now: datetime) -> datetime:
    """Return the start of a period that ends now; without an offset, a time is by this machine's clock.

    Args:
        text: a date, a date and time (ISO 8601), or an age: `90m`, `36h`, `7d`, `2w`.
        now: the end of the period, with a time zone.

    Raises:
        ValueError: the text is none of these.
    """
    age = re.fullmatch(r"(\d+)([mhdw])", text)
    try:
        if age:
            return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise ValueError("neither a date such as 2026-11-01 nor a duration such as 36h or 7d") from None


def parse_part(text: str) -> tuple[int, int]:
    """Return the number of a part, from 1, and how many parts there are; raises ValueError if the text is no part."""
    numbers = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if not numbers or not 1 <= int(numbers[1]) <= int(numbers[2]):
        raise ValueError("must be NUMBER/PARTS, from 1/PARTS to PARTS/PARTS, such as 3/8")
    return int(numbers[1]), int(numbers[2])


def parse_deadline(text: str, now: datetime) -> datetime:
    """Return the deadline; without an offset, a time is by this machine's clock.

    Args:
        text: a time of day, whose next occurrence is meant, or a date and time (ISO 8601), which may have passed.
        now: the current time, with a time zone.

    Raises:
        ValueError: the text is neither.
    """
    try:
        clock = re.fullmatch(r"(\d{1,2}):(\d\d)", text)
        if not clock:
            return datetime.fromisoformat(text).astimezone()
        at = time(int(clock[1]), int(clock[2]))
    except (ValueError, OverflowError):
        raise ValueError("neither a time such as 06:00 nor 2026-11-01T06:00; in YAML, put it in quotes") from None
    today = now.astimezone().date()
    # By the calendar and not by 24 hours: one night of the year has 23 hours, another has 25.
    days = (datetime.combine(today + timedelta(days=days), at).astimezone() for days in (0, 1))
    return next(moment for moment in days if moment > now)
