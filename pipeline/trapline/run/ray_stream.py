"""All use of Ray Data: send shards through decode tasks and prediction actors, and stream the messages back."""

import json
import pickle
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy
from ray.data.exceptions import ExecutionTimeoutError
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

from trapline.errors import ClusterError, TraplineError, in_one_line
from trapline.model.checkpoint import Model
from trapline.ray_processes import few_actors
from trapline.ray_session import has_few_processes
from trapline.run.capacity import DECODE_CPUS, PREDICT_CPUS, WorkerPlan
from trapline.run.job import Job
from trapline.run.messages import FromPredictor, Task
from trapline.run.packing import unpack
from trapline.run.shared_model import SharedModel
from trapline.run.workers import PredictorActor, Reader

# Ray by default retries the task of a dead worker forever, and an input that kills workers would hang the run. The next
# pass reads such a shard in isolation.
_TASK_RETRIES = 1


@dataclass(frozen=True)
class WorkerClasses:
    """What runs on the workers; benchmarks and tests without a GPU use other classes.

    Attributes:
        reader: makes the callable of decode tasks from a job.
        predictor: the class of prediction actors.
    """

    reader: Callable[[Job], Callable[..., Any]] = Reader
    predictor: type[PredictorActor] = PredictorActor


class RayStream:
    """Streams shards through the cluster; Ray must be connected.

    Args:
        job: what to compute.
        model: sent to each actor once.
        classes: what runs on the workers.
    """

    def __init__(self, job: Job, model: Model, classes: WorkerClasses) -> None:
        self._job = job
        self._classes = classes
        self._model = SharedModel(model)

    def __call__(self, tasks: list[Task], plan: WorkerPlan) -> Generator[FromPredictor]:
        """Yield the messages of the workers, in any order.

        Raises:
            TraplineError: a worker raised it.
            ClusterError: Ray itself failed.
        """
        _configure(self._job)
        if has_few_processes():
            few_actors()
        shards = ray.data.from_items([{"task": pickle.dumps(task)} for task in tasks], override_num_blocks=len(tasks))
        chunks = shards.map_batches(
            self._classes.reader(self._job),
            batch_size=1,
            batch_format="pyarrow",
            compute=TaskPoolStrategy(size=plan.most.decode),
            num_cpus=DECODE_CPUS,
            label_selector=plan.decode_where,
            max_retries=_TASK_RETRIES,
        )
        # The device, or the threads of a CPU, work on one chunk while others are unpacked, copied to it, or packed.
        calls = 4 if self._job.device == "cuda" else 2
        predicted = chunks.map_batches(
            self._classes.predictor,
            fn_constructor_args=(self._job, self._model.load, _LostDevicesOfActor()),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                min_size=plan.now.predict,
                initial_size=plan.now.predict,
                max_size=plan.most.predict,
                max_concurrent_calls_per_actor=calls,
                enable_true_multi_threading=True,
            ),
            num_cpus=PREDICT_CPUS,
            num_gpus=plan.predictor_gpus or None,
            max_task_retries=_TASK_RETRIES,
        )
        try:
            for batch in predicted.iter_batches(batch_size=None, batch_format="pyarrow"):
                yield from unpack(batch)  # type: ignore[misc]  # predictors leave no decoded chunk
        except ExecutionTimeoutError:
            return  # half an hour without progress: the nodes are gone, and the next pass waits for others
        except ray.exceptions.RayError as error:
            raise _cause(error) from error


class _LostDevicesOfActor:
    """`LostDevices` in Ray's key-value store, by the id of the calling actor, which a restart does not change."""

    def record(self, error: str) -> None:
        _internal_kv_put(self._key(), json.dumps([*self.earlier(), error]).encode())

    def earlier(self) -> list[str]:
        found: list[str] = json.loads(_internal_kv_get(self._key()) or b"[]")
        return found

    def _key(self) -> str:
        return f"trapline: lost devices of {ray.get_runtime_context().get_actor_id()}"


def _configure(job: Job) -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A block for each chunk: by default Ray collects up to 128 MiB before it passes anything on.
    context.target_max_block_size = max(1, job.batch_size * 3 * job.size[0] * job.size[1] // 2)
    # A lost block is a shard that stays uncommitted, and the next pass finds it.
    context.max_errored_blocks = -1
    context.actor_init_max_retries = 0
    # The names of its retry limits are deprecated, but have no replacement before Ray 2.64, which constraints exclude.
    warnings.filterwarnings("ignore", category=ray.util.annotations.RayDeprecationWarning)


def _cause(error: BaseException) -> BaseException:
    """Return the TraplineError of a worker inside the errors that Ray wraps around it; else a ClusterError."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, TraplineError):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    return ClusterError(f"Ray failed ({in_one_line(error)}); run the same command again to carry on")
