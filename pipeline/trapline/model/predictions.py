"""The arrays that a model returns for a batch of images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Predictions:
    """The model's results for N images.

    Attributes:
        probabilities: float32 [N, C], softmax of the logits; C is 0 for a model without classifier.
        energy: float32 [N], logsumexp of the logits: high for what looks like one of the classes (Liu et al. 2020,
            arXiv:2010.03759, with the sign turned); -inf for a model without classifier.
        embedding: float32 [N, D].
        features: stage name -> float16 [N, channels, rows, columns].
    """

    probabilities: npt.NDArray[np.float32]
    energy: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32]
    features: dict[str, npt.NDArray[np.float16]]
