"""Clips that tests draw and encode, as small as they may be."""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch
from av.video.reformatter import Interpolation
from PIL import Image

from trapline.decoding.clips import ClipFile
from trapline.decoding.crops import Crops
from trapline.decoding.media import decode_media
from trapline.decoding.sampling import Sampling

# Container, codec, pixel format, FFmpeg's muxer: every container that is read, and the codecs of cameras and phones.
KINDS = [
    ("mp4", "libx264", "yuv420p", "mp4"),
    ("mp4", "libx265", "yuv420p", "mp4"),
    ("mp4", "libx265", "yuv420p10le", "mp4"),
    ("mp4", "mpeg4", "yuv420p", "mp4"),
    ("mp4", "libsvtav1", "yuv420p", "mp4"),
    ("m4v", "libx264", "yuv420p", "mp4"),
    ("mov", "libx264", "yuvj420p", "mov"),
    ("mov", "mjpeg", "yuvj422p", "mov"),
    ("mov", "prores_ks", "yuv422p10le", "mov"),
    ("3gp", "h263", "yuv420p", "3gp"),
    ("3gp", "libx264", "yuv420p", "3gp"),
    ("avi", "mjpeg", "yuvj420p", "avi"),
    ("avi", "mpeg4", "yuv420p", "avi"),
    ("avi", "msmpeg4v3", "yuv420p", "avi"),
    ("avi", "libx264", "yuv420p", "avi"),
    ("mkv", "libx264", "yuv420p", "matroska"),
    ("mkv", "ffv1", "yuv420p", "matroska"),
    ("webm", "libvpx-vp9", "yuv420p", "webm"),
    ("mts", "libx264", "yuv420p", "mpegts"),
    ("mpg", "mpeg2video", "yuv420p", "mpeg"),
    ("asf", "wmv2", "yuv420p", "asf"),
    ("asf", "libx264", "yuv420p", "asf"),
    ("wmv", "wmv1", "yuv420p", "asf"),
]
MODEL = (64, 96)  # height and width that a model takes
SIZE = (176, 144)  # that H.263 knows
Draw = Callable[[int], npt.NDArray[np.uint8]]


def drawn(number: int) -> npt.NDArray[np.uint8]:
    """A bird that crosses a meadow, uint8 [144, 176, 3]."""
    width, height = SIZE
    y, x = np.mgrid[0:height, 0:width]
    picture = np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 80)], axis=-1).astype(np.uint8)
    left = (number * 7) % (width - 40)
    picture[30:70, left : left + 40] = (250, 240, 10)
    return picture


def clip(
    codec: str = "libx264",
    pixels: str = "yuv420p",
    muxer: str = "mp4",
    frames: int = 30,
    rate: int = 10,
    draw: Draw = drawn,
    times: list[int] | None = None,
    rotation: int | None = None,
    tags: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    sound: bool = False,
    bidirectional: int | None = None,
) -> bytes:
    """An encoded clip; with `times`, of these moments in ticks of the rate, and not of even ones.

    With `bidirectional`, up to so many frames in a row refer to later ones, which are stored before them.
    """
    with NamedTemporaryFile() as file, av.open(file.name, "w", format=muxer, options=options or {}) as container:
        container.metadata.update(tags or {})
        stream: Any = container.add_stream(codec, rate=20 if codec == "h263" else rate)
        height, width = draw(0).shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.gop_size = 12
        stream.codec_context.thread_count = 1
        if bidirectional is not None:
            stream.codec_context.max_b_frames = bidirectional
        if codec == "h263":
            stream.time_base = Fraction(1001, 30000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if sound:
            add_sound(container)
        container.start_encoding()
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(draw(number), format="rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        container.close()
        return Path(file.name).read_bytes()


def motion_jpeg(
    pictures: Iterable[bytes], muxer: str = "avi", rate: int = 10, times: Sequence[int] | None = None
) -> bytes:
    """A clip of these JPEGs; `times` as of `clip`, but several may be the same."""
    with NamedTemporaryFile() as file, av.open(file.name, "w", format=muxer) as container:
        stream: Any = container.add_stream("mjpeg", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuvj420p"
        container.start_encoding()
        for number, picture in enumerate(pictures):
            packet = av.Packet(picture)
            packet.stream, packet.time_base = stream, Fraction(1, rate)
            packet.pts = packet.dts = times[number] if times else number
            packet.is_keyframe = True
            container.mux(packet)
        container.close()
        return Path(file.name).read_bytes()


def add_sound(container: Any, seconds: int = 1) -> None:
    stream = container.add_stream("aac", rate=44100)
    for _ in range(seconds * 43):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def sound_only(muxer: str = "mp4") -> bytes:
    sink = io.BytesIO()
    with av.open(sink, "w", format=muxer) as container:
        add_sound(container)
    return sink.getvalue()


def every_frame(path: Path) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
    """All frames of a clip as FFmpeg decodes them one after another: when each is shown, and its RGB.

    They come in the order in which they are shown, but may each have the time of another.
    """
    exact = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        times = sorted(frame.time for frame in frames)
        for seconds, frame in zip(times, frames, strict=True):
            yield seconds - times[0], frame.to_ndarray(format="rgb24", interpolation=exact)


def decoded(
    data: bytes, tmp_path: Path, sampling: Sampling | None = None, crops: Crops | None = None
) -> tuple[torch.Tensor | None, Any]:
    path = tmp_path / "clip"
    path.write_bytes(data)
    return decode_media(ClipFile(str(path), hashlib.sha256(data).digest()), MODEL, crops=crops, sampling=sampling)


def as_jpeg(picture: npt.NDArray[np.uint8], segment: bytes = b"", orientation: int | None = None) -> bytes:
    """A JPEG, with a segment behind its first marker, or with EXIF that turns it."""
    sink, exif = io.BytesIO(), Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(picture).save(sink, "JPEG", quality=95, exif=exif)
    data = sink.getvalue()
    return data[:2] + segment + data[2:]


def as_png(picture: npt.NDArray[np.uint8]) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, "PNG")
    return sink.getvalue()
