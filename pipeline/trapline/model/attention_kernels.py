"""Which of torch's attention kernels a GPU uses, chosen for each place in a network.

`scaled_dot_product_attention` chooses by flags of the whole process, which other networks in it share. Called by name,
a kernel needs none of them, and stages with few long sequences can use another than stages with many short ones.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from trapline.model import blocks
from trapline.model.blocks import MaskUnitAttention

Name = Literal["flash", "cudnn"]


def _flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
    return out


def _cudnn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out: Tensor = torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, False)[0]
    return out


KERNELS: dict[Name, blocks.Kernel] = {"flash": _flash, "cudnn": _cudnn}


def choose_kernels(network: nn.Module, over_windows: Name | None, over_images: Name | None) -> None:
    """Set the kernels of a network.

    Args:
        network: whose attention, in bfloat16 or float16 on a GPU, is meant.
        over_windows: where tokens attend within their window; None leaves the choice to torch.
        over_images: where they attend to the whole image.
    """
    for module in network.modules():
        if isinstance(module, MaskUnitAttention):
            kernel = over_windows if module.windowed else over_images
            module.kernel = KERNELS[kernel] if kernel else None


def has_flash(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether flash attention runs there: NVIDIA's from Ampere on, in 16 bits."""
    return (
        device.type == "cuda"
        and torch.version.hip is None
        and dtype in (torch.bfloat16, torch.float16)
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )
