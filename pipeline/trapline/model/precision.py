"""Decide the precision in which a model computes: the one asked for, or the best for the processor."""

from typing import Literal

import torch

from trapline.choices import Precision
from trapline.errors import UsageError
from trapline.model import cpu_kernels
from trapline.model.checkpoint import Model

Computed = Literal["fp32", "bf16", "checked"]
"""A precision once `auto` is resolved; `checked` is bf16, and fp32 where bf16 leaves the class in doubt."""


def resolve_precision(
    precision: Precision, device: Literal["cpu", "cuda"], model: Model, *, archive: bool = False
) -> Computed:
    """Return the precision that `auto` means for a model on a device, or the one that was asked for.

    `auto` is bf16 on a GPU. On a CPU it is `checked` for an archive, if that is faster; else fp32.

    Args:
        precision: the one asked for.
        device: where inference runs.
        model: the checkpoint.
        archive: whether there are enough images for a bound to pay; measuring it takes as long as some 30 images.

    Raises:
        UsageError: `checked` was asked for, and the model has fewer than two classes.
    """
    comparable = len(model.classes) >= 2
    if precision == "checked" and not comparable:
        raise UsageError(f"--precision checked: {model.source} has no classes to be checked; choose fp32 or bf16")
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16"
    return "checked" if archive and comparable and multiplies_in_bf16(device) else "fp32"


def multiplies_in_bf16(device: Literal["cpu", "cuda"]) -> bool:
    """Return whether the hardware multiplies in bf16; if bf16 is emulated, it is far slower than fp32.

    GPUs do since 2020. CPUs do with AVX512-BF16 or AMX, if torch is built with oneDNN.
    """
    if device == "cuda":
        return True
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return native and cpu_kernels.available()
