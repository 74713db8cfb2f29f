"""`Gpu` on a pretend CUDA runtime, where all that is not waited for comes late; each safeguard left out is seen."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.checkout import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler"),
    pytest.mark.skipif(torch.version.cuda is None, reason="torch is built without CUDA"),
]

SOURCE = Path(__file__).parent / "pretend_cuda"
CALLS = 60  # from 1, 2, 3 and 8 threads each

# Of `Gpu.__call__`: what is left out, and what stands there instead.
SAFEGUARDS = {
    "computing waits for its pixels": ("            computing.wait_stream(copies)\n", ""),
    "answers wait for computing": ("            copies.wait_stream(computing)\n", ""),
    "the caller waits for its answers": ("        done.synchronize()\n", ""),
    "the event stands behind the answers": ("            done.record()\n", "            pass\n"),
    "results are held until they are copied": ("            done.record()\n", "            del output\n            done.record()\n"),
}  # fmt: skip


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled runtime, also under the driver's name."""
    triton = pytest.importorskip("triton", reason="Triton brings the headers of CUDA")
    headers = Path(triton.__file__).parent / "backends/nvidia/include"
    library = tmp_path_factory.mktemp("pretend") / "libcuda.so.1"
    command = ["g++", "-O1", "-shared", "-fPIC", "-std=c++20", f"-I{headers}", "-o", str(library)]
    subprocess.run([*command, str(SOURCE / "pretend_cuda.cpp")], check=True)
    return library


def stress(runtime: Path, package: Path = ROOT / "pipeline", **settings: str) -> str:
    env = os.environ | {
        "PYTHONPATH": str(package), "LD_LIBRARY_PATH": str(runtime.parent), "LD_PRELOAD": str(runtime),
        "PRETEND_DELAY_US": "2000", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, str(SOURCE / "stress.py"), str(CALLS)]
    done = subprocess.run(command, env=env | settings, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_all_answers_are_right(runtime: Path) -> None:
    assert stress(runtime) == f"{4 * CALLS} of {4 * CALLS}"


@pytest.mark.parametrize("safeguard", SAFEGUARDS)
def test_without_a_safeguard_they_are_not(runtime: Path, safeguard: str, tmp_path: Path) -> None:
    package = shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline")
    module = package / "trapline/model/gpu.py"
    old, new = SAFEGUARDS[safeguard]
    source = module.read_text()
    assert source.count(old) == 1
    module.write_text(source.replace(old, new))
    right, of, calls = stress(runtime, package).split()
    assert of == "of"
    assert int(right) < int(calls)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"PRETEND_SOUND_COPIES": "20"}, "AcceleratorError lost: True, full: False"),
        ({"PRETEND_SOUND_COPIES": "20", "PRETEND_ERROR": "214"}, "AcceleratorError lost: True, full: False"),  # ECC
        ({"PRETEND_HOST_ALLOCS": "2"}, "AcceleratorError lost: False, full: True"),
    ],
)
def test_what_the_runtime_reports_is_told_apart(runtime: Path, settings: dict[str, str], said: str) -> None:
    assert stress(runtime, **settings) == said
