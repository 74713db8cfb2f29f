"""Everything that can change a row, in one readable record and one digest.

Two files with the same fingerprint were computed in the same way and may stand in one table; a file with another
fingerprint than the current run's is not done.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from trapline.config import RunConfig
from trapline.decoding.decode import PREPROCESSING
from trapline.model.checkpoint import Model

# Raise it when the meaning of a column changes.
SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Fingerprint:
    """What a row depends on besides its image, as JSON values by name."""

    facts: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical: sorted keys, no spaces."""
        return json.dumps(self.facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Fingerprint":
        """The inverse of `to_json`."""
        return cls(json.loads(text))

    def differences(self, other: "Fingerprint") -> list[str]:
        """What differs, as `name: mine -> theirs`; long values are cut."""
        names = sorted(set(self.facts) | set(other.facts))
        return [
            f"{name}: {_short(self.facts.get(name))} -> {_short(other.facts.get(name))}"
            for name in names
            if self.facts.get(name) != other.facts.get(name)
        ]


def fingerprint(config: RunConfig, model: Model, precision: str, detections_sha256: str | None = None) -> Fingerprint:
    """The fingerprint of a run.

    Args:
        config: the options, of which those that reach the rows count.
        model: the loaded checkpoint.
        precision: what inference really runs in, never `auto`.
        detections_sha256: of the content of the detector's output, in hex; None without one.
    """
    facts = {
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
    if detections_sha256:
        facts |= {
            "detections_sha256": detections_sha256,
            "detection_threshold": config.detection_threshold,
            "detection_categories": config.detection_categories,
            "crop_padding": config.crop_padding,
            "crop_square": config.crop_square,
            "without_boxes": config.without_boxes,
        }
    # Through JSON, so that what is read back from a footer compares equal.
    return Fingerprint.from_json(json.dumps(facts))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."
