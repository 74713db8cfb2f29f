"""The workers as plain callables, without Ray."""

import gc
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import enumerate as enumerate_threads

import pyarrow as pa
import pytest

from tests.support.archives import pictures, write_tar
from trapline.config import RunConfig
from trapline.errors import CheckpointError, FatalError
from trapline.model import checkpoint
from trapline.model.precision import Computed
from trapline.run import workers
from trapline.run.job import Job, columns_of
from trapline.run.messages import DecodedChunk, Failure, NotStarted, PredictedChunk, Task, WorkerNote
from trapline.run.packing import unpack
from trapline.run.workers import PredictorActor, Reader
from trapline.sources.shards import Shard, discover


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> checkpoint.Model:
    return checkpoint.load(str(tiny_model))


@pytest.fixture
def job(model: checkpoint.Model) -> Job:
    config = RunConfig(inputs=("in",), output="out", model="m")
    return Job(model.size, 4, "cpu", "fp32", columns_of(config, model), "digest")


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    write_tar(tmp_path / "in/a.tar", pictures(6) | {"bad.jpg": b""})
    return discover([str(tmp_path / "in")], str(tmp_path / "out")).shards[0]


def read(job: Job, shard: Shard) -> pa.Table:
    return pa.concat_tables(Reader(job)(pa.table({"task": [pickle.dumps(Task(shard))]})))


def test_a_shard_is_read_and_predicted_chunk_by_chunk(job: Job, shard: Shard, model: checkpoint.Model) -> None:
    chunks = read(job, shard)
    assert [item.pixels.shape for item in unpack(chunks) if isinstance(item, DecodedChunk)] == [
        (4, 3, 64, 64),
        (2, 3, 64, 64),
    ]
    first, second = unpack(PredictorActor(job, lambda: model)(chunks))
    assert isinstance(first, PredictedChunk)
    assert isinstance(second, PredictedChunk)
    assert (first.rows.num_rows, second.rows.num_rows) == (4, 3)
    assert (first.end is None, second.end is None) == (True, False)
    assert second.rows.column("species").null_count == 1
    assert set(second.seconds) == {"read", "decode", "predict"}


def test_what_a_person_should_know_travels_behind_the_chunks_once(
    job: Job, shard: Shard, model: checkpoint.Model
) -> None:
    actor, chunks = PredictorActor(job, lambda: model), read(job, shard)
    actor.notes.put("slow today")
    assert [isinstance(item, PredictedChunk) for item in unpack(actor(chunks))] == [True, True, False]
    actor.notes.put("slow today")
    *_, note = unpack(actor(chunks))
    assert note == WorkerNote("slow today")
    assert len(list(unpack(actor(chunks)))) == 2


@pytest.mark.parametrize(("precision", "native", "noted"), [("fp32", False, 0), ("bf16", True, 0), ("bf16", False, 1)])
def test_a_processor_that_emulates_bf16_is_named(
    monkeypatch: pytest.MonkeyPatch,
    job: Job,
    tiny_model: Path,
    shard: Shard,
    precision: Computed,
    native: bool,
    noted: int,
) -> None:
    monkeypatch.setattr("trapline.run.workers.multiplies_in_bf16", lambda device: native)
    actor = PredictorActor(replace(job, precision=precision), lambda: checkpoint.load(str(tiny_model)))
    notes = [item.text for item in unpack(actor(read(job, shard))) if isinstance(item, WorkerNote)]
    assert len(notes) == noted
    assert all("does not multiply in bf16" in note for note in notes)


def test_two_calls_at_once_predict_what_they_would_in_turn(job: Job, shard: Shard, model: checkpoint.Model) -> None:
    actor, chunks = PredictorActor(job, lambda: model), read(job, shard)

    def probabilities(_: int) -> list[pa.ChunkedArray]:
        items = unpack(actor(chunks))
        return [item.rows.column("probability") for item in items if isinstance(item, PredictedChunk)]

    expected = probabilities(0)
    with ThreadPoolExecutor(2) as threads:
        assert all(found == expected for found in threads.map(probabilities, range(4)))


def test_a_predictor_computes_with_as_many_threads_as_there_are_cores_up_to_four(
    job: Job, model: checkpoint.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cores, expected in ((3, 3), (64, 4)):
        monkeypatch.setattr(workers, "usable_cpus", lambda cores=cores: cores)
        before = set(enumerate_threads())
        actor = PredictorActor(job, lambda: model)
        started = set(enumerate_threads()) - before
        assert len(started) == expected
        del actor
        gc.collect()
        for thread in started:
            thread.join(10)
            assert not thread.is_alive()


def test_a_shard_whose_time_has_come_is_not_begun(job: Job, shard: Shard, model: checkpoint.Model) -> None:
    now = datetime.now(UTC)
    left = read(replace(job, stop_at=now), shard)
    assert list(unpack(PredictorActor(job, lambda: model)(left))) == [NotStarted(shard)]
    soon = read(replace(job, stop_at=now + timedelta(hours=1)), shard)
    assert soon.num_rows == 2


def test_a_shard_that_cannot_be_read_is_a_failure_that_passes_through(
    job: Job, shard: Shard, model: checkpoint.Model
) -> None:
    Path(shard.uri).unlink()
    (failure,) = unpack(PredictorActor(job, lambda: model)(read(job, shard)))
    assert isinstance(failure, Failure)
    assert "not found" in failure.reason


def test_a_predictor_that_gives_up_costs_the_shard_and_says_why(
    job: Job, shard: Shard, model: checkpoint.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = PredictorActor(job, lambda: model)

    def refuse(pixels: object) -> None:
        raise FatalError("out of memory with a single image")

    monkeypatch.setattr(actor, "predictor", refuse)
    items = list(unpack(actor(read(job, shard))))
    assert all(isinstance(item, Failure) and "with a single image" in item.reason for item in items)


def test_a_predictor_that_cannot_start_ends_the_run_in_its_own_words(job: Job, shard: Shard) -> None:
    def refuse() -> checkpoint.Model:
        raise CheckpointError("model.pt: has gone; name another")

    first, *_ = unpack(PredictorActor(job, refuse)(read(job, shard)))
    assert first == Failure(shard, "model.pt: has gone; name another", transient=False, fatal=True)
