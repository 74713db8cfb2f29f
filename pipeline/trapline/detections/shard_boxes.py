"""The boxes that a detector found in the images and clips of one shard, looked up by key while the shard is read."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from trapline.decoding.crops import Box, Cropping, Crops
from trapline.sources.file_types import is_clip

# A frame of a clip, as MegaDetector names it if clips were split into pictures first.
_FRAME = re.compile(r"(.+)/frame(\d{1,9})\.jpg", re.DOTALL)


@dataclass(frozen=True)
class Seen:
    """What a detector found in one image or clip.

    Attributes:
        boxes: the boxes that count, in the detector's order.
        processed: numbers of the frames of a clip that the detector looked at, if it says so.
        failed: whether the detector could not read the file.
    """

    boxes: tuple[Box, ...] = ()
    processed: tuple[int, ...] = ()
    failed: bool = False


@dataclass
class ShardBoxes:
    """What was detected in the images and clips of one shard.

    Attributes:
        seen: by normalized key, or `clip.mp4/frame000012.jpg` for a frame of a clip.
        cropping: how boxes become crops.
        all_matched: whether each of `seen` must be an image or a clip of the shard.
        found: keys of `seen` that the shard holds, as far as it has been read.
    """

    seen: Mapping[str, Seen]
    cropping: Cropping
    all_matched: bool = False
    found: set[str] = field(default_factory=set)

    def crops(self, key: str) -> Crops | None:
        """Return what to cut out of an image or a clip; None if it has no box."""
        name = normalize_path(key)
        nfc = composed(name)
        if name not in self.seen:
            name = self._composed.get(nfc, name)
        if name in self.seen:
            self.found.add(name)
        seen = self.seen.get(name) or self._frames_of(nfc)
        return Crops(seen.boxes, self.cropping, seen.processed) if seen and seen.boxes else None

    @cached_property
    def _composed(self) -> dict[str, str]:
        """Keys of `seen` by their composed form."""
        return {composed(key): key for key in reversed([*self.seen])}

    def _frames_of(self, clip: str) -> Seen | None:
        """Return what was found in the frames of a clip, given its composed name, if they are named one by one."""
        frames = self._frames.get(clip)
        if not frames:
            return None
        self.found.update(frames.values())
        boxes = [replace(box, frame=number) for number, name in frames.items() for box in self.seen[name].boxes]
        return Seen(tuple(boxes), tuple(number for number, name in frames.items() if not self.seen[name].failed))

    @cached_property
    def _frames(self) -> dict[str, dict[int, str]]:
        """Composed name of a clip -> number of a frame -> its key in `seen`."""
        clips: dict[str, dict[int, str]] = {}
        for name in sorted(self.seen):
            if frame := frame_of(name):
                clips.setdefault(composed(frame[0]), {})[frame[1]] = name
        return clips

    @property
    def unmatched(self) -> list[str]:
        """Keys that the detector saw, but the shard, once read to its end, does not hold."""
        return sorted(self.seen.keys() - self.found)


def normalize_path(path: str) -> str:
    """Return a path without a leading `./` and with `/` for the backslashes of Windows."""
    path = path.encode(errors="backslashreplace").decode().replace("\\", "/")
    while path.startswith("./"):
        path = path[2:]
    return path


def composed(name: str) -> str:
    """Return a name in Unicode's composed form, NFC: macOS decomposes names that other systems compose."""
    return unicodedata.normalize("NFC", name)


def frame_of(name: str) -> tuple[str, int] | None:
    """Return the clip and the number of a frame such as `clip.mp4/frame000012.jpg`; None if it is no frame's name."""
    match = _FRAME.fullmatch(name)
    return (match[1], int(match[2])) if match and is_clip(match[1]) else None
