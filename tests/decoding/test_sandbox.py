import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.support.archives import jpeg
from tests.support.bad_decoder import CRASH, HANG, STARVE, bmp, write_saboteur
from tests.support.checkout import ROOT
from trapline.decoding.decode import decode
from trapline.decoding.sandbox import Sandbox

SIZE = (64, 64)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds a process's memory")


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Whose children have a faulty decoder, and little timeout."""
    monkeypatch.setenv("PYTHONPATH", write_saboteur(tmp_path), prepend=os.pathsep)
    sandbox = Sandbox(timeout=2)
    yield sandbox
    sandbox.close()


def test_what_comes_out_of_the_sandbox_is_what_decode_gives(sandbox: Sandbox) -> None:
    for data in (jpeg(1), jpeg(2)[:900], b"", b"no picture", bmp(40)):
        pixels, facts = sandbox(data, SIZE)
        expected, expected_facts = decode(data, SIZE)
        assert facts == expected_facts
        assert (pixels is None) == (expected is None)
        assert pixels is None or expected is None or torch.equal(pixels, expected)


def test_an_image_that_kills_its_decoder_fails_alone_and_says_of_what(sandbox: Sandbox) -> None:
    pixels, facts = sandbox(bmp(CRASH), SIZE)
    assert pixels is None
    assert (facts.status, facts.error) == ("failed", "crashed: the decoder crashed (SIGSEGV)")
    assert facts.content_sha256 == hashlib.sha256(bmp(CRASH)).digest()
    assert sandbox(jpeg(1), SIZE)[1].status == "ok"


def test_an_image_that_its_decoder_does_not_finish_fails_alone(sandbox: Sandbox) -> None:
    _, facts = sandbox(bmp(HANG), SIZE)
    assert (facts.status, facts.error) == ("failed", "timeout: not decoded after 2 s")
    assert sandbox(jpeg(1), SIZE)[1].status == "ok"


@LINUX
def test_an_image_that_takes_all_memory_fails_alone(sandbox: Sandbox) -> None:
    sandbox._timeout = 60
    _, facts = sandbox(bmp(STARVE), SIZE)
    assert (facts.status, facts.error) == (
        "failed",
        "out_of_memory: decoding it takes more than 4 GiB, or than there is",
    )
    assert sandbox(jpeg(1), SIZE)[1].status == "ok"


def test_a_child_that_was_killed_in_between_is_no_images_fault(sandbox: Sandbox) -> None:
    assert sandbox(jpeg(1), SIZE)[1].status == "ok"
    os.kill(sandbox._child.pid, signal.SIGKILL)
    assert sandbox(jpeg(1), SIZE)[1].status == "ok"


def test_a_closed_sandbox_leaves_no_process(sandbox: Sandbox) -> None:
    sandbox(jpeg(1), SIZE)
    child = sandbox._child
    sandbox.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


@pytest.fixture
def worker(tmp_path: Path) -> Callable[..., int]:
    """A process that decodes an image as workers do; gives its exit code."""
    env = os.environ | {"PYTHONPATH": f"{write_saboteur(tmp_path)}{os.pathsep}{ROOT / 'pipeline'}"}

    def decode_in_process(data: bytes, program: str) -> int:
        command = [
            sys.executable,
            "-c",
            f"import sys; from trapline.decoding.sandbox import decode_with_limits\n{program}",
        ]
        return subprocess.run(command, input=data, env=env, check=False, stderr=subprocess.DEVNULL).returncode

    return decode_in_process


def test_a_worker_that_hangs_ends_itself(worker: Callable[..., int]) -> None:
    program = "assert decode_with_limits(sys.stdin.buffer.read(), (64, 64), timeout=1)[1].status == 'ok'"
    assert [worker(data, program) for data in (bmp(40), bmp(HANG))] == [0, 1]


@LINUX
def test_a_worker_that_starves_lives_on_with_all_memory_to_itself(worker: Callable[..., int]) -> None:
    program = """
import resource
before = resource.getrlimit(resource.RLIMIT_DATA)
try:
    decode_with_limits(sys.stdin.buffer.read(), (64, 64))
except MemoryError:
    sys.exit(7 if resource.getrlimit(resource.RLIMIT_DATA) == before else 8)
"""
    assert [worker(data, program) for data in (bmp(40), bmp(STARVE))] == [0, 7]
