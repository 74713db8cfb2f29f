"""Whole runs on Ray for the GPU's benchmark: with the real decoders, and with ones that cost nothing."""

import io
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from jobs.benchmark.gpu_kernels import Figures
from jobs.benchmark.growth import write_archive
from trapline.config import RunConfig
from trapline.decoding.sandbox import decode_with_limits
from trapline.model import checkpoint
from trapline.run.classify import classify
from trapline.run.job import Job
from trapline.run.progress import Progress
from trapline.run.ray_stream import WorkerClasses
from trapline.run.workers import Reader

if TYPE_CHECKING:
    from jobs.benchmark.gpu_steps import Scope

_SHARDS = 8  # that each decoder has at least, with half of the cores


class DecodesOnce(Reader):
    """A reader that decodes one image, and hands out its pixels for all others: the predictor's ceiling shows."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.decode = _FirstAgain()


class _FirstAgain:
    def __init__(self) -> None:
        self._first: Any = None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if self._first is None:
            self._first = decode_with_limits(*arguments, **options)
        return self._first


class _Notes:
    def __call__(self, progress: Progress) -> None:
        pass

    def note(self, text: str) -> None:
        print(text, file=sys.stderr)


def measure(scope: "Scope", chunk: int, *, decodes: bool) -> Iterator[Figures]:
    """Yield the figures of one run.

    Args:
        scope: how much is measured.
        chunk: images in a chunk, and in a batch.
        decodes: whether each photograph is decoded, or only the first of each shard.
    """
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        photographs = [_photograph(seed, scope.photograph_size) for seed in range(8)]
        count = scope.photographs
        archive = write_archive(scratch / "archive", photographs, count, max(1, count // _SHARDS))
        model = scratch / f"{scope.model.variant}_1.pt"
        checkpoint.save(scope.model, model)
        config = RunConfig(
            inputs=(str(archive),), output=str(scratch / "results"), model=str(model), device=scope.device,
            batch_size=chunk,
        )  # fmt: skip
        reader: Any = Reader if decodes else DecodesOnce
        run = classify(config, _Notes(), workers=WorkerClasses(reader=partial(reader)))
    under_way = run.seconds - run.start_up_seconds
    yield (
        {
            "chunk": chunk,
            "decoding": "photographs" if decodes else "none",
            "images/s under way": sum(run.images.values()) / under_way if under_way > 0 else 0.0,
            "start, s": run.start_up_seconds,
            "bound by": run.bound_by,
        }
        | {f"{kind} busy": share for kind, share in run.busy.items()}
        | {f"{k} workers": n for k, n in run.workers.items()}
    )


def _photograph(seed: int, size: tuple[int, int]) -> bytes:
    """Return a JPEG of smooth noise, width by height: its bytes per pixel are like a photograph's."""
    width, height = size
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
