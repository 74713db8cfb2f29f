"""What a GPU must tell first, in four steps of less than ten minutes each; Ray is needed for the fourth only.

Whatever has been measured is in the figures at any moment, and what the time of a step does not suffice for says so.
"""

import copy
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter

import numpy as np
import torch
from rich.console import Console
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from jobs.benchmark import gpu_kernels
from jobs.benchmark.contenders import Device, Pixels, Precision
from jobs.benchmark.gpu_kernels import Figures
from jobs.benchmark.model import gflop_per_image, measure
from jobs.benchmark.roofline import Peaks, microseconds_per_image
from trapline.errors import in_one_line
from trapline.model.attention_kernels import choose_kernels
from trapline.model.checkpoint import Model
from trapline.model.gpu_blocks import Fusions, fuse
from trapline.model.predict import Predictor

_CHECKOUT = Path(__file__).parents[2]

# Kinds of kernels by what stands in their names, the first that fits; the rest are pointwise.
_KINDS = {
    "attention": ("flash", "fmha", "attention", "cudnn_sdp"),
    "stem": ("conv", "dgrad", "nchw", "nhwc"),
    "product": ("gemm", "nvjet", "cutlass", "xmma", "mm", "linear"),
    "copy": ("memcpy", "memset", "copy"),
    "GELU": ("gelu",),
    "normalise, add": ("layer_norm", "add", "triton"),
}


Change = Callable[[Predictor], None]


def _fused(**fusions: bool) -> Change:
    def change(predictor: Predictor) -> None:
        predictor.network = fuse(predictor.network, Fusions(**fusions))

    return change


def _with_cudnn(predictor: Predictor) -> None:
    choose_kernels(predictor.network, "flash", "cudnn")


def _with_stem(predictor: Predictor) -> None:
    # Triton comes with torch's builds for GPUs only.
    from trapline.model.stem_kernel import PixelStem

    predictor.stem = PixelStem(predictor.network, predictor.mean, predictor.std)


def _with_all(predictor: Predictor) -> None:
    _with_cudnn(predictor)
    _with_stem(predictor)
    _fused(gelu=True, residual=True, windows=True, mlp=True)(predictor)


# What may make ours faster, and is off until it has been measured.
_CHANGES: dict[str, Change] = {
    "GELU in the product": _fused(gelu=True),
    "GELU and residual in the product": _fused(gelu=True, residual=True),
    "cuDNN over images": _with_cudnn,
    "stem as one kernel": _with_stem,
    "windows as one kernel": _fused(windows=True),
    "early MLPs as one kernel": _fused(mlp=True),
    "early MLPs as one kernel, tanh": _fused(gelu=True, mlp=True),
    "all of it": _with_all,
}


@dataclass(frozen=True)
class Scope:
    """How much is measured.

    Attributes:
        device: where; a CPU shows only that the steps work.
        model: the network.
        batches: two sizes, of which the first is also that of the comparison with birder.
        all_batches: sizes of our network alone.
        side: of the matrices that peaks are measured with.
        photographs: images of the runs of step 4.
        photograph_size: their width and height in pixels.
        compiled: whether compiled networks are among them.
        rounds: of the comparison with birder.
        minutes: that a step takes at most, roughly: it begins nothing more after them.
    """

    device: Device
    model: Model
    batches: tuple[int, int] = (64, 256)
    all_batches: tuple[int, ...] = (16, 32, 64, 128, 256, 455)
    side: int = 8192
    photographs: int = 4096
    photograph_size: tuple[int, int] = (2048, 1536)
    compiled: bool = True
    rounds: int = 3
    minutes: float = 8.0

    @property
    def precision(self) -> Precision:
        """Return what ours computes in: bf16 on a GPU."""
        return "bf16" if self.device == "cuda" else "fp32"


Tables = dict[str, list[Figures]]
Part = tuple[str, Callable[[], Iterable[Figures]]]
"""The title of a table, and its rows as they are measured."""


def run_step(console: Console, scope: Scope, step: int, keep: Callable[[Tables], None]) -> Tables:
    """Run a step.

    Args:
        console: shows what is going on.
        scope: how much is measured.
        step: 1 to 4.
        keep: receives all tables after each new row.

    Returns:
        The rows of each table.
    """
    until = monotonic() + 60 * scope.minutes
    tables: Tables = {}
    for title, measured in _STEPS[step](scope):
        rows = tables.setdefault(title, [])
        if monotonic() > until:
            rows.append({"trouble": f"not measured: the {scope.minutes:g} minutes of this step are over"})
            continue
        with console.status(title):
            try:
                for row in measured():
                    rows.append(row)
                    keep(tables)
            except Exception as error:  # noqa: BLE001 - the other tables go on
                rows.append({"trouble": in_one_line(error)})
        keep(tables)
    return tables


def _parts_of_the_network(scope: Scope) -> Iterator[Part]:
    device, model = scope.device, scope.model
    width, tokens = model.architecture.embed_dim, model.size[0] * model.size[1] // 16
    yield "GPU", lambda: [{"nvidia-smi": gpu_kernels.about_the_gpu()}]
    yield "Peaks", partial(gpu_kernels.peaks, device, scope.side)
    if device == "cuda":
        yield "Tests that need a GPU", partial(_tests, scope)
    for batch in scope.batches:
        yield f"GELU, {batch}", partial(gpu_kernels.gelu, device, width, tokens, batch)
        yield f"Attention, {batch}", partial(gpu_kernels.attention, device, model.architecture, model.size, batch)
        yield f"Stem, {batch}", partial(gpu_kernels.stem, device, width, model.size, batch)


def _tests(scope: Scope) -> Iterator[Figures]:
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-n", "0", "-p", "no:cacheprovider", "tests"]
    started = perf_counter()
    try:
        done = subprocess.run(command, cwd=_CHECKOUT, capture_output=True, text=True, timeout=60 * scope.minutes)
        said = done.stdout[-3000:] + done.stderr[-1000:]
        yield {"exit code": done.returncode, "seconds": perf_counter() - started, "output": said}
    except subprocess.TimeoutExpired as error:
        yield {"trouble": f"the tests took longer than {error.timeout:.0f} s"}


def _networks(scope: Scope) -> Iterator[Part]:
    yield f"Networks, batches of {scope.batches[0]}", partial(_beside_birder, scope)
    for size in scope.all_batches:
        for compiled in (False, True)[: 1 + scope.compiled]:
            name = f"trapline {scope.precision}{' compiled' if compiled else ''}"
            yield "Ours alone", partial(_ours, scope, name, size, compiled)
    for name, change in _CHANGES.items() if scope.device == "cuda" else ():  # a CPU has blocks of its own
        for size in scope.batches:
            yield "Ours, changed", partial(_ours, scope, name, size, scope.compiled, change)


def _beside_birder(scope: Scope) -> list[Figures]:
    quiet = Console(quiet=True)
    rows, _ = measure(quiet, scope.model, None, scope.device, scope.batches[:1], scope.rounds, scope.compiled)
    figures = []
    for row in rows:
        values = asdict(row) | {"times_birder": str(row.times_birder or "")}
        figures.append({name: value for name, value in values.items() if value is not None})
    return figures


def _ours(scope: Scope, name: str, size: int, compiled: bool, change: Change | None = None) -> Iterator[Figures]:
    started = perf_counter()
    network, images = _ready(scope, size, compiled, change)
    first = perf_counter() - started
    rates = {
        "images/s": lambda taken: size / taken,
        "TFLOP/s": lambda taken: size * gflop_per_image(scope.model) / taken / 1e3,
    }
    row: Figures = {"network": name, "batch": size, "seconds to the first": first}
    yield gpu_kernels.tried(row, lambda: network(images), scope.device, **rates)


@torch.inference_mode()
def _ready(
    scope: Scope, size: int, compiled: bool, change: Change | None = None
) -> tuple[Callable[[torch.Tensor], object], torch.Tensor]:
    """Return our network, after its first pass, and images for it on the device."""
    predictor = _predictor(scope, size)
    if change:
        change(predictor)
    images = torch.from_numpy(_noise(scope, size)).to(predictor.device)
    network = torch.compile(predictor.answer, fullgraph=True, dynamic=False) if compiled else predictor.answer
    predictor.answer(images)
    network(images)
    return network, images


def _predictor(scope: Scope, size: int) -> Predictor:
    torch.compiler.reset()  # a network compiles for eight sizes at most
    return Predictor(copy.deepcopy(scope.model), scope.device, scope.precision, size, note=_refuse)


def _noise(scope: Scope, size: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (size, 3, *scope.model.size), dtype=np.uint8)


def _refuse(note: str) -> None:
    raise RuntimeError(note)


def _profiles(scope: Scope) -> Iterator[Part]:
    for size in scope.batches:
        for compiled in (False, True)[: 1 + scope.compiled]:
            name = f"batches of {size}{', compiled' if compiled else ''}"
            yield f"Kernels, {name}", partial(_kernels, scope, size, compiled)
    for size in scope.batches:
        for threads in (1, 2, 3, 4):
            yield "From the host", partial(_from_host, scope, size, threads)


def _kernels(scope: Scope, size: int, compiled: bool) -> Iterator[Figures]:
    """Yield the kinds of kernels beside what they should take, and then the slowest kernels."""
    network, images = _ready(scope, size, compiled)
    on_gpu, passes = scope.device == "cuda", 3
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]) as found:
        for _ in range(passes):
            network(images)
        if on_gpu:
            torch.cuda.synchronize()
    taken, calls = defaultdict[str, float](float), Counter[str]()
    for event in found.key_averages():
        of_gpu = event.device_type == DeviceType.CUDA
        if of_gpu == on_gpu:
            taken[event.key] += (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / passes / size
            calls[event.key] += event.count // passes
    kinds = Counter[str]()
    for name, microseconds in taken.items():
        kinds[_kind(name)] += microseconds  # type: ignore[assignment]
    ceiling = _ceiling(scope, compiled) if on_gpu else {}
    for kind, microseconds in kinds.most_common():
        row: Figures = {"kernel": kind, "µs an image": microseconds}
        yield row | ({"roofline, µs an image": ceiling[kind]} if kind in ceiling else {})
    total = sum(kinds.values())
    rate = gflop_per_image(scope.model) / total * 1e3 if total else 0.0
    yield {"kernel": "all", "µs an image": total, "roofline, µs an image": sum(ceiling.values()), "TFLOP/s": rate}
    for name, microseconds in sorted(taken.items(), key=lambda item: -item[1])[:25]:
        yield {"kernel": name[:90], "µs an image": microseconds, "launches": calls[name]}


def _kind(kernel: str) -> str:
    name = kernel.lower()
    return next((kind for kind, words in _KINDS.items() if any(word in name for word in words)), "other")


def _ceiling(scope: Scope, compiled: bool) -> dict[str, float]:
    rates = {str(row["peak"]): row for row in gpu_kernels.peaks(scope.device, scope.side)}
    flops, moved = rates["product, bf16"]["TFLOP/s"], rates["copy on the device"]["GB/s"]
    return microseconds_per_image(Peaks(1e12 * float(flops), 1e9 * float(moved)), compiled=compiled)


def _from_host(scope: Scope, size: int, threads: int) -> Iterator[Figures]:
    predictor, pixels = _predictor(scope, size), _noise(scope, size)
    rounds = 4 * threads if scope.device == "cuda" else threads

    def work() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda _: predictor(pixels), range(rounds)))

    work()
    started = perf_counter()
    work()
    yield {"batch": size, "threads": threads, "images/s": rounds * size / (perf_counter() - started)}


def _whole_runs(scope: Scope) -> Iterator[Part]:
    # Ray is imported here and not above: the other steps work without it.
    from jobs.benchmark import gpu_runs

    for decoding in ("photographs", "none"):
        for chunk in scope.batches:
            yield "Runs", partial(gpu_runs.measure, scope, chunk, decodes=decoding == "photographs")


_STEPS: dict[int, Callable[[Scope], Iterator[Part]]] = {
    1: _parts_of_the_network, 2: _networks, 3: _profiles, 4: _whole_runs,
}  # fmt: skip


def small(device: Device, model: Model) -> Scope:
    """Return a scope for a machine without a GPU: it shows that a step works, and nothing else."""
    return Scope(device, model, (2, 4), (2, 3), 64, 16, (320, 240), compiled=False, rounds=1)


def columns(rows: Sequence[Figures]) -> list[str]:
    """Return the headings of a table, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))
