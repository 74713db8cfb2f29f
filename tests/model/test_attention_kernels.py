"""Each place in a network has the kernel that was chosen for it. The kernels themselves run on a GPU only."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trapline.model import attention_kernels
from trapline.model.architecture import Architecture
from trapline.model.attention_kernels import choose_kernels, has_flash
from trapline.model.hiera import Hiera


def test_windows_and_images_have_each_their_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = Hiera(Architecture((1, 2, 2, 1), 16, 1, abs_win_pos_embed=True), 5, (64, 64)).eval()
    images, calls = torch.randn(2, 3, 64, 64), []

    def kernel(name: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        calls.append((name, k.shape[2]))
        return F.scaled_dot_product_attention(q, k, v)

    for name in attention_kernels.KERNELS:
        monkeypatch.setitem(attention_kernels.KERNELS, name, lambda q, k, v, name=name: kernel(name, q, k, v))
    with torch.no_grad():
        expected = network(images)
        choose_kernels(network, "flash", "cudnn")
        assert torch.equal(network(images), expected)
        # By the tokens that are attended to: those of windows, before a pooling and after it, then those of the image.
        assert calls == [("flash", 64)] * 2 + [("flash", 16)] * 2 + [("cudnn", 16)] * 2
        calls.clear()
        choose_kernels(network, "flash", None)
        assert torch.equal(network(images), expected)
    assert {name for name, _ in calls} == {"flash"}


def test_flash_is_for_gpus_in_16_bits() -> None:
    assert not has_flash(torch.device("cpu"), torch.bfloat16)
    assert not has_flash(torch.device("cuda"), torch.float32)
