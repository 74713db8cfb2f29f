"""The parts of the network one by one, in every way that torch has for them; and what the device does at most."""

import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from jobs.benchmark.contenders import Device
from trapline.errors import in_one_line
from trapline.model.architecture import Architecture

Figures = dict[str, str | float | int]
"""One row of a table, by heading."""

_SDPA = {
    "flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION, "math": SDPBackend.MATH,
}  # fmt: skip


SECONDS = 0.2  # that each way is measured for, at least


def seconds(work: Callable[[], object], device: Device) -> float:
    """Return the median time of a call, in seconds: of the device alone, on a GPU."""
    work()
    taken: list[float] = []
    until = perf_counter() + SECONDS
    while len(taken) < 3 or (perf_counter() < until and len(taken) < 200):
        if device == "cuda":
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            before.record()
            work()
            after.record()
            after.synchronize()
            taken.append(before.elapsed_time(after) / 1e3)
        else:
            started = perf_counter()
            work()
            taken.append(perf_counter() - started)
    return median(taken)


def tried(row: Figures, work: Callable[[], object], device: Device, **rates: Callable[[float], float]) -> Figures:
    """Return the row with the time in µs and what follows from it; or with why there is none."""
    try:
        with torch.inference_mode():
            taken = seconds(work, device)
    except Exception as error:  # noqa: BLE001 - the others go on
        return row | {"trouble": in_one_line(error)}
    return row | {"µs": 1e6 * taken} | {name: rate(taken) for name, rate in rates.items()}


def about_the_gpu() -> str:
    """Return what nvidia-smi says; why it says nothing, where it does not."""
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit", "--format=csv"]
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"nvidia-smi: {in_one_line(error)}"


def peaks(device: Device, side: int) -> Iterator[Figures]:
    """Yield the rates of large products and copies.

    Args:
        device: where.
        side: of the matrices; a copy moves side² x 16 bytes.
    """
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    tflops = {"TFLOP/s": lambda taken: 2 * side**3 / taken / 1e12}
    yield tried({"peak": "product, bf16"}, lambda: a @ b, device, **tflops)
    one, f8 = torch.ones((), device=device), torch.float8_e4m3fn
    eight, transposed = a.to(f8), b.to(f8).t().contiguous().t()
    product = partial(torch._scaled_mm, eight, transposed, one, one, out_dtype=torch.bfloat16)
    yield tried({"peak": "product, fp8"}, product, device, **tflops)

    there = torch.empty(16 * side**2, dtype=torch.uint8, device=device)
    other, here = torch.empty_like(there), torch.empty(there.shape, dtype=torch.uint8, pin_memory=device == "cuda")
    size = there.numel()
    twice, once = ({"GB/s": lambda taken, times=times: times * size / taken / 1e9} for times in (2, 1))
    yield tried({"peak": "copy on the device"}, lambda: other.copy_(there), device, **twice)
    yield tried({"peak": "copy to the device"}, lambda: there.copy_(here, non_blocking=True), device, **once)
    yield tried({"peak": "copy from the device"}, lambda: here.copy_(there, non_blocking=True), device, **once)


def attention_shapes(architecture: Architecture, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """Return sequences per image, heads, queries and keys of each different attention in a network."""
    tokens, found = size[0] * size[1] // 16, []
    for stage, depth in enumerate(architecture.depths):
        heads = architecture.num_heads << stage
        pooled = 0 < stage <= architecture.q_pool
        window = 64 >> (2 * min(max(stage - 1, 0), architecture.q_pool))
        for first in (True, False)[: min(depth, 2)]:
            left = tokens >> (2 * min(stage, architecture.q_pool))
            keys_left = 4 * left if pooled and first else left
            windowed = stage <= 2 if first else stage < 2
            after = 64 >> (2 * min(stage, architecture.q_pool))
            queries = after if windowed else left
            keys = (window if first else after) if windowed else keys_left
            found.append((left // queries, heads, queries, keys))
    return list(dict.fromkeys(found))


def attention(device: Device, architecture: Architecture, size: tuple[int, int], batch: int) -> Iterator[Figures]:
    """Yield the time of each attention in the network, by each of torch's kernels and by plain products."""
    width = architecture.embed_dim // architecture.num_heads
    for sequences, heads, queries, keys in attention_shapes(architecture, size):
        count = batch * sequences
        q = torch.randn(count, queries, heads, width, device=device, dtype=torch.bfloat16).transpose(1, 2)
        k, v = (torch.randn(count, keys, heads, width, device=device, dtype=q.dtype).transpose(1, 2) for _ in range(2))
        row: Figures = {"batch": batch, "sequences": count, "heads": heads, "queries": queries, "keys": keys}
        moved = 2 * (2 * q.numel() + k.numel() + v.numel())
        rates = {"GB/s": lambda taken, moved=moved: moved / taken / 1e9}
        for name, backend in _SDPA.items():
            yield tried(row | {"kernel": name}, partial(_sdpa, backend, q, k, v), device, **rates)
        yield tried(row | {"kernel": "bmm"}, partial(_by_products, q, k, v), device, **rates)


def _sdpa(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v)


def _by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores: Tensor = q @ k.mT * q.shape[-1] ** -0.5
    likely: Tensor = scores.softmax(dim=-1)
    return likely @ v


def stem(device: Device, width: int, size: tuple[int, int], batch: int) -> Iterator[Figures]:
    """Yield the time of the first convolution, by the layout of its input, and as a product of patches."""
    images = torch.randn(batch, 3, *size, device=device, dtype=torch.bfloat16)
    kernel = torch.randn(width, 3, 7, 7, device=device, dtype=torch.bfloat16)
    last = {"memory_format": torch.channels_last}
    convolve = partial(F.conv2d, stride=4, padding=3)
    ways: dict[str, Callable[[], Any]] = {
        "NCHW": partial(convolve, images, kernel),
        "channels last": partial(convolve, images.to(**last), kernel.to(**last)),  # type: ignore[call-overload]
        "unfold": lambda: kernel.flatten(1) @ F.unfold(images, 7, padding=3, stride=4),
    }
    for name, work in ways.items():
        yield tried({"batch": batch, "stem": name}, work, device)


def gelu(device: Device, width: int, tokens: int, batch: int) -> Iterator[Figures]:
    """Yield the time of each stage's first product of the MLP: with a GELU behind it, and with one in its epilogue."""
    for stage in range(4):
        rows, inner = batch * tokens >> (2 * stage), width << stage
        x = torch.randn(rows, inner, device=device, dtype=torch.bfloat16)
        weight = torch.randn(4 * inner, inner, device=device, dtype=x.dtype)
        bias = torch.randn(4 * inner, device=device, dtype=x.dtype)
        row: Figures = {"batch": batch, "rows": rows, "width": inner}
        rates = {"TFLOP/s": lambda taken, flops=8 * rows * inner**2: flops / taken / 1e12}
        ways: dict[str, Callable[[], Tensor]] = {
            "addmm": partial(torch.addmm, bias, x, weight.t()),
            "addmm, then GELU": partial(_then_gelu, bias, x, weight.t()),
            "GELU in the epilogue": partial(torch._addmm_activation, bias, x, weight.t(), use_gelu=True),
        }
        for name, work in ways.items():
            yield tried(row | {"way": name}, work, device, **rates)


def _then_gelu(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return F.gelu(torch.addmm(bias, x, weight))
