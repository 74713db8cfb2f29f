"""The arrays that a model returns for a batch of images."""

from collections.abc import Sequence
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
        in_bf16: bool [N], which images were computed in bfloat16, the others in float32; None if all in float32.
    """

    probabilities: npt.NDArray[np.float32]
    energy: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32]
    features: dict[str, npt.NDArray[np.float16]]
    in_bf16: npt.NDArray[np.bool_] | None = None


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Return the predictions of several batches, at least one, in their order."""
    in_bf16 = [np.zeros(len(part.energy), bool) if part.in_bf16 is None else part.in_bf16 for part in parts]
    return Predictions(
        probabilities=np.concatenate([part.probabilities for part in parts]),
        energy=np.concatenate([part.energy for part in parts]),
        embedding=np.concatenate([part.embedding for part in parts]),
        features={stage: np.concatenate([part.features[stage] for part in parts]) for stage in parts[0].features},
        in_bf16=np.concatenate(in_bf16) if any(each.any() for each in in_bf16) else None,
    )
