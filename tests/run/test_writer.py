"""Files are written beside the flow: each is accounted for, and a store that takes none ends the run."""

import os
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.progress import run_progress
from tests.support.rows import COLUMNS, chunk, shard
from trapline.errors import StorageError
from trapline.run.messages import EndOfShard, PredictedChunk
from trapline.run.progress import Progress
from trapline.run.writer import Assembler, Writer
from trapline.storage import store


def write(night: Progress, output: Path, *names: str, interrupted: bool = False, at_most: int = 8) -> None:
    with Writer(COLUMNS, night) as writer:
        for name in names:
            writer.write([chunk(shard(str(output), name))])
            writer.settle(at_most)
        if interrupted:
            raise KeyboardInterrupt


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "blocked").write_text("a file, where a folder is to be")
    return tmp_path


def test_what_was_begun_is_written_and_accounted_for_whatever_ends_it(output: Path) -> None:
    night = run_progress()
    names = [f"{number}.tar" for number in range(6)]
    with pytest.raises(KeyboardInterrupt):
        write(night, output, *names, interrupted=True)
    assert night.shards.committed == {f"s3://archive/{name}" for name in names}
    assert sorted(path.name for path in output.glob("*.parquet")) == [f"{name}.parquet" for name in names]


def test_ctrl_c_as_a_file_is_written_waits_for_it_and_records_it(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night, writing, interrupted = run_progress(), Event(), Event()
    put = store.put

    def put_late(url: str, data: bytes) -> None:
        writing.set()
        assert interrupted.wait(60)
        put(url, data)

    def on_signal(*_: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    def send() -> None:
        assert writing.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(store, "put", put_late)
    before = signal.signal(signal.SIGINT, on_signal)
    sender = Thread(target=send)
    sender.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            write(night, output, "a.tar", at_most=0)
    finally:
        sender.join()
        signal.signal(signal.SIGINT, before)
    assert night.shards.committed == {"s3://archive/a.tar"}
    assert [path.name for path in output.glob("*.parquet")] == ["a.tar.parquet"]


class InterruptedQueue(SimpleQueue[Any]):
    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        super().get(block, timeout)
        raise KeyboardInterrupt


@pytest.mark.parametrize("step", ["before it is begun", "after it is taken"])
def test_ctrl_c_between_two_steps_leaves_no_count_to_wait_for(step: str, output: Path) -> None:
    ended = Event()

    def interrupt(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    def go() -> None:
        with suppress(KeyboardInterrupt), Writer(COLUMNS, run_progress()) as writer:
            writer._written = InterruptedQueue()
            if step == "before it is begun":
                writer._threads.submit = interrupt  # type: ignore[method-assign,assignment]
            writer.write([chunk(shard(str(output), "a.tar"))])
            writer.settle(at_most=0)
        ended.set()

    Thread(target=go, daemon=True).start()
    assert ended.wait(60)


def test_a_file_that_is_refused_fails_alone(output: Path) -> None:
    night = run_progress()
    write(night, output, "blocked/1.tar", "sound.tar", "blocked/2.tar")
    assert night.shards.committed == {"s3://archive/sound.tar"}
    assert sorted(night.shards.failures) == ["s3://archive/blocked/1.tar", "s3://archive/blocked/2.tar"]


def test_three_refusals_and_nothing_accepted_end_it(output: Path) -> None:
    with pytest.raises(StorageError, match="blocked"):
        write(run_progress(), output, *(f"blocked/{number}.tar" for number in range(3)))


def test_refusals_leave_no_file_unrecorded_and_an_interruption_what_it_is(output: Path) -> None:
    night = run_progress()

    def begin() -> NoReturn:
        with Writer(COLUMNS, night) as writer:
            for name in ("blocked/1.tar", "blocked/2.tar", "blocked/3.tar", "blocked/4.tar", "sound.tar"):
                writer.write([chunk(shard(str(output), name))])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin()
    assert night.shards.committed == {"s3://archive/sound.tar"}
    assert len(night.shards.failures) == 4


class TestAssembler:
    # Of three shards, how many chunks each has.
    counts = st.lists(st.integers(1, 4), min_size=3, max_size=3)

    @staticmethod
    def of_these(counts: list[int]) -> list[PredictedChunk]:
        blank = chunk(shard("out"), images=1)
        return [
            replace(
                blank, shard=shard("out", f"{name}.tar"), index=index, end=EndOfShard() if index == count - 1 else None
            )
            for name, count in enumerate(counts)
            for index in range(count)
        ]

    @settings(deadline=None)  # machines are busy at times
    @given(counts, st.randoms())
    def test_gives_each_shard_once_and_whole_in_whatever_order_its_chunks_come(
        self, counts: list[int], random: Any
    ) -> None:
        chunks = self.of_these(counts)
        random.shuffle(chunks)
        assembler = Assembler()
        given_back = [found for each in chunks if (found := assembler.add(each))]
        assert sorted(found[0].shard.uri for found in given_back) == sorted({each.shard.uri for each in chunks})
        for found in given_back:
            assert {each.shard for each in found} == {found[0].shard}
            assert [each.index for each in found] == list(range(len(found)))
            assert [each.end is not None for each in found] == [False] * (len(found) - 1) + [True]

    @settings(deadline=None)  # machines are busy at times
    @given(counts, st.randoms())
    def test_gives_no_shard_incomplete_however_often_its_chunks_come(self, counts: list[int], random: Any) -> None:
        chunks = self.of_these(counts) * 2
        random.shuffle(chunks)
        assembler = Assembler()
        given_back = [found for each in chunks if (found := assembler.add(each))]
        assert {found[0].shard.uri for found in given_back} == {each.shard.uri for each in chunks}
        assert all([each.index for each in found] == list(range(len(found))) and found[-1].end for found in given_back)

    def test_a_repeated_chunk_is_not_another_one(self) -> None:
        first, second, third = self.of_these([3])
        assembler = Assembler()
        assert [assembler.add(each) for each in (third, first, first, third)] == [None] * 4
        assert assembler.add(second) == [first, second, third]

    def test_what_came_of_a_shard_that_failed_is_forgotten(self) -> None:
        first, second, other, last = self.of_these([2, 2])
        assembler = Assembler()
        assert assembler.add(first) is None
        assert assembler.add(other) is None
        assembler.drop(first.shard)
        assembler.drop(shard("out", "never-seen.tar"))
        assert assembler.add(second) is None
        assert assembler.add(last) == [other, last]
