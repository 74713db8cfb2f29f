"""Decode under limits: an image that crashes its decoder, hangs it or exhausts memory becomes a `failed` row.

Decoders are C libraries, and one bad file in a million crashes the process or never returns. At first a worker decodes
in its own process, which costs nothing, with a timeout that ends the process and a limit on its memory. If it dies or
runs out of memory, the shard is read again with each image decoded in a child process, whose death identifies the
image. Kinds of image error raised here: `crashed`, `timeout`, `out_of_memory`.
"""

import faulthandler
import hashlib
import multiprocessing
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from trapline.choices import DecodeMode
from trapline.decoding.clips import ClipFacts, ClipFile
from trapline.decoding.crops import Crops
from trapline.decoding.decode import Facts
from trapline.decoding.media import decode_media
from trapline.decoding.sampling import Sampling
from trapline.errors import TransientError

Decoded = tuple[torch.Tensor | None, Facts]


class Decode(Protocol):
    """`decode_media`, in some process."""

    def __call__(self, data: bytes | ClipFile, size: tuple[int, int], *, crops: Crops | None = None) -> Decoded:
        """Decode one image or clip, as `decode_media` does."""


# Seconds for one image. The slowest that is accepted, a WebP of 128 megapixels, takes 10 on an idle core.
DECODE_TIMEOUT = 120.0
# How much longer a clip may take. A minute of 4K H.265 takes 60 to 90 s on one core.
CLIP_TIMES = 5
# Bytes for one image, in addition to those of its process. The largest images take 3 GB (`decode.MAX_PIXELS`).
MEMORY = 4 * 2**30
# Seconds for a child to start: importing torch takes 4, and more if all cores are busy.
_START = 120.0
_EXIT_TIMEOUT = 1.0
_STATM = Path("/proc/self/statm")


def decode_with_limits(
    data: bytes | ClipFile,
    size: tuple[int, int],
    mode: DecodeMode = "exact",
    timeout: float = DECODE_TIMEOUT,
    crops: Crops | None = None,
    sampling: Sampling | None = None,
) -> Decoded:
    """Decode in this process, and end it with exit code 1 if that takes longer than `timeout`, in seconds.

    A clip may take `CLIP_TIMES` as long.

    Raises:
        MemoryError: the image takes more than `MEMORY`, or the machine's memory is full.
    """
    # The interpreter's watchdog thread, in C: it needs no lock that a decoder may hold.
    faulthandler.dump_traceback_later(timeout * (1 if isinstance(data, bytes) else CLIP_TIMES), exit=True)
    try:
        with _bounded_memory():
            return decode_media(data, size, mode, crops, sampling)
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """Make allocations fail once the process uses `MEMORY` bytes more than now; on Linux only."""
    if not _STATM.exists():
        yield
        return
    data_pages = int(_STATM.read_text().split()[5])
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = data_pages * resource.getpagesize() + MEMORY
    if hard != resource.RLIM_INFINITY:
        bound = min(bound, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


class Sandbox:
    """Decode in a child process: an image that kills it, or that it does not finish, is `failed`.

    Args:
        mode: as `decode` takes it.
        timeout: seconds for one image; a clip may take `CLIP_TIMES` as long.
        sampling: as `decode_media` takes it.

    Raises (when called):
        TransientError: no child process starts.
        OSError: the file of a clip cannot be read.
    """

    def __init__(
        self, mode: DecodeMode = "exact", timeout: float = DECODE_TIMEOUT, sampling: Sampling | None = None
    ) -> None:
        self._mode = mode
        self._sampling = sampling
        self._timeout = timeout
        self._child: Any = None
        self._pipe: Any = None

    def __call__(
        self,
        data: bytes | ClipFile,
        size: tuple[int, int],
        *,
        crops: Crops | None = None,
        sampling: Sampling | None = None,
    ) -> Decoded:
        """Decode one image or clip, as `decode_media` does; with `sampling`, other frames of this clip."""
        error = ""
        timeout = self._timeout * (1 if isinstance(data, bytes) else CLIP_TIMES)
        # Twice, because a child may also be killed when memory runs out, which may not be the image's fault.
        for _ in range(2):
            if not (self._child and self._child.is_alive()):
                self.close()
                self._start()
            try:
                self._pipe.send((data, size, crops, sampling or self._sampling))
                if not self._pipe.poll(timeout):
                    error = f"timeout: not decoded after {timeout:g} s"
                    break
                answer = self._pipe.recv()
            except (EOFError, OSError):
                error = f"crashed: the decoder crashed ({_cause(self.close())})"
            else:
                if isinstance(answer, OSError):
                    raise answer
                pixels, facts = answer
                return None if pixels is None else torch.from_numpy(pixels), facts
        self.close()
        return None, _failed(data, error)

    def close(self) -> int:
        """End the child, if there is one; return its exit code."""
        if not self._child:
            return 0
        self._pipe.close()
        self._child.join(_EXIT_TIMEOUT)  # it ends when the pipe is closed, unless it hangs
        self._child.kill()
        self._child.join()
        code: int = self._child.exitcode
        self._child = None
        return code

    def _start(self) -> None:
        # Not a fork, which would copy the locks that other threads of this process hold.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._child = context.Process(target=_serve, args=(theirs, self._mode, 2 * self._timeout), daemon=True)
        self._child.start()
        theirs.close()  # so that the pipe ends when the child dies
        try:
            if not self._pipe.poll(_START):
                raise EOFError
            self._pipe.recv()
        except EOFError as error:
            self.close()
            raise TransientError(f"no process to decode in starts within {_START:g} s") from error


def _serve(pipe: Connection, mode: DecodeMode, timeout: float) -> None:
    """Decode what comes through the pipe; end when the parent is gone, even while decoding an image that hangs."""
    torch.set_num_threads(1)
    pipe.send("ready")
    while True:
        try:
            data, size, crops, sampling = pipe.recv()
        except EOFError:
            return
        try:
            pixels, facts = decode_with_limits(data, size, mode, timeout, crops, sampling)
        except MemoryError:
            error = f"out_of_memory: decoding it takes more than {MEMORY >> 30} GiB, or than there is"
            pixels, facts = None, _failed(data, error)
        except OSError as error:
            pipe.send(error)
            continue
        pipe.send((None if pixels is None else np.asarray(pixels), facts))


def _failed(data: bytes | ClipFile, error: str) -> Facts:
    if isinstance(data, bytes):
        return Facts("failed", error, hashlib.sha256(data).digest())
    return ClipFacts("failed", error, data.content_sha256, media_type="video")


def _cause(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
