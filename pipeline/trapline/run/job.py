"""What a run computes: the job that every worker gets, and the fingerprint that every result file carries."""

import hashlib
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from trapline.choices import DecodeMode
from trapline.decoding.crops import FARTHEST_FRAME, Cropping
from trapline.decoding.decode import PREPROCESSING
from trapline.decoding.sampling import Sampling
from trapline.model.checkpoint import Model
from trapline.model.precision import Computed
from trapline.results.fingerprint import Fingerprint
from trapline.results.schema import SCHEMA_VERSION, Columns

if TYPE_CHECKING:
    from trapline.config import RunConfig


@dataclass(frozen=True)
class Job:
    """All that the workers need to know, apart from the weights.

    Attributes:
        size: height and width in pixels.
        batch_size: images per chunk and per inference batch.
        device: where inference runs.
        precision: the type that inference computes in.
        columns: of the result.
        fingerprint: digest of this run's fingerprint.
        decode: how exactly JPEGs that are classified whole are decoded.
        cropping: how a detector's boxes are cut out; None if images are classified whole.
        sampling: which frames of clips are classified; None for the default.
        all_matched: whether a shard fails if it lacks images that the detector saw.
        stop_at: time after which no shard is begun; None for never.
        bound: of the precision `checked` (see `model.checked`); None in other precisions.
    """

    size: tuple[int, int]
    batch_size: int
    device: Literal["cpu", "cuda"]
    precision: Computed
    columns: Columns
    fingerprint: str
    decode: DecodeMode = "exact"
    cropping: Cropping | None = None
    sampling: Sampling | None = None
    all_matched: bool = False
    stop_at: datetime | None = None
    bound: float | None = None


def cropping(config: "RunConfig") -> Cropping | None:
    """Return how boxes are cut out of images; None in a run without detections."""
    if config.detections is None:
        return None
    return Cropping(config.crop_padding, config.crop_square, whole=config.without_boxes == "whole")


def columns_of(config: "RunConfig", model: Model) -> Columns:
    """Return the columns that a run writes."""
    shapes = model.architecture.feature_shapes(model.size)
    return Columns(
        classes=model.classes,
        embedding_size=model.architecture.embedding_size,
        feature_shapes={stage: shapes[stage] for stage in config.features},
        top_k=min(config.top_k, len(model.classes)),
        probabilities=config.probabilities == "full",
        embedding=config.embedding,
        crops=config.detections is not None,
    )


def fingerprint(
    config: "RunConfig",
    model: Model,
    precision: Computed,
    detections_sha256: str | None = None,
    bound: float | None = None,
    *,
    device: Literal["cpu", "cuda"] = "cpu",
) -> Fingerprint:
    """Return the fingerprint of a run.

    Args:
        config: the options; those that can change a row are part of the fingerprint.
        model: the loaded checkpoint.
        precision: the type that inference really computes in, never `auto`.
        detections_sha256: of the content of the detector's output, in hex; None without detections.
        bound: of the precision `checked`.
        device: where inference really runs; a GPU computes bf16 in two programs, which round differently.
    """
    facts: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "weights_sha256": model.weights_sha256,
        "architecture": {"variant": model.variant, **asdict(model.architecture)},
        "classes_sha256": hashlib.sha256("\n".join(model.classes).encode()).hexdigest(),
        "size": model.size,
        "rgb_mean": model.rgb_mean,
        "rgb_std": model.rgb_std,
        "preprocessing": PREPROCESSING,
        "decode": config.decode,
        "precision": precision,
        "top_k": min(config.top_k, len(model.classes)),
        "probabilities": config.probabilities,
        "embedding": config.embedding,
        "features": config.features,
    }
    if bound is not None:
        facts["checked_bound"] = bound
    if device == "cuda" and precision != "fp32":
        facts["network"] = "as it is, and compiled once that is worthwhile"
    facts |= {"video_fps": config.video_fps, "video_frames": config.video_frames} if config.video else {"video": False}
    if config.video and detections_sha256:
        nearest = f"of the nearest frame that was processed, within {FARTHEST_FRAME} s"
        facts["clip_boxes"] = f"{nearest}; persons and vehicles do not count for the clip"
    if config.image_column is not None:
        facts["image_column"] = config.image_column
    if detections_sha256:
        facts |= {
            "detections_sha256": detections_sha256,
            "detection_threshold": config.detection_threshold,
            "detection_categories": config.detection_categories,
            "crop_padding": config.crop_padding,
            "crop_square": config.crop_square,
            "without_boxes": config.without_boxes,
        }
    return Fingerprint.of(facts)
