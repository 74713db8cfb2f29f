"""Triton's kernels where no GPU is: run by its interpreter, and compiled ahead. In processes of their own, since Triton reads
its settings when it is imported.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.support.checkout import ROOT

# Of GPUs by compute capability: KiB of shared memory that a program may have, and the instruction of its products.
GPUS = {90: (227, "wgmma"), 89: (99, "mma.sync")}

# torch fills what is not initialised with NaN under deterministic algorithms.
_INTERPRET = """
import importlib, operator, sys, torch
torch.use_deterministic_algorithms(True)
function = operator.attrgetter(sys.argv[2])(importlib.import_module(sys.argv[1]))
with torch.inference_mode():
    cases = torch.load(sys.argv[3], weights_only=False)
    torch.save([function(*case) for case in cases], sys.argv[3])
"""

_COMPILE = """
import importlib, json, sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
kernel = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
types, jobs = json.loads(sys.argv[3])
for capability, constants in jobs:
    options = {name: constants.pop(name) for name in ("num_warps", "num_stages") if name in constants}
    signature = dict.fromkeys(kernel.arg_names, "*bf16") | types | dict.fromkeys(constants, "constexpr")
    attributes = {
        (place,): [["tt.divisibility", 16]]
        for place, type in enumerate(signature.values()) if type.startswith("*") or type == "i32"
    }
    source = ASTSource(kernel, signature, constants, attributes)
    found = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    ptx = found.asm["ptx"]
    product = next((name for name in ("wgmma", "mma.sync") if name in ptx), "none")
    print("COMPILED", found.metadata.shared, product)
"""


@dataclass(frozen=True)
class Compiled:
    """A kernel, compiled.

    Attributes:
        shared: bytes of shared memory of a program.
        product: the instruction that multiplies.
        registers: of a thread.
        spilled: bytes that a thread stores because it has no more registers.
    """

    shared: int
    product: str
    registers: int
    spilled: int


def interpret(module: str, function: str, cases: Sequence[tuple[Any, ...]], folder: Path) -> list[Any]:
    """Return what a function that calls a kernel returns for each case, with NaN in memory that is not initialised.

    Args:
        module: where the function is.
        function: its name.
        cases: arguments.
        folder: for a file.
    """
    file = folder / "cases.pt"
    torch.save(list(cases), file)
    _python(_INTERPRET, module, function, str(file), TRITON_INTERPRET="1")
    found: list[Any] = torch.load(file, weights_only=False)
    return found


def compile_ahead(
    module: str, kernel: str, types: dict[str, str], jobs: Sequence[tuple[int, dict[str, int]]], folder: Path
) -> list[Compiled]:
    """Compile a kernel for GPUs that need not be there.

    Args:
        module: where the kernel is.
        kernel: its name.
        types: of parameters that do not point to bfloat16, in Triton's spelling.
        jobs: the GPU's compute capability, from `GPUS`, and the constants, among them `num_warps`.
        folder: for what is compiled.
    """
    log = _python(
        _COMPILE, module, kernel, json.dumps([types, jobs]), TRITON_CACHE_DIR=str(folder), TRITON_DUMP_PTXAS_LOG="1"
    )
    spills = [int(stored) for stored in re.findall(r"(\d+) bytes spill stores", log)]
    registers = [int(used) for used in re.findall(r"Used (\d+) registers", log)]
    compiled = re.findall(r"COMPILED (\d+) (\S+)", log)
    assert len(spills) == len(registers) == len(compiled) == len(jobs), log
    return [
        Compiled(int(shared), product, *figures)
        for (shared, product), *figures in zip(compiled, registers, spills, strict=True)
    ]


def assert_fit(jobs: Sequence[tuple[int, dict[str, int]]], found: Sequence[Compiled]) -> None:
    """Check that kernels multiply in tensor cores, and need no more memory than there is.

    Raises:
        AssertionError: one does not.
    """
    for (gpu, constants), compiled in zip(jobs, found, strict=True):
        kibibytes, product = GPUS[gpu]
        what = f"{compiled} with {constants} for sm_{gpu}"
        assert compiled.product == product, what
        assert compiled.shared <= kibibytes * 1024, what
        assert compiled.spilled == 0, what


def _python(code: str, *arguments: str, **env: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout
