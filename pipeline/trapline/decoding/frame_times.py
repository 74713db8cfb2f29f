"""Find out when the frames of a clip are shown: from its packets, and from these for each decoded frame.

A frame has the time at which it is shown, except in two kinds of clips. AVI and ASF have one time for each packet, in
the order in which packets are stored: if frames refer to later ones (H.264 with B-frames), they come with the time of
another frame, up to two frames away. And in MPEG program streams some packets have no time. A decoder returns frames in
the order in which they are shown, so in these clips the position of a frame among the others gives its time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trapline.errors import ImageError

# A day at 120 frames a second.
_MOST_PACKETS = 10_000_000
# Seconds by which times of storage, which only grow within a recording, may fall back.
_NOT_BACK = 0.5


@dataclass(frozen=True)
class FrameTimes:
    """When the frames of a clip are shown.

    Attributes:
        seconds: of each frame, float64 [N], in order and from 0; several may share a time.
        start: of the first frame, in the container's seconds.
        duration: from the first frame to the end of the last, in seconds.
        rate: frames a second, on average; None where that is not known.
        independent: whether each frame can be decoded without the others.
        by_place: whether it is the place of a decoded frame that says when it is shown.
        keys_in_step: whether key frames come with their own time all the same.
    """

    seconds: npt.NDArray[np.float64]
    start: float
    duration: float
    rate: float | None
    independent: bool
    by_place: bool = False
    keys_in_step: bool = True


NONE: Final = FrameTimes(np.array([], np.float64), 0.0, 0.0, None, independent=False)
"""Of a clip without frames, or that was not scanned."""


def scan(opened: Any, stream: Any, note: Callable[[Exception], None]) -> FrameTimes:
    """Read all packets of a video without decoding them.

    Args:
        opened: the container, an `av.InputContainer`.
        stream: its video.
        note: receives what is damaged; the frames before that count.

    Raises:
        ImageError: it is encrypted, or has too many frames.
    """
    import av

    shown: list[float] = []
    decoded: list[float] = []  # what is there of times in the order of storage
    lengths: list[float] = []
    independent = True
    try:
        for packet in opened.demux(stream):
            if packet.size == 0 or packet.is_discard:
                continue
            if not shown and packet.has_sidedata("encryption_info"):
                raise ImageError("encrypted", "the content asks for a key")
            seconds = said(packet, stream.time_base)
            shown.append(np.nan if seconds is None else seconds)
            decoded.append(np.nan if packet.dts is None else float(packet.dts * stream.time_base))
            lengths.append(float((packet.duration or 0) * stream.time_base))
            independent &= packet.is_keyframe
            if len(shown) > _MOST_PACKETS:
                raise ImageError("too_large", f"more than {_MOST_PACKETS:,} frames")
    except av.FFmpegError as error:
        note(error)
    stored = np.array(decoded, np.float64)
    shifts = _shifts(stored)
    times, stored = np.array(shown, np.float64) + shifts, stored + shifts
    joined = bool(shifts.any())
    unsaid = bool(np.isnan(times).any())
    end = float("-inf") if unsaid or not len(times) else float((times + np.array(lengths, np.float64)).max())
    if unsaid:
        times = _interpolated(stored, stream)
    as_stored = bool((np.diff(times) > 0).all()) and bool(stream.codec_context.has_b_frames)
    times = np.sort(times)
    if not len(times):
        return FrameTimes(times, 0.0, 0.0, None, independent)
    start, last = float(times[0]), float(times[-1])
    if end <= last and len(times) > 1:  # ASF: the last frame is as long as the others
        end = last + (last - start) / (len(times) - 1)
    duration = round(max(end, last) - start, 6)
    rate = round(len(times) / duration, 6) if duration else None
    return FrameTimes(
        times - start,
        start,
        duration,
        rate,
        independent and not unsaid and not joined,
        unsaid or as_stored or joined,
        keys_in_step=not unsaid and not joined,
    )


def _shifts(stored: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return by how much each time is to be moved where a file is several recordings, one behind the other.

    MPEG streams may be joined as they are; the times of each recording begin where those of the first did. A single
    time that differs from those on both sides of it is damaged, and no recording.

    Args:
        stored: times in the order of storage, float64 [N], NaN where they are not known.
    """
    known = np.flatnonzero(~np.isnan(stored))
    around = np.concatenate([[np.inf], stored[known], [-np.inf]])
    before, last, first, behind = around[:-3], around[1:-2], around[2:-1], around[3:]
    falls = (first < np.minimum(before, last) - _NOT_BACK) & (behind < last - _NOT_BACK)
    shifts = np.zeros(len(stored))
    if falls.any() and not falls.all():
        step = np.median((first - last)[~falls])
        shifts[known[1:][falls]] = (last - first)[falls] + step
    return shifts.cumsum()


class FrameClock:
    """Tells of one decoded frame after another when it is shown.

    Args:
        times: of the clip.
        time_base: of its video.
    """

    def __init__(self, times: FrameTimes, time_base: Any) -> None:
        self._times = times
        self._time_base = time_base
        self._place = 0

    def __call__(self, frame: Any) -> float | None:
        """Return the seconds of a frame, the next in the order in which they are shown; None where nothing says it."""
        seconds = said(frame, self._time_base)
        if seconds is not None:
            seconds -= self._times.start
        if not self._times.by_place:
            return seconds
        place = self._place
        if self._times.keys_in_step and frame.key_frame and seconds is not None:
            # No frame behind a key frame is shown before it: here both orders meet, also after frames that were lost.
            place = max(place, int(np.searchsorted(self._times.seconds, seconds)))
        self._place = place + 1
        return float(self._times.seconds[place]) if place < len(self._times.seconds) else None


def said(item: Any, time_base: Any) -> float | None:
    """Return when a packet or a frame is shown, as it says itself, in the container's seconds.

    The last frames of a stream come without a time base of their own.
    """
    ticks = item.pts if item.pts is not None else item.dts
    return None if ticks is None else float(ticks * time_base)


def _interpolated(times: npt.NDArray[np.float64], stream: Any) -> npt.NDArray[np.float64]:
    """Fill in the times that packets do not say, at equal distances; leave these packets out where nothing says any."""
    known = np.flatnonzero(~np.isnan(times))
    if len(known) > 1:
        step = (times[known[-1]] - times[known[0]]) / (known[-1] - known[0])
    elif len(known) and stream.average_rate:
        step = float(1 / stream.average_rate)
    else:
        return times[known]
    places = np.arange(len(times))
    filled = np.interp(places, known, times[known])
    filled += np.minimum(places - known[0], 0) * step + np.maximum(places - known[-1], 0) * step
    return filled
