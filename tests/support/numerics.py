"""How near a result must be to another: judged by the truth, since a number that holds on one processor fails on the next.

The truth is birder's network in float64, on the same inputs. What a result may differ from it is measured, by birder's
own network in the precision of the result: both round, each in its own order.
"""

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from birder.common.fs_ops import load_model
from birder.net.base import BaseNet
from numpy.typing import NDArray
from torch import Tensor

from tests.support.archives import RGB_STATS
from trapline.model.predictions import Predictions

# Of the root mean square and of the largest error, how many times the peer's. Over draws of 64 images and three
# instruction sets the first was 0.9 to 1.5 times birder's for every part of the answer, the second up to 2.
TYPICAL = 2
LARGEST = 4
# Of fewer images chance decides, since the errors of one image's values move together (probabilities of 38 photographs: 2.2
# times, of 11 images up to 3.5 times): twice as much is allowed. So it is of fewer values than FEW.
FEW = 300
ULP = 4  # units in the last place of the result's type that are never held against it
ENOUGH = 64  # images


def assert_as_exact(found: Any, peer: Any, truth: Any, what: str = "result") -> None:
    """Check that a result is about as near to the truth as its peer.

    Args:
        found: array or tensor, in the type in which it is handed out; its units in the last place count.
        peer: the same by an independent computation of the same precision; rounded to the type of `found` first.
        truth: float64, of the same shape.
        what: for the message.

    Raises:
        AssertionError: it is further away.
    """
    found, peer, truth = (torch.as_tensor(each).detach().cpu() for each in (found, peer, truth))
    assert truth.dtype == torch.float64
    assert found.shape == peer.shape == truth.shape, f"{what}: {found.shape}, {peer.shape}, {truth.shape}"
    assert found.isfinite().all(), f"{what}: is not finite"
    ulp = ULP * torch.finfo(found.dtype).eps
    chance = 2 if truth.numel() < FEW or len(truth) < ENOUGH else 1
    errors, expected = (each.double() - truth for each in (found, peer.to(found.dtype)))
    for name, measure, times in (("typical", _rms, TYPICAL), ("largest", _largest, LARGEST)):
        error, allowed = measure(errors), max(chance * times * measure(expected), ulp * measure(truth))
        assert error <= allowed, (
            f"{what}: the {name} error is {error:.3g}, where {allowed:.3g} is what rounding explains"
        )


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _largest(values: Tensor) -> float:
    return float(values.abs().max())


def exact(network: BaseNet) -> BaseNet:
    """Return a float64 copy of a network of birder's."""
    return deepcopy(network).double()


@dataclass(frozen=True)
class Reference:
    """birder's answers to some images, by name: probabilities, energy, embedding, and the stages.

    Attributes:
        peer: in the precision of the result that is judged.
        truth: in float64.
    """

    peer: Mapping[str, Tensor]
    truth: Mapping[str, Tensor]

    def check(self, found: Predictions) -> None:
        """Check all that a predictor gave for the same images.

        Raises:
            AssertionError: some part is further from the truth than birder's own rounding explains.
        """
        parts = {name: getattr(found, name) for name in ("probabilities", "energy", "embedding")} | found.features
        assert parts.keys() == self.truth.keys()
        for name, values in parts.items():
            assert_as_exact(values, self.peer[name], self.truth[name], name)


def birders(model: Path, pixels: NDArray[np.uint8], stages: Collection[str] = (), precision: str = "fp32") -> Reference:
    """Return what birder itself makes of pixels.

    Args:
        model: a checkpoint that `tests.support.archives` wrote.
        pixels: uint8 [N, 3, H, W], better `ENOUGH` than few.
        stages: feature maps to compare.
        precision: of the peer: "fp32", or "bf16" by autocast.
    """
    network, info = load_model(torch.device("cpu"), model.stem.rpartition("_")[0], path=model, inference=True)
    assert info.rgb_stats == RGB_STATS
    with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
        peer = _answers(network, _normalised(pixels, torch.float32), stages)
    return Reference(peer, _answers(exact(network), _normalised(pixels, torch.float64), stages))


@torch.inference_mode()
def _answers(network: BaseNet, images: Tensor, stages: Collection[str]) -> dict[str, Tensor]:
    embedding = network.embedding(images)
    logits = network.classify(embedding).to(max(images.dtype, torch.float32, key=lambda dtype: dtype.itemsize))
    maps = network.detection_features(images) if stages else {}
    answers = {"probabilities": logits.softmax(dim=1), "energy": logits.logsumexp(dim=1), "embedding": embedding}
    return answers | {stage: maps[stage] for stage in stages}


def _normalised(pixels: NDArray[np.uint8], dtype: torch.dtype) -> Tensor:
    mean, std = (torch.tensor(RGB_STATS[name], dtype=dtype).view(3, 1, 1) for name in ("mean", "std"))
    return (torch.from_numpy(pixels).to(dtype) / 255 - mean) / std


def smooth_pixels(count: int = ENOUGH, seed: int = 0) -> NDArray[np.uint8]:
    """Return pictures uint8 [N, 3, 64, 64] in squares of one colour, which differ as photographs do."""
    squares = np.random.default_rng(seed).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
    return squares.repeat(8, axis=2).repeat(8, axis=3)


def assert_same_images(found: Predictions, expected: Predictions) -> None:
    """Check that predictions are about the same images in the same order: none lost, doubled or exchanged.

    Rounding moves an embedding by some millionth of what lies between two images; a thousandth is allowed.

    Raises:
        AssertionError: a row is not where its image was.
    """
    assert found.features.keys() == expected.features.keys()
    pairs = [
        (found.embedding, expected.embedding),
        *((found.features[s], expected.features[s]) for s in found.features),
    ]
    for ours, theirs in pairs:
        rows, others = (torch.from_numpy(np.asarray(each, np.float64)).flatten(1) for each in (ours, theirs))
        assert rows.shape == others.shape
        distances = torch.cdist(rows, others)
        apart = distances.clone().fill_diagonal_(torch.inf).min()
        assert distances.diagonal().max() < 1e-3 * apart
