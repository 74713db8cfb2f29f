"""Whole nights in processes of their own, as a user starts them, for tests that kill, stop and starve them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import duckdb

from tests.support.archives import jpeg, write_tar
from tests.support.checkout import ROOT
from tests.support.clips import clip
from tests.support.servers import LIBC, PR_SET_CHILD_SUBREAPER, RAY_ENV, descendants
from trapline.results.verify import reconcile


@dataclass(frozen=True)
class Night:
    """An archive of tars, an output and a model; `output` and `inputs` may be URLs, `program` is what Python runs."""

    archive: Path
    output: str
    model: Path
    inputs: str = ""
    program: tuple[str, ...] = ("-m", "jobs.classify")

    @classmethod
    def make(cls, folder: Path, model: Path, shards: int, images: int = 20) -> Self:
        """Of a clip in each shard, and pictures large enough (2 megapixels, some 30 ms each) that there is time to strike."""
        night = cls(folder / "archive", str(folder / "output"), model)
        some = [jpeg(seed, (1600, 1200)) for seed in range(images - 1)]
        film = clip(frames=25)
        for number in range(shards):
            # A comment behind the end of the picture makes each of them different.
            members = {f"{n:02}.jpg": data + f"{number}".encode() for n, data in enumerate(some)}
            members["film.mp4"] = film + b"\0\0\0\x0cfree" + f"{number:04}".encode()
            write_tar(night.archive / f"{number:03}.tar", members)
        return night

    def command(self, *options: str) -> list[str]:
        inputs = self.inputs or str(self.archive)
        return [sys.executable, *self.program, inputs, self.output, "--model", str(self.model), *options]

    @contextmanager
    def running(
        self, *options: str, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> Iterator["Run"]:
        """A run that goes on meanwhile; at the end of the context nothing of it is left, however it ended.

        What a cluster (`RAY_ADDRESS` in `env`) has started for it is left to the cluster.
        """
        # What a killed driver leaves behind becomes ours, and can be found.
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)
        before = set(descendants(os.getpid()))
        log = self.model.parent / f"{time.monotonic_ns()}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*prefix, *self.command(*options)],
                cwd=ROOT,
                env=os.environ | RAY_ENV | dict(env or {}),
                stdout=stream,
                stderr=stream,
            )
        try:
            yield Run(self, process, log)
        finally:
            process.kill()
            process.wait()
            while "RAY_ADDRESS" not in (env or {}) and (below := set(descendants(os.getpid())) - before):
                for pid in below:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    with suppress(ChildProcessError):
                        os.waitpid(pid, os.WNOHANG)
                time.sleep(0.02)

    def finish(self, *options: str, env: Mapping[str, str] | None = None) -> "Run":
        """A run to its end, which must be a good one."""
        with self.running(*options, env=env) as run:
            assert run.wait() == 0, run.said
        return run

    @property
    def results(self) -> list[Path]:
        return sorted(Path(self.output).rglob("*.parquet"))

    def count(self) -> tuple[int, int]:
        """Rows of images and clips, and different ones among them, as DuckDB sees them now."""
        if not self.results:
            return 0, 0
        rows = f"read_parquet('{self.output}/**/*.parquet')"
        query = f"select count(*), count(distinct image_uri) from {rows} where frame_seconds is null"
        return duckdb.sql(query).fetchall()[0]

    def verify(self) -> int:
        """That each image and clip is exactly one row, besides those of frames; gives their number."""
        findings = list(reconcile([self.inputs or str(self.archive)], self.output))
        assert [finding for finding in findings if not finding.good] == []
        return sum(finding.images for finding in findings)

    def manifests(self) -> list[dict[str, Any]]:
        """Of all runs, in the order of their start."""
        return [json.loads(path.read_text()) for path in sorted(Path(self.output).glob("_trapline/runs/*.json"))]


@dataclass(frozen=True)
class Run:
    """A run in a process of its own."""

    night: Night
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def until(self, condition: Callable[[], object], seconds: float = 240) -> None:
        """Wait for something that must come about while the run goes on."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"it ended too early:\n{self.said}"
            assert time.monotonic() < deadline, f"it did not come about in {seconds} s:\n{self.said}"
            time.sleep(0.02)

    def until_committed(self, shards: int) -> None:
        self.until(lambda: len(self.night.results) >= shards)

    def wait(self, seconds: float = 240) -> int:
        """The exit code; of a run that hangs, what it said and where it stands."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pids = [self.process.pid, *descendants(self.process.pid)]
            stacks = [
                subprocess.run(["py-spy", "dump", f"--pid={pid}"], env=RAY_ENV, capture_output=True, text=True).stdout
                for pid in pids
            ]
            raise AssertionError("\n".join([f"it hangs after {seconds} s:", self.said, *stacks])) from None

    def workers(self, kind: str) -> list[int]:
        """Processes of this run in whose title Ray shows what they do, such as `Reader` or `PredictorActor`."""
        found = []
        for pid in descendants(self.process.pid):
            with suppress(OSError):
                if (
                    kind in Path(f"/proc/{pid}/cmdline").read_text()
                    and "ray::" in Path(f"/proc/{pid}/cmdline").read_text()
                ):
                    found.append(pid)
        return found


def seeded(seed: int) -> random.Random:
    """For moments that are random, and the same again when one of them has found something."""
    print(f"seed {seed}")
    return random.Random(seed)
