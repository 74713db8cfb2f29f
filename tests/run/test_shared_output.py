"""Several runs, readers, pauses and wrong clocks on one output: readers see whole files, and each image is one row.

What happens when is drawn; TRAPLINE_HISTORY_SEED draws other histories.
"""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event, Thread

import pyarrow.parquet as pq
import pytest

from tests.support.nights import Night, Run, seeded
from tests.support.servers import descendants

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SEED = int(os.environ.get("TRAPLINE_HISTORY_SEED", "20261201"))
SHARDS, IMAGES = 16, 6


class Reader(Thread):
    """Open all committed files again and again, and take down what is wrong with what is seen."""

    def __init__(self, night: Night) -> None:
        super().__init__(daemon=True)
        self.night = night
        self.ended = Event()
        self.readings = 0
        self.wrong: list[str] = []
        self.seen: set[Path] = set()

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                self._look()
            except Exception as error:  # noqa: BLE001  # whatever a reader meets
                self.wrong.append(f"{type(error).__name__}: {error}")
            self.readings += 1
            time.sleep(0.05)

    def _look(self) -> None:
        there = self.night.results
        if gone := self.seen.difference(there):
            self.wrong.append(f"{gone} were there before")
        self.seen.update(there)
        for path in there:
            rows = pq.read_table(path, columns=["key", "frame_seconds"], partitioning=None).to_pylist()
            keys = [row["key"] for row in rows if row["frame_seconds"] is None]
            if sorted(keys) != [*(f"{number:02}.jpg" for number in range(IMAGES - 1)), "film.mp4"]:
                self.wrong.append(f"{path}: {keys}")
        count, different = self.night.count()
        if count != different or count % IMAGES:
            self.wrong.append(f"{count} rows of {different} images")


@pytest.fixture
def night(tmp_path: Path, tiny_model: Path) -> Night:
    return Night.make(tmp_path, tiny_model, SHARDS, IMAGES)


@pytest.fixture
def reader(night: Night) -> Iterator[Reader]:
    reader = Reader(night)
    reader.start()
    yield reader
    reader.ended.set()
    reader.join()


def pause(run: Run, source: random.Random) -> None:
    """Stop a run with all its processes for a while, as a laptop that is closed."""
    stopped = [run.process.pid, *descendants(run.process.pid)]
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    time.sleep(source.uniform(0.2, 1.5))
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def skew(night: Night, source: random.Random) -> None:
    """Date the manifests, and what killed writes left, by a clock that is wrong by up to a day."""
    for path in [*Path(night.output).glob("_trapline/runs/*"), *Path(night.output).rglob("*.partial")]:
        then = time.time() + source.uniform(-86_400, 86_400)
        with suppress(FileNotFoundError):
            os.utime(path, (then, then))


def test_readers_see_whole_files_and_in_the_end_each_image_is_one_row(night: Night, reader: Reader) -> None:
    source = seeded(SEED)
    Path(night.output).mkdir()
    (Path(night.output) / "_left.partial").write_bytes(b"half of a file")
    deeds = []
    with ExitStack() as stack:
        runs = [stack.enter_context(night.running("--keep-runs", "1"))]
        runs[0].until(lambda: list(Path(night.output).glob("_trapline/runs/*.json")))
        runs.append(stack.enter_context(night.running("--keep-runs", "1")))
        while any(run.process.poll() is None for run in runs):
            deed = source.choice(["pause", "skew", "wait"])
            deeds.append(deed)
            active = [run for run in runs if run.process.poll() is None]
            if deed == "pause" and active:
                pause(source.choice(active), source)
            elif deed == "skew":
                skew(night, source)
            time.sleep(source.uniform(0.2, 1))
        # Both see the output as theirs, and find what the other has done.
        assert [run.wait() for run in runs] == [0, 0], "\n".join(run.said for run in runs)
    assert {"pause", "skew"} <= {*deeds}
    assert len(reader.seen) == SHARDS
    assert night.verify() == SHARDS * IMAGES

    # A third run overwrites all of it under the readers' eyes, and tidies.
    with night.running("--replace", "--top-k", "2", "--keep-runs", "1") as run:
        run.until_committed(1)
        pause(run, source)
        assert run.wait() == 0, run.said
    assert reader.wrong == []
    assert reader.readings > 10
    assert night.verify() == SHARDS * IMAGES
