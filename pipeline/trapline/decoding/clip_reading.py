"""Read the video of a clip in a local file: its tags, the times of its frames, and frames.

The file is read twice: once without decoding, for the times of its frames, because the length that containers state is
often wrong; and once to decode up to the last frame that is wanted, for a still from the key frame before it.
"""

import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch

from trapline.decoding import clip_facts, container_dates, containers, frame_times, frames
from trapline.decoding.clip_facts import ClipTags
from trapline.decoding.containers import Container
from trapline.decoding.frame_times import FrameClock
from trapline.decoding.sampling import Sampling, Still
from trapline.decoding.watched_file import WatchedFile
from trapline.errors import ImageError, in_one_line, is_out_of_memory

if TYPE_CHECKING:
    import av

NO_PART: Final = "truncated", "the file breaks off, and no part of it can be decoded"
"""Kind and message, where so much is missing that nothing can be read."""

# Further frames of one moment: times that were rounded to milliseconds lie up to one beside their second.
_NEAR = 0.0015


# What decoders say of damage to what stands beside the pictures of a clip, in their words.
_BESIDE = re.compile(r"\b(?:EXIF|ICC|APP|SEI|VUI)")


class ClipReading:
    """The video of a clip: the times of its frames, and then the frames.

    Args:
        path: of the file.
        container: what it is.

    Attributes:
        damage: what was wrong first; None as long as nothing is.
        tags: of the container.
        width: of its frames, in pixels; 0 before it was scanned.
        height: as width.
        times: of its frames, once it was scanned.
    """

    def __init__(self, path: str, container: Container) -> None:
        self._path = path
        self._container = container
        self._number = 0  # of the videos that the file holds
        self.tags = ClipTags()
        self.width = self.height = 0
        self.damage: str | None = None
        self.times = frame_times.NONE

    def scan(self) -> None:
        """Read tags, size and times; what was read is kept where the rest cannot be.

        Raises:
            ImageError: there is nothing to decode.
            Exception: of many kinds, where the container is damaged.
        """
        videos = self._scanned()
        lengths = [len(self.times.seconds)]
        refusal = None
        while lengths[-1] < 2 and len(lengths) < videos:  # a stream that was left empty, or a preview
            self._number += 1
            try:
                self._scanned()
                lengths.append(len(self.times.seconds))
            except ImageError as error:
                refusal = error
                lengths.append(0)
        if refusal and not any(lengths):
            raise refusal
        if self._number != (longest := lengths.index(max(lengths))):
            self._number = longest
            self._scanned()

    def _scanned(self) -> int:
        """Scan one video; return how many the file holds."""
        with self._opened() as (opened, stream):
            codec = stream.codec_context
            self.width, self.height = codec.width, codec.height
            if codec.width * codec.height > frames.MAX_PIXELS:
                raise ImageError(
                    "too_large", f"frames of {codec.width} x {codec.height} pixels, the limit is {frames.MAX_PIXELS}"
                )
            self.times = frame_times.scan(opened, stream, self._note)
            return len(_videos(opened))

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """Open the file; gives the container and its video."""
        import av  # 0.1 s, and of use for clips only

        # Without any protocol, so that a container cannot make FFmpeg open what it names.
        options, demuxer = {"protocol_whitelist": "none"}, self._container.demuxer
        with (
            WatchedFile(self._path) as file,
            av.open(file, format=demuxer, options=options, metadata_errors="replace") as opened,
        ):
            self.tags = self._read_tags(opened)
            has_media = opened.streams.video or opened.streams.audio
            if not has_media and containers.breaks_off(self._path, self._container):
                raise ImageError(*NO_PART)
            stream = _videos(opened)[self._number]
            stream.codec_context.thread_count = 1  # decoding is parallel by task
            yield opened, stream

    def _read_tags(self, opened: Any) -> ClipTags:
        tags: dict[str, str] = {}
        for stream in reversed(opened.streams.video):
            tags |= stream.metadata
        written = container_dates.read(self._path, self._container.name)
        return clip_facts.read({**tags, **opened.metadata, **written}, self._container.name)

    def frames(self, sampling: Sampling) -> Iterator[tuple[float, torch.Tensor]]:
        """Decode the frames that are wanted; gives when each is shown, and its pixels, uint8 [3, height, width]."""
        import av

        times = self.times.seconds
        places = np.unique(np.searchsorted(times, sampling.moments(self.times.duration) - _NEAR))
        chosen = times[places[places < len(times)]]
        if isinstance(sampling, Still) and len(chosen) and not self.times.by_place:
            # Of a minute of 1080p the last second is there at once, instead of after 10 s.
            with suppress(av.FFmpegError), closing(self._shown(chosen, chosen[0])) as sought:
                found = next(sought, None)
                if found and found[0] == round(float(chosen[0]), 6) and not self.damage:
                    yield found
                    return
            self.damage = None
        yield from self._shown(chosen)

    def _shown(
        self, chosen: npt.NDArray[np.float64], begin: float | None = None
    ) -> Generator[tuple[float, torch.Tensor]]:
        """Decode the frames that are shown at these times; with `begin`, from the key frame before that."""
        following = 0
        for seconds, frame in self._decoded(set(chosen.tolist()) if self.times.independent else None, begin):
            if following == len(chosen):
                return
            if seconds is None or seconds < chosen[following]:
                continue
            following = int(np.searchsorted(chosen, seconds, side="right"))
            if frame.is_corrupt:
                self._note("a frame lacks parts")
            yield round(seconds, 6), frames.pixels(frame)

    def _decoded(self, only: set[float] | None, begin: float | None) -> "Iterator[tuple[float | None, av.VideoFrame]]":
        """Decode frames in the order in which they are shown; of independent ones only those of these times."""
        import av

        with self._opened() as (opened, stream), _listening(stream.codec_context.name) as said:
            if begin is not None:
                opened.seek(int((begin + self.times.start) / stream.time_base), stream=stream)
            packets, clock = opened.demux(stream), FrameClock(self.times, stream.time_base)
            while True:
                try:
                    packet = next(packets, None)
                except av.FFmpegError as error:
                    self._note(error)
                    packet = None
                is_end = packet is None or not packet.size
                if not is_end and only is not None and self._said(packet, stream) not in only:
                    continue
                try:
                    decoded: Sequence[av.VideoFrame] = stream.codec_context.decode(None if is_end else packet)
                except av.FFmpegError as error:
                    self._note(error)
                    decoded = []
                for words in said():
                    self._note(words)
                for frame in decoded:
                    yield clock(frame), frame
                if is_end:
                    return

    def _said(self, packet: Any, stream: Any) -> float | None:
        seconds = frame_times.said(packet, stream.time_base)
        return None if seconds is None else seconds - self.times.start

    def _note(self, what: object) -> None:
        """Keep the first damage; raise MemoryError, which says nothing of the clip."""
        if isinstance(what, BaseException) and is_out_of_memory(what):
            raise MemoryError from what
        self.damage = self.damage or in_one_line(what if isinstance(what, Exception) else Exception(str(what)))


def _videos(opened: Any) -> list[Any]:
    """Return the videos of a container that FFmpeg knows the codec of, without the pictures on a cover."""
    import av

    cover = av.stream.Disposition.attached_pic
    moving = [stream for stream in opened.streams.video if not stream.disposition & cover]
    if not moving:
        sound = ", but sound" if opened.streams.audio else ""
        raise ImageError("no_video", f"it holds no pictures that move{sound}")
    known = [stream for stream in moving if stream.codec_context is not None]
    if not known:
        raise ImageError("unsupported", "its codec is not known; convert it to H.264")
    return known


@contextmanager
def _listening(codec: str) -> Iterator[Any]:
    """Take in what the decoder says of damage that it conceals; gives a function that returns what is new."""
    import av.logging

    before, skips = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    # Or what two clips in a row say alike is kept from the second, and comes up while a third is decoded.
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as logs:

            def said() -> list[str]:
                new = [message.strip() for _, name, message in logs if name == codec and not _BESIDE.search(message)]
                logs.clear()
                return new

            yield said
    finally:
        av.logging.set_level(before)
        av.logging.set_skip_repeated(skips)
