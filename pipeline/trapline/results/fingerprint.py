"""Everything that can change a row, in one readable record and one digest.

Two files with the same fingerprint were computed in the same way and may be read as one table; a file with another
fingerprint than the current run's is not done. Options for clips count only for files of shards that hold clips.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

CLIP_FACTS: Final = frozenset({"video", "video_fps", "video_frames", "clip_boxes"})
"""Facts on which only the rows of clips and their frames depend."""


@dataclass(frozen=True)
class Fingerprint:
    """What a row depends on besides its image, as JSON values by name."""

    facts: Mapping[str, Any]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Fingerprint":
        """Make a fingerprint of JSON values; it is equal to the one that is read back from a footer."""
        return cls.from_json(json.dumps(facts))

    @classmethod
    def from_json(cls, text: str) -> "Fingerprint":
        """Read what `to_json` wrote."""
        return cls(json.loads(text))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def without_clips(self) -> "Fingerprint":
        """Return what the rows of images depend on: all facts except the options for clips."""
        facts = {name: value for name, value in self.facts.items() if name not in CLIP_FACTS}
        if "rescored" in facts:
            facts["rescored"] = dict(Fingerprint(facts["rescored"]).without_clips().facts)
        return Fingerprint(facts)

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, no spaces."""
        return json.dumps(self.facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def differences(self, other: "Fingerprint") -> list[str]:
        """List what differs, as `name: mine -> theirs`; long values are cut."""
        names = sorted(set(self.facts) | set(other.facts))
        return [
            f"{name}: {_short(self.facts.get(name))} -> {_short(other.facts.get(name))}"
            for name in names
            if self.facts.get(name) != other.facts.get(name)
        ]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."
