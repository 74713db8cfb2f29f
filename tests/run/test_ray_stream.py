"""Shards through real Ray Data, and what is made of Ray's errors."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
import torch

from tests.support.archives import pictures, write_tar
from trapline.config import RunConfig
from trapline.errors import CheckpointError, ClusterError
from trapline.model import checkpoint
from trapline.run import ray_stream
from trapline.run.capacity import WorkerPlan
from trapline.run.job import Job, columns_of
from trapline.run.messages import Failure, FromPredictor, PredictedChunk, Task, WorkerNote
from trapline.run.ray_stream import RayStream, WorkerClasses
from trapline.run.worker_time import WorkerCounts
from trapline.run.workers import MOST_RESTARTS, PredictorActor, Reader
from trapline.sources.shards import discover

PLAN = WorkerPlan(WorkerCounts(1, 1), WorkerCounts(1, 1), 0, {})


def stream(folder: Path, tiny_model: Path, classes: WorkerClasses, names: str = "abc") -> list[FromPredictor]:
    for name in names:
        write_tar(folder / f"in/{name}.tar", pictures(6))
    model = checkpoint.load(str(tiny_model))
    config = RunConfig(inputs=(str(folder / "in"),), output=str(folder / "out"), model="m")
    job = Job(model.size, 4, "cpu", "fp32", columns_of(config, model), "digest")
    tasks = [Task(shard) for shard in discover(config.inputs, config.output).shards]
    return list(RayStream(job, model, classes)(tasks, PLAN))


@pytest.mark.usefixtures("ray_session")
def test_shards_come_back_predicted_and_one_whose_reader_fails_is_missing_alone(
    tmp_path: Path, tiny_model: Path
) -> None:
    class Failing(Reader):
        def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
            if b"b.tar" in batch.column("task")[0].as_py():
                raise RuntimeError("a fault of the reader")
            yield from super().__call__(batch)

    items = stream(tmp_path, tiny_model, WorkerClasses(reader=Failing))
    chunks = [item for item in items if isinstance(item, PredictedChunk)]
    assert len(chunks) == len(items)
    found = sorted((Path(each.shard.uri).name, each.index, each.rows.num_rows, each.end is not None) for each in chunks)
    assert found == [
        (name, index, rows, end) for name in ("a.tar", "c.tar") for index, rows, end in ((0, 4, False), (1, 2, True))
    ]
    assert all(each.rows.column("species").null_count == 0 for each in chunks)


@pytest.mark.usefixtures("ray_session")
def test_a_predictor_has_a_second_chunk_while_it_computes_the_first(tmp_path: Path, tiny_model: Path) -> None:
    class Meeting(PredictorActor):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.meeting = threading.Barrier(2)

        def __call__(self, batch: pa.Table) -> pa.Table:
            self.meeting.wait(20)
            return super().__call__(batch)

    items = stream(tmp_path, tiny_model, WorkerClasses(predictor=Meeting))
    assert len([item for item in items if isinstance(item, PredictedChunk)]) == 6


def losing_its_device(folder: Path, times: int) -> type[PredictorActor]:
    """A predictor whose device is lost in the first calls of that many processes."""

    class Losing(PredictorActor):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            started = len(list(folder.glob("process*")))
            (folder / f"process{started}").touch()
            if started < times:
                self.predictor = lost_device  # type: ignore[assignment]

    def lost_device(pixels: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    return Losing


@pytest.mark.usefixtures("ray_session")
def test_a_predictor_that_loses_its_device_is_started_again_and_no_chunk_is_lost(
    tmp_path: Path, tiny_model: Path
) -> None:
    items = stream(tmp_path, tiny_model, WorkerClasses(predictor=losing_its_device(tmp_path, 1)))
    notes = [item.text for item in items if isinstance(item, WorkerNote)]
    found = sorted((Path(item.shard.uri).name, item.index) for item in items if isinstance(item, PredictedChunk))
    assert found == [(name, index) for name in ("a.tar", "b.tar", "c.tar") for index in (0, 1)]
    assert notes == [
        "a predictor was started again, for the cpu device was lost: "
        "CUDA error: an illegal memory access was encountered"
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_device_that_is_lost_again_and_again_ends_the_run_with_its_error(tmp_path: Path, tiny_model: Path) -> None:
    # Each time, all calls of the moment are lost with the process, and a call is repeated once only.
    classes = WorkerClasses(predictor=losing_its_device(tmp_path, 99))
    items = stream(tmp_path, tiny_model, classes, "abcdefghijkl")
    # The first, those that take its place, and one that says that it is enough.
    assert len(list(tmp_path.glob("process*"))) == 1 + MOST_RESTARTS + 1
    failures = [item for item in items if isinstance(item, Failure)]
    assert failures
    assert all(failure.fatal and "an illegal memory access" in failure.reason for failure in failures)


def raised(error: BaseException, cause: BaseException | None) -> BaseException:
    """An error as Python raises it from another."""
    error.__cause__ = cause
    return error


def test_an_error_of_ray_itself_blames_ray_in_one_line() -> None:
    found = ray_stream._cause(raised(ray.exceptions.RaySystemError("lost\nits socket"), OSError("closed")))
    assert isinstance(found, ClusterError)
    assert str(found).startswith("Ray failed (")
    assert str(found).endswith("; run the same command again to carry on")
    assert "\n" not in str(found)


def test_an_error_of_a_worker_is_found_however_deep_ray_wraps_it() -> None:
    error = CheckpointError("m: is of another network")
    assert ray_stream._cause(raised(ray.exceptions.RayError(), raised(RuntimeError("x"), error))) is error
    task: Any = ray.exceptions.RayTaskError("predict", "a traceback", error)
    assert ray_stream._cause(raised(ray.exceptions.RayError(), task)) is error
