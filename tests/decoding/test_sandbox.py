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
from trapline.decoding.clips import ClipFile
from trapline.decoding.decode import decode
from trapline.decoding.sandbox import Sandbox

SIZE = (64, 64)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds a process's memory")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Whose children have a faulty decoder; one for all, since a child takes seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", write_saboteur(tmp_path_factory.mktemp("saboteur")), prepend=os.pathsep)
        sandbox = Sandbox()
        yield sandbox
        sandbox.close()


@LINUX
def test_a_clip_whose_file_cannot_be_read_is_no_crash(sandbox: Sandbox) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        sandbox(ClipFile("/proc/self/mem", b""), SIZE)  # what is not mapped there gives the error of a broken disk


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


def test_an_image_that_its_decoder_does_not_finish_fails_alone(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sandbox(jpeg(1), SIZE)[1].status == "ok"
    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "_timeout", 2)
        _, facts = sandbox(bmp(HANG), SIZE)
    assert (facts.status, facts.error) == ("failed", "timeout: not decoded after 2 s")
    assert sandbox(jpeg(1), SIZE)[1].status == "ok"


@LINUX
def test_an_image_that_takes_all_memory_fails_alone(sandbox: Sandbox) -> None:
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
def worker(tmp_path: Path) -> Callable[[str], tuple[int, str]]:
    """A process that decodes as workers do, first a sound image; gives its exit code and what it printed."""
    env = os.environ | {"PYTHONPATH": f"{write_saboteur(tmp_path)}{os.pathsep}{ROOT / 'pipeline'}"}
    images = {"sound": bmp(40), "hang": bmp(HANG), "starve": bmp(STARVE)}
    for name, data in images.items():
        (tmp_path / name).write_bytes(data)

    def run(program: str) -> tuple[int, str]:
        before = f"""
import resource, sys
from pathlib import Path
from trapline.decoding.sandbox import decode_with_limits
def decode(name, **limits):
    return decode_with_limits(Path({str(tmp_path)!r}, name).read_bytes(), (64, 64), **limits)[1].status
"""
        done = subprocess.run(
            [sys.executable, "-c", before + program], env=env, check=False, capture_output=True, text=True
        )
        return done.returncode, done.stdout

    return run


def test_a_worker_that_hangs_ends_itself(worker: Callable[[str], tuple[int, str]]) -> None:
    assert worker("print(decode('sound'), flush=True); decode('hang', timeout=1)") == (1, "ok\n")


@LINUX
def test_a_worker_that_starves_lives_on_with_all_memory_to_itself(worker: Callable[[str], tuple[int, str]]) -> None:
    program = """
before = resource.getrlimit(resource.RLIMIT_DATA)
print(decode("sound"))
try:
    decode("starve")
except MemoryError:
    print(resource.getrlimit(resource.RLIMIT_DATA) == before)
"""
    assert worker(program) == (0, "ok\nTrue\n")
