"""Simulated runs: stand-ins that are as large as what they stand for, costs that are fitted, and the flow as it is."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from jobs.benchmark.growth import write_archive
from tests.scaling.__main__ import main
from tests.scaling.simulation import Scenario, Size, fit, simulate
from tests.scaling.stand_ins import SleepingPredictor, SleepingReader, sleeping_actor
from tests.support.archives import jpeg
from trapline.config import RunConfig
from trapline.errors import UsageError
from trapline.model import checkpoint
from trapline.results.schema import Columns
from trapline.run.job import Job, columns_of
from trapline.run.messages import PredictedChunk, Task
from trapline.run.packing import unpack
from trapline.run.workers import PredictorActor, Reader
from trapline.sources.shards import discover

SIZES = [Size(100, 1), Size(1000, 1), Size(100, 64), Size(300, 64), Size(100, 256), Size(3000, 1), Size(1000, 64)]


def test_a_fit_finds_what_each_thing_costs_and_foretells_the_largest_run() -> None:
    found = fit(SIZES, [3 + 0.01 * size.shards + 0.007 * size.chunks + 1e-4 * size.total for size in SIZES])
    assert (found.fixed, found.shard, found.chunk, found.image) == pytest.approx((3, 0.01, 0.007, 1e-4))
    assert found.held_out_error == pytest.approx(0, abs=1e-9)
    assert found(Size(100_000, 1000)) == pytest.approx(3 + 1000 + 11_200 + 10_000)


def test_what_grows_faster_than_its_size_is_seen_by_its_error() -> None:
    assert fit(SIZES, [3 + 1e-8 * size.total**2 for size in SIZES]).held_out_error < -0.3


def test_nothing_is_fitted_to_cost_less_than_nothing() -> None:
    found = fit(SIZES, [3 + 0.01 * size.shards - 0.0099 * size.chunks + 0.001 * size.total for size in SIZES])
    assert min(found.fixed, found.shard, found.chunk, found.image) >= 0


def test_stand_ins_give_what_is_as_large_as_real(tmp_path: Path, tiny_model: Path) -> None:
    photographs = [jpeg(seed, (320, 240)) for seed in range(3)]
    config = RunConfig(inputs=(str(write_archive(tmp_path / "in", photographs, 3, 3)),), output="out", model="m")
    model = checkpoint.load(str(tiny_model))
    job = Job(model.size, 8, "cpu", "fp32", columns_of(config, model), "mark")
    task = pa.table({"task": [pickle.dumps(Task(discover(config.inputs, "out").shards[0]))]})
    (real,), (simulated,) = Reader(job)(task), SleepingReader(job, 0)(task)
    assert simulated.column("pixels").nbytes == real.column("pixels").nbytes

    def predicted(actor: PredictorActor, read: pa.Table) -> PredictedChunk:
        (chunk,) = unpack(actor(read))
        assert isinstance(chunk, PredictedChunk)
        return chunk

    real_chunk = predicted(PredictorActor(job, lambda: model), real)
    chunk = predicted(sleeping_actor(0)(job, lambda: model), simulated)
    assert chunk.rows.schema == real_chunk.rows.schema
    assert {"read", "decode", "predict"} == set(chunk.seconds)
    for column in ("key", "content_sha256", "probabilities", "embedding", "energy"):
        assert chunk.rows.column(column).nbytes == real_chunk.rows.column(column).nbytes
    assert np.sum(chunk.rows.column("probabilities")[0].as_py()) == pytest.approx(1, abs=1e-5)


def test_there_is_one_device_to_sleep_on_whoever_asks() -> None:
    predictor = SleepingPredictor(Columns(("a", "b"), 4, {}, 2, True, "float32"), seconds=0.02)
    started = perf_counter()
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(predictor, [np.empty((5, 3, 1, 1), np.uint8)] * 2))
    assert perf_counter() - started >= 2 * 5 * 0.02
    assert [answer.probabilities.shape for answer in answers] == [(5, 2), (5, 2)]


@pytest.mark.slow
def test_a_simulated_run_is_a_run_as_fast_as_its_workers_sleep(tmp_path: Path, tiny_model: Path) -> None:
    archive = write_archive(tmp_path / "in", [bytes(1000)], 280, 70)
    output = tmp_path / "out"
    seen = simulate(Scenario(str(archive), str(output), str(tiny_model), decode_workers=2, decode_seconds=0.02))
    keys = "count(*), count(DISTINCT image_uri), count(embedding)"
    assert duckdb.sql(f"SELECT {keys} FROM read_parquet('{output}/**/*.parquet')").fetchall() == [(280, 280, 280)]
    assert (seen.images, seen.shards) == (280, 4)
    assert seen.bound_by in ("decode", "start-up")  # which takes longer than the work on a busy machine
    assert seen.output_bytes == sum(file.stat().st_size for file in output.rglob("*.parquet"))
    assert seen.seconds > 280 * 0.02 / 2
    assert 0 < seen.driver_seconds < seen.seconds * 2
    assert min(seen.cpu.values()) >= 0


def test_a_size_that_is_none_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scale", "--sizes", "12"]) == 2
    assert "--sizes 12: is no size; write SHARDSxIMAGES" in capsys.readouterr().err


def test_a_run_that_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    nothing = str(tmp_path / "nothing")
    with pytest.raises(UsageError, match=r"exit code 1: (?s:.*)batch_size"):
        simulate(Scenario(nothing, nothing, nothing, decode_workers=1, batch_size=0))


@pytest.mark.slow
def test_the_benchmarks_print_tables_and_write_their_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    assert main(["scale", "--sizes", "4x70", "--json", str(file)]) == 0
    (run,) = json.loads(file.read_text())["runs"]
    assert (run["shards"], run["images"]) == (4, 280)
    # Random numbers do not compress much: 707 probabilities and 768 numbers of an embedding, 4 bytes each.
    assert run["output_bytes"] / 280 == pytest.approx(4 * (707 + 768), rel=0.15)
    rates = ["--decode-rate", "400", "--predict-rate", "4000"]
    assert main(["feeding", "--workers", "1", *rates, "--json", str(file)]) == 0
    (run,) = json.loads(file.read_text())["runs"]
    assert (run["images"], run["bound_by"]) == (2560, "decode")
    printed = capsys.readouterr().out
    assert "shards  images" in printed
    assert "Decode workers take 1/400 s" in printed
