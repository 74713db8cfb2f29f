"""In which precision a model computes: what is asked for, or what the processor is best at."""

from typing import Literal

import torch

from trapline.config import Precision
from trapline.errors import UsageError
from trapline.model import cpu_kernels
from trapline.model.checkpoint import Model

Computed = Literal["fp32", "bf16", "checked"]
"""A precision that is decided; `checked` is bf16, and fp32 where bf16 leaves the class in doubt."""


def resolve_precision(
    precision: Precision, device: Literal["cpu", "cuda"], model: Model, *, archive: bool = False
) -> Computed:
    """Return the precision that `auto` means for a model on a device, or the one that was asked for.

    On a GPU it is bf16. On a CPU it is `checked` for an archive, where that is faster; else fp32.

    Args:
        precision: that was asked for.
        device: where inference runs.
        model: the checkpoint.
        archive: whether so many images are to come that to measure a bound pays: it takes as long as some 30 images.

    Raises:
        UsageError: `checked`, and the model has not two classes between which there could be doubt.
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
    """Return whether the hardware multiplies in bf16, as every GPU since 2020; emulated, it is far slower than fp32.

    Of CPUs, those with AVX512-BF16 or AMX, whose tiles all take bf16; torch's build must have oneDNN to use them.
    """
    if device == "cuda":
        return True
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return native and cpu_kernels.available()
