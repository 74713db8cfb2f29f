"""Stand-ins for the two heavy steps of a run: they take the time they are told to, and give what is as large as real.

All else is the run's own: tars are read, rows and chunks built, pixels moved, files written.
"""

from collections.abc import Callable
from datetime import datetime
from queue import SimpleQueue
from threading import Lock
from time import sleep

import numpy as np
import numpy.typing as npt
import torch

from trapline.decoding.crops import Crops
from trapline.decoding.decode import Facts
from trapline.decoding.sandbox import Decoded
from trapline.model.checkpoint import Model
from trapline.model.gpu import Busy
from trapline.model.predict import Predictor
from trapline.model.predictions import Predictions
from trapline.results.schema import Columns
from trapline.run.job import Job
from trapline.run.workers import LostDevices, PredictorActor, Reader


class SleepingDecoder:
    """Gives for each image the same noise, and facts like a camera's.

    Args:
        seconds: that an image takes.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._random = np.random.default_rng()
        self._pixels = torch.empty(0)

    def __call__(self, data: bytes, size: tuple[int, int], *, crops: Crops | None = None) -> Decoded:
        """As `decode`."""
        if self._pixels.shape[1:] != size:
            self._pixels = torch.from_numpy(self._random.integers(0, 256, (3, *size), dtype=np.uint8))
        sleep(self._seconds)
        digest, taken = self._random.bytes(32), datetime.fromtimestamp(int(self._random.integers(2**30)))
        return self._pixels, Facts("ok", None, digest, 2048, 1536, "jpeg", taken, camera_make="RECONYX")


class SleepingReader(Reader):
    """Reads tars as ever, and decodes nothing.

    Args:
        job: as ever.
        seconds: that an image takes.
    """

    def __init__(self, job: Job, seconds: float) -> None:
        super().__init__(job)
        self.decode = SleepingDecoder(seconds)


class SleepingPredictor(Predictor):
    """Gives probabilities and embeddings that no compression makes smaller than a network's, to one thread at a time.

    Args:
        columns: how many of each.
        seconds: that an image takes.
    """

    def __init__(self, columns: Columns, seconds: float) -> None:
        self._columns = columns
        self._seconds = seconds
        self._random = np.random.default_rng()
        self._device = Lock()

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Predictions:
        """As `Predictor`."""
        with self._device:
            sleep(self._seconds * len(pixels))
            return self._predictions(len(pixels))

    def _predictions(self, count: int) -> Predictions:
        likely = np.exp(2 * self._random.standard_normal((count, len(self._columns.classes)), dtype=np.float32))
        total = likely.sum(axis=1)
        embedding = self._random.standard_normal((count, self._columns.embedding_size), dtype=np.float32)
        return Predictions(likely / total[:, None], np.log(total), embedding, {})


def sleeping_actor(seconds: float) -> type[PredictorActor]:
    """An actor like the real one, on any device, that is there or not.

    Args:
        seconds: that an image takes.
    """

    class SleepingActor(PredictorActor):
        def __init__(self, job: Job, load: Callable[[], Model], lost: LostDevices | None = None) -> None:
            self.job = job
            self.busy = Busy()
            self.notes = SimpleQueue()
            self.predictor = SleepingPredictor(job.columns, seconds)

    return SleepingActor
