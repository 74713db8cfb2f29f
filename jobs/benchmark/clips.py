"""Measure clips, by container and codec: frames per second on one core, and their cost in photographs.

Seconds are CPU seconds, of this process and of the sandbox, which other work on the machine changes little.
"""

import hashlib
import io
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.console import Console

from jobs.benchmark.rounds import Spread, Timing, take_turns
from trapline.decoding.clips import ClipFile
from trapline.decoding.sampling import Sampling
from trapline.decoding.sandbox import Decoded, Sandbox, decode_with_limits
from trapline.errors import UsageError
from trapline.model.checkpoint import Model
from trapline.model.predict import Predictor

# Cameras write 10 to 20 Mbit/s of 1080p, and Motion JPEG some 40.
_BITS_PER_SECOND = 12_000_000
_FRAMES_PER_SECOND = 30
# Photographs in one turn, and images that the network gets.
_PHOTOGRAPHS, _BATCH = 8, 4
# The amplitudes of leaves and of the sensor's noise, of 255: without them a codec would have nothing to do.
_TEXTURE, _NOISE = 24, 4


@dataclass(frozen=True)
class Kind:
    """A container with a codec.

    Attributes:
        name: for the table.
        muxer, codec, pixels: as FFmpeg names them.
        options: of the encoder: quick ones, as a camera's chip is.
    """

    name: str
    muxer: str
    codec: str
    pixels: str = "yuv420p"
    options: tuple[tuple[str, str], ...] = ()


KINDS = (
    Kind("H.264 in MP4", "mp4", "libx264", options=(("preset", "veryfast"),)),
    Kind("H.264 in MTS", "mpegts", "libx264", options=(("preset", "veryfast"),)),
    Kind("H.265 in MP4", "mp4", "libx265", options=(("preset", "ultrafast"), ("x265-params", "log-level=none"))),
    Kind("MPEG-4 in AVI", "avi", "mpeg4"),
    Kind("Motion JPEG in AVI", "avi", "mjpeg", "yuvj420p"),
    Kind("VP9 in WebM", "webm", "libvpx-vp9", options=(("deadline", "realtime"), ("cpu-used", "8"))),
)


@dataclass(frozen=True)
class Row:
    """One kind of clip.

    Attributes:
        kind: its name.
        megabytes: of the file.
        frames: number of sampled frames.
        frames_per_second: all frames of the clip by the time for decoding it, in the median.
        in_sandbox: its speed in a process of its own, relative to this one, by the work of both processes.
        photographs_decoded: number of photographs that are decoded in the time that this clip takes.
        photographs_classified: the same with the network, which gets each sampled frame of the clip.
    """

    kind: str
    megabytes: float
    frames: int
    frames_per_second: float
    in_sandbox: Spread
    photographs_decoded: Spread
    photographs_classified: Spread


@dataclass(frozen=True)
class Found:
    """What was measured, on one core.

    Attributes:
        rows: of the kinds that this FFmpeg can write.
        photographs_per_second: decoded, in the median.
        network_per_second: images that the network takes, in the median.
    """

    rows: list[Row]
    photographs_per_second: float
    network_per_second: float


def measure(
    console: Console,
    model: Model,
    seconds: int,
    rounds: int,
    size: tuple[int, int] = (1920, 1080),
    photograph: tuple[int, int] = (2048, 1536),
) -> Found:
    """Measure all kinds in turn, beside photographs of the same scene.

    Args:
        console: shows what is going on.
        model: for the size of its pictures, and its network.
        seconds: that a clip lasts.
        rounds: that count.
        size: width and height of the clips.
        photograph: of the photographs.

    Raises:
        UsageError: this FFmpeg writes none of the kinds, or what it wrote cannot be decoded.
    """
    torch.set_num_threads(1)
    sampling = Sampling()
    pictures = [_jpeg(frame) for frame in _scene(photograph, _PHOTOGRAPHS)]
    predictor = Predictor(model, "cpu", "fp32", _BATCH)
    noise = np.random.default_rng(1).integers(0, 256, (_BATCH, 3, *model.size), dtype=np.uint8)
    with TemporaryDirectory() as folder, closing(Sandbox(sampling=sampling)) as sandbox:
        with console.status("filming"):
            films = _film(Path(folder), seconds, size)
        contenders: dict[str, Callable[[], int]] = {
            "photographs": lambda: sum(_decoded(decode_with_limits(data, model.size)) for data in pictures),
            "network": lambda: len(predictor(noise).energy),
        }
        for kind, film in films.items():
            here = partial(decode_with_limits, film, model.size, sampling=sampling)
            contenders[kind.name] = _counting(here)
            contenders[f"{kind.name}, sandbox"] = _counting(partial(sandbox, film, model.size))
        timings = take_turns(console, contenders, rounds, clock=_processor_seconds)
        sizes = {kind: Path(film.path).stat().st_size for kind, film in films.items()}
    of_photographs, of_network = timings["photographs"], timings["network"]
    rows = []
    for kind in films:
        of_clip = timings[kind.name]
        decoding = [own / each for own, each in zip(of_clip.seconds, _each(of_photographs), strict=True)]
        whole = [
            (own + of_clip.items * pass_) / (each + pass_)
            for own, each, pass_ in zip(of_clip.seconds, _each(of_photographs), _each(of_network), strict=True)
        ]
        rows.append(
            Row(
                kind.name,
                sizes[kind] / 1e6,
                of_clip.items,
                of_clip.rate / of_clip.items * seconds * _FRAMES_PER_SECOND,
                timings[f"{kind.name}, sandbox"].times_as_fast_as(of_clip),
                Spread.of(decoding),
                Spread.of(whole),
            )
        )
    return Found(rows, of_photographs.rate, of_network.rate)


def _processor_seconds() -> float:
    """Return what processors have spent on this process and its children, in seconds; the latter on Linux only."""
    ticks = 0
    for child in multiprocessing.active_children():
        with suppress(OSError):
            after_name = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(after_name[11]) + int(after_name[12])  # by the program, and by the system for it
    return process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _each(timing: Timing) -> list[float]:
    return [seconds / timing.items for seconds in timing.seconds]


def _counting(decode: Callable[[], Decoded]) -> Callable[[], int]:
    return lambda: _decoded(decode())


def _decoded(answer: Decoded) -> int:
    """Return how many pictures were decoded."""
    pixels, facts = answer
    if pixels is None or facts.status != "ok":
        raise UsageError(f"what was drawn for the benchmark cannot be decoded: {facts.error}")
    return len(pixels) if pixels.dim() == 4 else 1


def _scene(size: tuple[int, int], count: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Draw a bird that passes before leaves, uint8 [height, width, 3], with a sensor's noise, frame after frame."""
    rng = np.random.default_rng(1)
    width, height = size
    ground = Image.fromarray(rng.integers(40, 200, (9, 16, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    leaves = Image.fromarray(rng.integers(0, 256, (height // 4, width // 4), dtype=np.uint8)).resize(size)
    still = np.asarray(ground, np.int16) + (np.asarray(leaves, np.int16)[..., None] - 128) * _TEXTURE // 128
    noise = rng.integers(-_NOISE, _NOISE + 1, still.shape, dtype=np.int16)
    bird = height // 6
    for number in range(count):
        frame = still + np.roll(noise, (7 * number, 13 * number), axis=(0, 1))
        left = (width // 90 * number) % (width - bird)
        frame[height // 3 : height // 3 + bird, left : left + bird] += 60
        yield np.clip(frame, 0, 255).astype(np.uint8)


def _jpeg(frame: npt.NDArray[np.uint8]) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(frame).save(sink, "JPEG", quality=90)
    return sink.getvalue()


def _film(folder: Path, seconds: int, size: tuple[int, int]) -> dict[Kind, ClipFile]:
    """Encode the scene in each kind that this FFmpeg writes."""
    paths: dict[Kind, Path] = {}
    with ExitStack() as open_ones:
        streams: list[tuple[Any, Any]] = []
        for kind in KINDS:
            if kind.codec not in av.codecs_available or kind.muxer not in av.formats_available:
                continue
            paths[kind] = folder / f"{len(paths)}.{kind.muxer}"
            container = open_ones.enter_context(av.open(str(paths[kind]), "w", format=kind.muxer))
            stream: Any = container.add_stream(kind.codec, rate=_FRAMES_PER_SECOND, options=dict(kind.options))
            stream.width, stream.height, stream.pix_fmt = *size, kind.pixels
            stream.bit_rate = _BITS_PER_SECOND * (3 if kind.codec == "mjpeg" else 1)
            streams.append((container, stream))
        if not paths:
            raise UsageError("FFmpeg, as PyAV brings it here, writes none of the codecs; install another `av`")
        for picture in _scene(size, seconds * _FRAMES_PER_SECOND):
            for container, stream in streams:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for container, stream in streams:
            container.mux(stream.encode())
    return {kind: ClipFile(str(path), hashlib.sha256(path.read_bytes()).digest()) for kind, path in paths.items()}
