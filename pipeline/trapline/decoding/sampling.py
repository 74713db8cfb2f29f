"""Choose which frames of a clip are decoded: those to classify, or one to look at."""

from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt
import torch


@dataclass(frozen=True)
class Sampling:
    """Which frames of a clip are classified.

    Attributes:
        fps: frames per second of the clip.
        frames: the most frames; a longer clip gives this many, evenly spread over its length.
    """

    fps: float = 1.0
    frames: int = 60

    def moments(self, duration: float) -> npt.NDArray[np.float64]:
        """Return when frames are wanted, in seconds from the start of a clip that lasts `duration` seconds."""
        wanted = ceil(round(duration * self.fps, 6))
        if wanted <= self.frames:
            return np.arange(max(wanted, 1), dtype=np.float64) / self.fps
        return np.linspace(0, duration, self.frames, endpoint=False, dtype=np.float64)

    def size(self, picture: torch.Tensor, asked: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width to which a frame, `uint8 [3, height, width]`, is resized: those asked for."""
        return asked


@dataclass(frozen=True)
class Still(Sampling):
    """One frame of a clip, in its own proportions.

    Attributes:
        seconds: from the start of the clip.
    """

    seconds: float = 0.0

    def moments(self, duration: float) -> npt.NDArray[np.float64]:
        """Return the one moment, however long the clip is."""
        return np.array([self.seconds])

    def size(self, picture: torch.Tensor, asked: tuple[int, int]) -> tuple[int, int]:
        """Return the largest size with the frame's proportions within the size asked for; never enlarge."""
        height, width = picture.shape[1:]
        scale = min(1.0, asked[0] / height, asked[1] / width)
        return max(1, round(height * scale)), max(1, round(width * scale))
