import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from archives import jpeg
from saboteur import CRASH, HANG, bmp, write_saboteur

from pipeline.decode import decode
from pipeline.isolation import Sandbox

SIZE = (64, 64)


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Whose children have a faulty decoder, and little patience."""
    monkeypatch.setenv("PYTHONPATH", write_saboteur(tmp_path), prepend=os.pathsep)
    sandbox = Sandbox(patience=2)
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
    assert (facts.status, facts.error) == ("failed", "crashed: the decoder died of it (SIGSEGV)")
    assert facts.content_sha256 == hashlib.sha256(bmp(CRASH)).digest()
    assert sandbox(jpeg(1), SIZE)[1].status == "ok"


def test_an_image_that_its_decoder_does_not_finish_fails_alone(sandbox: Sandbox) -> None:
    _, facts = sandbox(bmp(HANG), SIZE)
    assert (facts.status, facts.error) == ("failed", "timeout: not decoded after 2 s")
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


def test_a_worker_that_hangs_ends_itself(tmp_path: Path) -> None:
    program = (
        "import sys; from pipeline.isolation import decode_or_die\n"
        "assert decode_or_die(sys.stdin.buffer.read(), (64, 64), patience=1)[1].status == 'ok'"
    )
    command = [sys.executable, "-c", program]
    env = os.environ | {"PYTHONPATH": f"{write_saboteur(tmp_path)}{os.pathsep}{Path(__file__).parents[1]}"}
    assert [
        subprocess.run(command, input=data, env=env, check=False, stderr=subprocess.DEVNULL).returncode
        for data in (bmp(40), bmp(HANG))
    ] == [0, 1]
