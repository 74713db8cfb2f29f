"""The networks that `benchmark model` compares: birder's and Trapline's, with the same weights, each used at its best.

birder's networks get normalised images; Trapline's get uint8 pixels, as in a run. On a GPU all images are in its
memory, except "from the host": two threads copy these, as in a run.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trapline.model.architecture import VARIANTS
from trapline.model.checked import CheckedPredictor
from trapline.model.checkpoint import Model
from trapline.model.hiera import Output
from trapline.model.lazy_compile import Compiled
from trapline.model.predict import Predictor
from trapline.model.rounding import measure_bound

Pixels = npt.NDArray[np.uint8]
Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16"]
Answers = tuple[Tensor, Tensor]
"""Probabilities [N, C] and embeddings [N, D], on any device."""
On = Callable[[Pixels], Callable[[], Answers]]
"""Pixels uint8 [N, 3, H, W] to work on them, which may be done again and again."""


_TUNED = "max-autotune-no-cudagraphs"


@dataclass(frozen=True)
class Contender:
    """A network that is ready to be measured.

    Attributes:
        precision: in which it multiplies.
        on: takes pixels, and returns a function that predicts them.
        threads: number of threads that call that function at the same time.
    """

    precision: Precision
    on: On
    threads: int = 1


def contenders(
    model: Model, device: Device, precisions: Sequence[Precision], size: int, compiled: bool, tuned: bool = False
) -> dict[str, Callable[[], Contender]]:
    """Return functions that make the contenders, by name, birder's in float32 first.

    Args:
        model: whose weights they have.
        device: where they compute.
        precisions: of Trapline's networks.
        size: of a batch.
        compiled: whether networks compiled by `torch.compile` are among them.
        tuned: whether Trapline's is also compiled with kernels that torch tries out.
    """
    found: dict[str, Callable[[], Contender]] = {}
    if find_spec("birder") and VARIANTS.get(model.variant) == model.architecture:
        birder = partial(_birder, model, device)
        found = {"birder fp32": partial(birder, "fp32"), "birder bf16 autocast": partial(birder, "bf16")}
        if compiled:
            found["birder bf16 autocast compiled"] = partial(birder, "bf16", compiled=True)
    network = partial(_from_host if device == "cpu" else _there, model, device, size)
    found |= {f"trapline {precision}": partial(network, precision) for precision in precisions}
    if "bf16" in precisions and len(model.classes) >= 2:
        found["trapline checked"] = partial(_checked, model, device, size)
    if device == "cuda":
        fed = partial(_from_host, model, device, size, "bf16")
        found["trapline bf16, from the host"] = fed
        if compiled:
            found |= {
                "trapline bf16 compiled": partial(network, "bf16", compiled=True),
                "trapline bf16 compiled, from the host": partial(fed, compiled=True),
            }
        if tuned:
            found["trapline bf16 compiled, tuned"] = partial(network, "bf16", compiled=True, mode=_TUNED)
    return found


def normalised(model: Model, pixels: Pixels) -> Tensor:
    """Return pixels as birder's networks get them."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (model.rgb_mean, model.rgb_std))
    return (torch.from_numpy(pixels).float().div_(255) - mean).div_(std)


def _birder(model: Model, device: Device, precision: Precision, compiled: bool = False) -> Contender:
    from birder.inference.classification import infer_batch
    from birder.model_registry import registry

    network: Any = registry.net_factory(model.variant, len(model.classes), 3, size=model.size).eval()
    network.load_state_dict(model.network.state_dict())
    network.to(device)
    if compiled:
        network.embedding = torch.compile(network.embedding)  # as `birder-predict --compile` does it

    def on(pixels: Pixels) -> Callable[[], Answers]:
        images = normalised(model, pixels).to(device)

        def predict() -> Answers:
            with torch.inference_mode(), torch.amp.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
                probabilities, embedding = infer_batch(network, images, return_embedding=True)
            return torch.from_numpy(probabilities), torch.from_numpy(embedding)

        return predict

    return Contender(precision, on)


def _there(
    model: Model, device: Device, size: int, precision: Precision, compiled: bool = False, mode: str | None = None
) -> Contender:
    """Return Trapline's network, for pixels in the device's memory."""
    predictor = _predictor(model, device, size, precision)
    network = Compiled(predictor.answer, _refuse, mode)
    if compiled:
        _compile(network, predictor, size)

    def on(pixels: Pixels) -> Callable[[], Answers]:
        with torch.inference_mode():
            images = torch.from_numpy(pixels).to(device)

        @torch.inference_mode()
        def predict() -> Answers:
            output = network(images)
            return output.logits.softmax(1), output.embedding

        return predict

    return Contender(precision, on)


def _from_host(model: Model, device: Device, size: int, precision: Precision, compiled: bool = False) -> Contender:
    """Return Trapline's network as in a run: pixels and answers are in the host's memory."""
    predictor = _predictor(model, device, size, precision)
    if compiled and predictor.gpu:
        _compile(predictor.gpu.answer, predictor, size)

    def on(pixels: Pixels) -> Callable[[], Answers]:
        def predict() -> Answers:
            predictions = predictor(pixels)
            if predictor.gpu and predictor.batch_size < size:
                raise torch.OutOfMemoryError
            return torch.from_numpy(predictions.probabilities), torch.from_numpy(predictions.embedding)

        return predict

    return Contender(precision, on, threads=2 if predictor.gpu else 1)


def _checked(model: Model, device: Device, size: int) -> Contender:
    """Return Trapline's network in the precision `checked`, for pixels in the host's memory."""
    predictor = CheckedPredictor(copy.deepcopy(model), device, measure_bound(model), size, note=_refuse)

    def on(pixels: Pixels) -> Callable[[], Answers]:
        def predict() -> Answers:
            predictions = predictor(pixels)
            return torch.from_numpy(predictions.probabilities), torch.from_numpy(predictions.embedding)

        return predict

    return Contender("bf16", on, threads=2 if predictor.gpu else 1)


def _predictor(model: Model, device: Device, size: int, precision: Precision) -> Predictor:
    return Predictor(copy.deepcopy(model), device, precision, size, note=_refuse)


@torch.inference_mode()
def _compile(network: Compiled[Output], predictor: Predictor, size: int) -> None:
    network.compile(torch.zeros(size, 3, *predictor.network.size, dtype=torch.uint8, device=predictor.device))


def _refuse(note: str) -> None:
    raise RuntimeError(note)
