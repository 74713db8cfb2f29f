"""Pictures are resized as torchvision resizes them, to the byte."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize as torchvisions_resize

from trapline.decoding.image_ops import resize


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(64, 64), (384, 384), (1, 300), (120, 160), (97, 211)])
@pytest.mark.parametrize("stored", [(120, 160), (97, 211), (1, 1), (1, 500), (500, 1)])
def test_pictures_are_resized_alike(
    stored: tuple[int, int], size: tuple[int, int], layout: torch.memory_format
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, *stored), dtype=np.uint8)
    picture = torch.from_numpy(pixels).contiguous(memory_format=layout)[0]
    resized = resize(picture, size)
    assert resized.is_contiguous()
    assert torch.equal(resized, torchvisions_resize(picture, list(size), InterpolationMode.BICUBIC, antialias=True))


def test_a_worker_starts_without_what_it_does_not_need() -> None:
    not_needed = {"torchvision", "torch._dynamo", "aiohttp", "cyclopts", "ray"}
    program = f"import sys, trapline.run.workers; print(*{not_needed} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_part_of_a_picture_is_resized_alike(layout: torch.memory_format) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (1, 3, 120, 160), dtype=np.uint8)
    part = torch.from_numpy(pixels).contiguous(memory_format=layout)[0][:, 7:90, 11:111]
    resized = resize(part, (64, 48))
    assert torch.equal(resized, torchvisions_resize(part, [64, 48], InterpolationMode.BICUBIC, antialias=True))
