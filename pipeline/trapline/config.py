"""One description of a run: frozen, validated, and the only place where options are declared."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Literal

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]
DecodeMode = Literal["exact", "close", "fast", "fastest"]
Stage = Literal["stage1", "stage2", "stage3", "stage4"]


class Options(BaseModel):
    """How to classify. The command line, a config file and the tests all build this."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        min_length=1,
        description="Checkpoint: a path, a URL, or a hub name such as birder-project/hiera_abswin_base_mim.",
    )
    architecture: str | None = Field(
        default=None, description="Name of the Hiera variant, where the checkpoint does not tell."
    )
    size: int | None = Field(
        default=None, ge=32, multiple_of=32, description="Side of the input in pixels; default: the checkpoint's."
    )
    top_k: int = Field(default=5, ge=1, le=100, description="How many species to list per image.")
    probabilities: Literal["full", "top-k"] = Field(
        default="full", description="Write the whole distribution over the classes, or only the top-k."
    )
    embedding: Literal["float32", "float16", "none"] = Field(default="float32", description="Type of the embedding.")
    features: tuple[Stage, ...] = Field(
        default=(), description="Detection feature maps to write, float16; stage4 at 384 pixels is 221 KB an image."
    )
    batch_size: int | None = Field(
        default=None, ge=1, le=4096, description="Images per inference batch; default: 64 on a GPU, 8 on a CPU."
    )
    device: Device = Field(default="auto", description="Where inference runs; auto: GPUs where the cluster has any.")
    precision: Precision = Field(default="auto", description="auto: fp32 on CPUs, bf16 on GPUs; bf16 rounds to 8 bits.")
    decode: DecodeMode = Field(
        default="exact",
        description="exact: the pixels of birder's transform; else JPEGs shrunk by their decoder: close differs by 0.4 "
        "of 255 on average at 1.3 times the speed, fast by 0.6 at 1.5, fastest by 1.3 at 1.7.",
    )
    detections: str | None = Field(
        default=None,
        min_length=1,
        description="What a detector found: MegaDetector's batch output, or Parquet; its boxes are classified.",
    )
    detection_threshold: float = Field(default=0.2, ge=0, le=1, description="Least confidence of a box.")
    detection_categories: tuple[str, ...] = Field(
        default=("animal",), min_length=1, description="Which boxes to classify, by name or number."
    )
    crop_padding: float = Field(
        default=0.1, ge=0, le=10, description="Added on each side of a box, as a fraction of its longer side."
    )
    crop_square: Annotated[bool, Parameter(negative="--no-crop-square")] = Field(
        default=True, description="Grow crops to squares, as far as the picture allows."
    )
    without_boxes: Literal["whole", "skip"] = Field(
        default="whole", description="Classify an image without a box whole, or not at all."
    )
    decode_workers: int | None = Field(
        default=None, ge=1, description="Decode tasks at the same time; default: what the cluster's cores allow."
    )
    predict_workers: int | None = Field(
        default=None, ge=1, description="Inference actors; default: what the cluster's GPUs or cores allow."
    )
    gpus_per_actor: float = Field(default=1.0, gt=0, le=1, description="Share of a GPU that one actor takes.")
    limit: int | None = Field(default=None, ge=1, description="Classify at most this many shards in this run.")
    since: str | None = Field(
        default=None,
        description="Only shards that came or changed since: a date, an ISO time, or how long ago, such as 36h or 7d.",
    )
    where: tuple[str, ...] = Field(
        default=(), description="Only shards in folders name=value, such as site=12; of one name, any of the values."
    )
    stop_at: str | None = Field(
        default=None,
        description="Begin no shard after this time, such as 06:00, and finish what is begun; newest shards first.",
    )
    notify: str | None = Field(
        default=None, min_length=1, description="Shell command to run at the end, with the manifest on its input."
    )
    log: Literal["text", "json"] = Field(
        default="text", description="json: an object a line, with the run's id, for a log collector."
    )
    keep_runs: int = Field(default=400, ge=1, description="Of how many runs the manifests are kept.")
    replace: bool = Field(
        default=False, description="Overwrite results that were written with another model or other options."
    )
    dry_run: bool = Field(default=False, description="Say what would be done, and do nothing.")
    max_failed_fraction: float = Field(
        default=1.0, ge=0, le=1, description="Stop once more than this fraction of the images has failed."
    )

    @field_validator("detection_categories")
    @classmethod
    def _once_each(cls, categories: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(categories)))

    @field_validator("features")
    @classmethod
    def _in_order(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        return tuple(sorted(set(stages)))

    @field_validator("since", "stop_at")
    @classmethod
    def _is_a_moment(cls, text: str | None, info: ValidationInfo) -> str | None:
        read: Callable[[str, datetime], datetime] = parse_since if info.field_name == "since" else parse_deadline
        try:
            if text is not None:
                read(text, datetime.now(UTC))
        except ValueError as error:
            raise PydanticCustomError("moment", "{why}", {"why": str(error)}) from error
        return text

    @field_validator("where")
    @classmethod
    def _are_parts(cls, parts: tuple[str, ...]) -> tuple[str, ...]:
        for part in parts:
            name, equals, value = part.partition("=")
            if not (name and equals and value):
                raise PydanticCustomError("part", "must be name=value, such as site=12")
        return parts


class RunConfig(Options):
    """A whole run: from where, to where, and how."""

    inputs: tuple[str, ...] = Field(
        min_length=1, description="Archives, folders, patterns, or @FILE with one of these a line; any fsspec URL."
    )
    output: str = Field(min_length=1, description="Folder that mirrors the input, one Parquet file per shard.")


def parse_since(text: str, now: datetime) -> datetime:
    """Parse the value of --since: a date, a date and time (ISO 8601), or how long ago (`90m`, `36h`, `7d`, `2w`).

    Without an offset, by the clock of this machine.

    Raises:
        ValueError: it is none of these.
    """
    ago = re.fullmatch(r"(\d+)([mhdw])", text)
    try:
        if ago:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise ValueError("neither a date such as 2026-11-01 nor a duration such as 36h or 7d") from None


def parse_deadline(text: str, now: datetime) -> datetime:
    """Parse the value of --stop-at: a time of day, of which the next is meant, or a date and time (ISO 8601).

    Without an offset, by the clock of this machine. A date and time may lie in the past.

    Raises:
        ValueError: it is neither.
    """
    try:
        clock = re.fullmatch(r"(\d{1,2}):(\d\d)", text)
        if not clock:
            return datetime.fromisoformat(text).astimezone()
        at = time(int(clock[1]), int(clock[2]))
    except (ValueError, OverflowError):
        raise ValueError("neither a time such as 06:00 nor 2026-11-01T06:00; in YAML, put it in quotes") from None
    today = now.astimezone().date()
    # By the calendar and not by 24 hours: one night of the year has 23, another one 25.
    days = (datetime.combine(today + timedelta(days=days), at).astimezone() for days in (0, 1))
    return next(moment for moment in days if moment > now)
