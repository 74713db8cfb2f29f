"""The Triton kernel against the plain block: by Triton's interpreter, and compiled ahead for GPUs that are not there."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.checkout import ROOT
from tests.support.numerics import assert_as_exact
from trapline.model.architecture import Architecture
from trapline.model.blocks import attend
from trapline.model.gpu_blocks import Fusions, fuse
from trapline.model.hiera import Hiera

pytest.importorskip("triton", reason="torch comes without Triton here")

# Windows, tokens, channels, heads: as in the first two stages of Hiera-Base, and smaller, with a program half empty.
SHAPES = [(3, 64, 96, 1), (13, 16, 192, 2), (63, 4, 32, 2)]

# torch fills what is not initialised with NaN under deterministic algorithms.
_INTERPRETED = """
import sys, torch
from trapline.model.window_kernel import attend_windows
torch.use_deterministic_algorithms(True)
with torch.inference_mode():
    cases = torch.load(sys.argv[1], weights_only=False)
    torch.save([attend_windows(*case) for case in cases], sys.argv[2])
"""

_COMPILED = """
import sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from trapline.model.window_kernel import constants, window_kernel
capability, width, tokens, heads = map(int, sys.argv[1:])
constexprs = constants(width, tokens, heads)
options = {"num_warps": constexprs.pop("num_warps")}
types = dict.fromkeys(window_kernel.arg_names, "*bf16") | {"rows": "i32", "eps": "fp32"}
signature = types | dict.fromkeys(constexprs, "constexpr")
aligned = {(place,): [["tt.divisibility", 16]] for place in range(9)}
source = ASTSource(window_kernel, signature, constexprs, aligned)
kernel = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
product = "wgmma" if "wgmma" in kernel.asm["ptx"] else "mma.sync" if "mma.sync" in kernel.asm["ptx"] else "none"
print(len(kernel.asm["cubin"]), kernel.metadata.shared, product)
"""


def python(code: str, *arguments: str, **env: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout


def plain(x: Tensor, offset: Tensor | None, norm: Any, qkv: Any, proj: Any, heads: int) -> Tensor:
    x = x if offset is None else x + offset
    attended: Tensor = proj(attend(qkv(norm(x)), heads, pool=False, windowed=True))
    return x + attended


def case(shape: tuple[int, int, int, int], dtype: torch.dtype, with_offset: bool) -> tuple[Any, ...]:
    windows, tokens, width, heads = shape
    norm, qkv, proj = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 3 * width), nn.Linear(width, width)
    nn.init.normal_(norm.weight, 1, 0.2)
    nn.init.normal_(norm.bias, 0, 0.2)
    x = torch.randn(1, windows, tokens, width, dtype=dtype)
    offset = torch.randn(width, dtype=dtype) if with_offset else None
    return x, offset, *(layer.to(dtype).requires_grad_(False) for layer in (norm, qkv, proj)), heads


def test_interpreted_it_computes_the_first_half_of_a_block(tmp_path: Path) -> None:
    torch.manual_seed(0)
    types = (torch.float32, torch.float16)  # the interpreter multiplies bfloat16 as the integers that it is stored as
    cases = [case(shape, dtype, some) for shape in SHAPES for dtype in types for some in (False, True)]
    torch.save(cases, tmp_path / "in.pt")
    python(_INTERPRETED, str(tmp_path / "in.pt"), str(tmp_path / "out.pt"), TRITON_INTERPRET="1")
    for each, found in zip(cases, torch.load(tmp_path / "out.pt"), strict=True):
        x, offset, *layers, heads = each
        peer = plain(*each)
        exact = [layer.double() for layer in layers]
        truth = plain(x.double(), None if offset is None else offset.double(), *exact, heads)
        assert_as_exact(found, peer, truth, f"{list(x.shape)} in {x.dtype}")


@pytest.mark.slow
@pytest.mark.parametrize(("capability", "product"), [(90, "wgmma"), (89, "mma.sync")])
@pytest.mark.parametrize("shape", SHAPES[:2])
def test_it_compiles_for_gpus_with_tensor_cores(
    shape: tuple[int, int, int, int], capability: int, product: str, tmp_path: Path
) -> None:
    _, tokens, width, heads = shape
    said = python(_COMPILED, *map(str, (capability, width, tokens, heads)), TRITON_CACHE_DIR=str(tmp_path))
    size, shared, found = said.split()
    assert int(size) > 0
    assert found == product
    assert int(shared) <= {90: 227, 89: 99}[capability] * 1024  # of a program, at most


def test_it_stands_in_blocks_that_attend_within_windows_and_keep_their_width() -> None:
    network = Hiera(Architecture((2, 3, 2, 1), 16, 1, abs_win_pos_embed=True), 5, (64, 64)).eval()
    fused = fuse(network, Fusions(windows=True))
    assert [[block.whole for block in stage] for stage in fused.body] == [
        [True, True], [False, True, True], [False, False], [False],
    ]  # fmt: skip


@pytest.mark.gpu
def test_on_a_gpu_a_network_with_all_fusions_gives_the_answers_of_the_plain_one() -> None:
    torch.manual_seed(0)
    network = Hiera(Architecture((2, 3, 2, 1), 96, 1, abs_win_pos_embed=True), 7, (64, 64)).eval().to("cuda")
    network.requires_grad_(False)
    with torch.inference_mode():
        for count in (1, 2, 63, 64, 455):
            images = torch.randn(count, 3, 64, 64, device="cuda")
            truth = network.predict(images)
            half = network.to(torch.bfloat16)
            found = fuse(half, Fusions(True, True, True)).predict(images.bfloat16())
            network.float()
            assert torch.cosine_similarity(found.embedding.float(), truth.embedding).min() >= 0.99995
