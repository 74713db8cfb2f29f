"""Shards through real Ray Data, and what is made of Ray's errors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from tests.support.archives import pictures, write_tar
from trapline.config import RunConfig
from trapline.errors import CheckpointError, ClusterError
from trapline.model import checkpoint
from trapline.run import ray_stream
from trapline.run.capacity import WorkerPlan
from trapline.run.job import Job, columns_of
from trapline.run.messages import FromPredictor, PredictedChunk, Task
from trapline.run.ray_stream import RayStream, WorkerClasses
from trapline.run.worker_time import WorkerCounts
from trapline.run.workers import Reader
from trapline.sources.shards import discover

PLAN = WorkerPlan(WorkerCounts(1, 1), WorkerCounts(1, 1), 0, {})


def stream(folder: Path, tiny_model: Path, classes: WorkerClasses) -> list[FromPredictor]:
    for name in "abc":
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
