"""Tensors become predictions: one model on one device, which takes uint8 pixels."""

import warnings
from collections.abc import Callable, Sequence
from itertools import chain
from math import ceil
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trapline.errors import FatalError, UsageError
from trapline.model import cpu_kernels
from trapline.model.architecture import PATCH, WINDOW
from trapline.model.attention_kernels import choose_kernels, has_flash
from trapline.model.checkpoint import Model
from trapline.model.cpu_threads import CpuThreads
from trapline.model.device_errors import is_device_out_of_memory
from trapline.model.gpu import MOST_WINDOWS, Gpu
from trapline.model.hiera import Hiera, Output
from trapline.model.predictions import Predictions

# Images per batch by default. A batch of 8 keeps four threads of a CPU busy; the activations of an image take 60 MB.
# The host's work for a chunk (copies, Python, Ray) takes 16 ms for 64 images, as long as a fast GPU takes for them, but
# 39 for 256.
DEFAULT_BATCH = {"cuda": 256, "cpu": 8}

# Images in one pass on a CPU. The allocator returns blocks over 32 MB to the system after each pass, which must clear
# them again: in float32, 2 images at a time are 5 % faster than 4 (384 pixels, Hiera-Base).
_CPU_PASS = 2

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Predictor:
    """A model on a device; several threads may call it.

    Args:
        model: the checkpoint; its network is moved and cast.
        device: "cpu" or "cuda".
        precision: "fp32", or "bf16" for weights and activations of the blocks, and on a GPU of the stem.
        batch_size: the most images in one pass; halved permanently when the device runs out of memory.
        stages: feature maps to return.
        note: receives warnings for the user.
        threads: that compute on a CPU, a pass each; default: as many as torch is set to use.

    Raises:
        UsageError: torch finds no such device.
    """

    def __init__(
        self,
        model: Model,
        device: Literal["cpu", "cuda"],
        precision: Literal["fp32", "bf16"],
        batch_size: int,
        stages: Sequence[str] = (),
        note: Callable[[str], object] = warnings.warn,
        threads: CpuThreads | None = None,
    ) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise UsageError("device cuda: torch finds no GPU here; choose --device cpu or a machine with a GPU")
        self.device = torch.device(device)
        self.dtype = _DTYPES[precision]
        windows = model.size[0] * model.size[1] // (PATCH * WINDOW) ** 2
        self.batch_size = min(batch_size, _CPU_PASS if device == "cpu" else max(1, MOST_WINDOWS // windows))
        self._threads = CpuThreads(1) if device == "cuda" else threads or CpuThreads()
        self.stages = tuple(stages)
        # TF32 would silently round the stem's products to 10 bits.
        torch.backends.cudnn.allow_tf32 = False
        self.network: Hiera = model.network.to(self.device).eval()
        self._cast()
        # By default torch's choice of the attention kernel depends on the GPU and on the version.
        if has_flash(self.device, self.dtype):
            choose_kernels(self.network, "flash", "flash")
        if device == "cpu" and cpu_kernels.available():
            self.network = cpu_kernels.fuse(self.network)
        self.mean = torch.tensor(model.rgb_mean, device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(model.rgb_std, device=self.device).view(1, 3, 1, 1)
        # None: the network's own. (Not that function itself: a cycle would keep the weights until Python collects it.)
        self.stem: Callable[[Tensor], Tensor] | None = None
        self.gpu = Gpu(self.answer, self.device, note) if device == "cuda" else None

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Predictions:
        """Predict for pixels uint8 [N, 3, H, W], N at least 1.

        Raises:
            FatalError: the device has no memory for even one image.
        """
        logits, embedding, features = self.outputs(pixels)
        return Predictions(
            probabilities=logits.softmax(dim=1).numpy(),
            energy=logits.logsumexp(dim=1).numpy(),
            embedding=embedding.numpy(),
            features={stage: map_.numpy() for stage, map_ in features.items()},
            in_bf16=np.full(len(pixels), True) if self.dtype == torch.bfloat16 else None,
        )

    def outputs(self, pixels: npt.NDArray[np.uint8]) -> Output:
        """Return logits, embeddings and features for pixels uint8 [N, 3, H, W], in the host's memory.

        Raises:
            FatalError: the device has no memory for even one image.
        """
        parts = self._parts(torch.from_numpy(pixels))
        outputs = list(chain.from_iterable(self._threads.map(self._passes, parts)))
        return Output(
            torch.cat([output.logits for output in outputs]),
            torch.cat([output.embedding for output in outputs]),
            {stage: torch.cat([output.features[stage] for output in outputs]) for stage in self.stages},
        )

    def answer(self, pixels: Tensor) -> Output:
        """Return logits and embedding (float32) and features (float16) of one pass over pixels on the device."""
        logits, embedding, features = self.network.predict_tokens((self.stem or self._tokens)(pixels), self.stages)
        return Output(logits.float(), embedding.float(), {stage: map_.half() for stage, map_ in features.items()})

    def _tokens(self, pixels: Tensor) -> Tensor:
        """Return the network's tokens of pixels on the device."""
        floats = pixels.to(torch.float32, memory_format=self._layout)
        images = floats.div_(255).sub_(self.mean).div_(self.std)
        return self.network.tokens(images.to(self.network.get_parameter("stem.proj.weight").dtype))

    def _cast(self) -> None:
        """Cast the blocks to the precision, and on a GPU the stem; never the last norm and the classifier.

        On a CPU, a stem in fp32 takes 0.2 % of a pass more than one in bf16 (Hiera-Base at 384 pixels, Zen 4). In bf16,
        the stem rounds more than any other layer: the pixels, which have as many levels as bf16, and its weights. With
        stem and classifier in fp32, the errors of the logits are 0.64 to 0.81 of what they are with both in bf16 (four
        small trained networks).
        """
        self.network.body.to(self.dtype)
        self._layout = torch.preserve_format
        if self.device.type == "cpu":
            self._layout = torch.channels_last  # for four images, 11 ms of a core against 29
            self.network.stem.to(memory_format=self._layout)
        else:
            self.network.stem.to(self.dtype)

    def _parts(self, pixels: Tensor) -> Sequence[Tensor]:
        """Return parts for the threads of a CPU; a single one if the calling thread is to compute it."""
        threads = self._threads.count
        if threads == 1 or (len(pixels) < threads and self._threads.few_are_divided):
            return [pixels]
        return torch.split(pixels, min(self.batch_size, ceil(len(pixels) / threads)))

    def _passes(self, pixels: Tensor) -> list[Output]:
        outputs: list[Output] = []
        start = 0
        while start < len(pixels):
            size = self._pass_size(len(pixels) - start)
            batch = pixels[start : start + size]
            try:
                output = self._pass(batch, size)
            except RuntimeError as error:
                if not is_device_out_of_memory(error):
                    raise
                if size == 1:
                    raise FatalError(
                        f"device {self.device}: out of memory with a single image; free some or use another"
                    ) from error
                output = None
            # Not in the `except`: its traceback would keep the activations in memory.
            if output is None:
                self.batch_size = min(self.batch_size, size // 2)  # another thread may have halved it, too
                if self.gpu:
                    torch.cuda.empty_cache()
            else:
                start += len(batch)
                outputs.append(output)
        return outputs

    @torch.inference_mode()
    def _pass(self, pixels: Tensor, size: int) -> Output:
        if self.gpu is None:
            return self.answer(pixels)
        return self.gpu(pixels, size)

    def _pass_size(self, left: int) -> int:
        """Return the number of images of the next pass.

        A GPU's passes are padded to one of two sizes, the batch and a quarter of it, because each size is compiled
        separately, and torch compiles at most eight. A pass of 64 images is hardly slower per image than one of 256.
        """
        quarter = max(1, self.batch_size // 4)
        return quarter if self.gpu and left <= 3 * quarter else self.batch_size
