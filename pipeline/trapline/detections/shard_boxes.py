"""The boxes that a detector found in the images of one shard, looked up by key while the shard is read."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from trapline.decoding.crops import Box, Cropping, Crops


@dataclass
class ShardBoxes:
    """What was detected in the images of one shard.

    Attributes:
        boxes: by normalized key, of the images that the detector saw; those to be classified, in the detector's order.
        cropping: how boxes become crops.
        all_matched: whether each of `boxes` must be an image of the shard.
        found: keys of `boxes` that the shard holds, as far as it has been read.
    """

    boxes: Mapping[str, tuple[Box, ...]]
    cropping: Cropping
    all_matched: bool = False
    found: set[str] = field(default_factory=set)

    def crops(self, key: str) -> Crops | None:
        """Return what to cut out of an image; None where it has no box."""
        name = normalize_path(key)
        if name not in self.boxes:
            name = self._composed.get(unicodedata.normalize("NFC", name), name)
        if name in self.boxes:
            self.found.add(name)
        boxes = self.boxes.get(name)
        return Crops(boxes, self.cropping) if boxes else None

    @cached_property
    def _composed(self) -> dict[str, str]:
        """Keys by their composed form, NFC: macOS decomposes names that others compose."""
        return {unicodedata.normalize("NFC", key): key for key in reversed([*self.boxes])}

    @property
    def unmatched(self) -> list[str]:
        """Keys that the detector saw and the shard, read to its end, does not hold."""
        return sorted(self.boxes.keys() - self.found)


def normalize_path(path: str) -> str:
    """Return a path without a leading `./` and with `/` for the backslashes of Windows."""
    path = path.encode(errors="backslashreplace").decode().replace("\\", "/")
    while path.startswith("./"):
        path = path[2:]
    return path
