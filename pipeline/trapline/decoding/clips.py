"""A clip becomes sampled frames at the model's size, and facts.

Kinds of error, besides those of `decode`:

    no_video       there is sound, or nothing, and no picture
    no_frames      a video without a single frame
    encrypted      the content asks for a key
    not_a_video    named like a clip, and in no container that is read
    unsupported    in a codec that this FFmpeg does not decode
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from trapline.decoding import containers, image_ops
from trapline.decoding.clip_reading import NO_PART, ClipReading
from trapline.decoding.containers import Container
from trapline.decoding.crops import Box, Crops
from trapline.decoding.decode import Facts
from trapline.decoding.sampling import Sampling
from trapline.errors import ImageError, in_one_line, is_out_of_memory


@dataclass(frozen=True)
class ClipFile:
    """A clip on this machine.

    Attributes:
        path: of the file.
        content_sha256: of its bytes.
        holder: what keeps the file, as long as it is there.
    """

    path: str
    content_sha256: bytes
    holder: object = field(default=None, compare=False, repr=False)

    def __reduce__(self) -> tuple[type["ClipFile"], tuple[str, bytes]]:
        """Pickle without the holder, which stays in its process."""
        return ClipFile, (self.path, self.content_sha256)


@dataclass(frozen=True)
class ClipFacts(Facts):
    """What is known of a clip.

    Attributes:
        frames: when each decoded frame is shown, in seconds from the start of the clip.
        boxes: of each of them, what was cut out of it; nothing of one that is whole.
    """

    frames: tuple[float, ...] = ()
    boxes: tuple[tuple[Box, ...], ...] = ()


def decode(
    clip: ClipFile, container: Container, size: tuple[int, int], sampling: Sampling, crops: Crops | None = None
) -> tuple[torch.Tensor | None, ClipFacts]:
    """Decode the sampled frames of a clip and resize them as images are; the display matrix is applied.

    The frame of a moment is the first that is shown then or later. Colours are converted by the matrix and the range
    that the clip names, by BT.601 and the limited range where it names none, as FFmpeg does.

    Args:
        clip: the file.
        container: what it is.
        size: height and width of the result.
        sampling: which frames.
        crops: what to resize in place of whole frames, where it has boxes of them; see `Crops.of_frame`.

    Returns:
        `uint8 [n, 3, *size]`, RGB, for each frame the frame or its crops, or None when nothing could be decoded; and
        the facts, in each case.

    Raises:
        MemoryError: there is not enough.
        OSError: the file cannot be read, which says nothing of the clip.
    """
    import av

    facts = ClipFacts("failed", None, clip.content_sha256, format=container.name, media_type="video")
    pictures: list[torch.Tensor] = []
    error: str | None = None
    reading = ClipReading(clip.path, container)
    truncated = containers.breaks_off(clip.path, container)
    try:
        reading.scan()
        for seconds, picture in reading.frames(sampling):
            cut = crops.of_frame(seconds, reading.times.seconds) if crops else None
            if cut:
                pictures += image_ops.cut(picture, size, cut)
            else:
                pictures.append(image_ops.resize(picture, sampling.size(picture, size)))
            boxes = cut.boxes if cut else ()
            facts = replace(facts, frames=(*facts.frames, seconds), boxes=(*facts.boxes, boxes))
        error = _flaw(reading, truncated)
        if not pictures:
            raise ImageError(*_nothing(reading, truncated))
    except ImageError as refusal:
        error = str(refusal)
    except Exception as refusal:  # FFmpeg's errors are of many classes
        if is_out_of_memory(refusal):
            raise MemoryError from refusal
        if isinstance(refusal, OSError) and not isinstance(refusal, av.FFmpegError):
            raise
        error = f"corrupt: the container is damaged ({in_one_line(refusal)})"
        if truncated:
            error = _flaw(reading, truncated) if pictures else str(ImageError(*NO_PART))
    status: Any = "failed" if not pictures else "salvaged" if error else "ok"
    facts = replace(_with_known(facts, reading), status=status, error=error)
    return torch.stack(pictures) if pictures else None, facts


def _flaw(reading: ClipReading, truncated: bool) -> str | None:
    if truncated:
        return f"truncated: the file breaks off, {reading.times.duration:.1f} s of it are there"
    if reading.damage:
        return f"corrupt: damaged ({reading.damage})"
    return None


def _nothing(reading: ClipReading, truncated: bool) -> tuple[str, str]:
    if truncated:
        return "truncated", "the file breaks off before its first frame"
    if reading.damage:
        return "corrupt", f"not a single frame can be decoded ({reading.damage})"
    return "no_frames", "a video without a single frame"


def _with_known(facts: ClipFacts, reading: ClipReading) -> ClipFacts:
    return replace(
        facts,
        width=reading.width or None,
        height=reading.height or None,
        duration_seconds=reading.times.duration if len(reading.times.seconds) else None,
        frame_rate=reading.times.rate,
        **vars(reading.tags),
    )
