"""A function of a batch, compiled for the batch sizes that are worth it.

Compiling the network takes about a minute for each size, unless torch has it in its cache on disk. A run over a few
thousand images would wait longer than it saves, and the number of images is not known beforehand. So a size is compiled
once as much time has been spent on it as compiling takes: no run takes more than twice as long as it could have. It is
compiled in a thread of its own, while batches go on through the function as it is.
"""

from collections import Counter
from collections.abc import Callable
from math import inf
from threading import Thread
from typing import Generic, TypeVar

import torch
from torch import Tensor

from trapline.errors import in_one_line
from trapline.model.device_errors import is_device_lost, is_device_out_of_memory

# Seconds. Hiera-Base took 68 on two cores, for a CPU; `trapline benchmark model` says what it takes on a GPU.
WORTHWHILE = 60.0

Out = TypeVar("Out")


class Compiled(Generic[Out]):
    """Call a function, compiled where it pays; the answers are the same up to rounding.

    Args:
        function: of one tensor [N, ...], in one graph.
        note: receives a warning where it does not compile.
        mode: of `torch.compile`. Not one with CUDA graphs: torch keeps those by thread, and fails in any other.
        backend: of `torch.compile`.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Out],
        note: Callable[[str], object],
        mode: str | None = None,
        backend: str = "inductor",
    ) -> None:
        self._function = function
        self._note = note
        # In one graph: without `fullgraph`, a graph break or the ninth size would silently run uncompiled.
        self._compiled = torch.compile(function, fullgraph=True, dynamic=False, mode=mode, backend=backend)
        self._sizes: set[int] = set()
        self._seconds = Counter[int]()
        self._worthwhile = WORTHWHILE
        self._beside: Thread | None = None
        self._only_alone: set[int] = set()  # for want of memory

    def __call__(self, batch: Tensor) -> Out:
        """Return what the function returns. One thread at a time; all batches made in inference mode, or none.

        Raises:
            RuntimeError: of the function; or of `compile`, for a size that cannot be compiled beside other work.
        """
        size = len(batch)
        if size not in self._sizes and self._seconds[size] >= self._worthwhile and not self.is_compiling:
            if size in self._only_alone:
                self.compile(batch)
            else:
                self._beside = Thread(target=self._compile_beside, args=(batch.clone(),), daemon=True)
                self._beside.start()
        return (self._compiled if size in self._sizes else self._function)(batch)

    @property
    def is_compiling(self) -> bool:
        """Whether a size is being compiled in the background."""
        return self._beside is not None and self._beside.is_alive()

    def wait(self) -> None:
        """Wait until nothing is compiled in the background."""
        if self._beside:
            self._beside.join()

    def _compile_beside(self, batch: Tensor) -> None:
        # Both modes belong to a thread, and what is compiled in one is not used in another.
        with torch.inference_mode(batch.is_inference()):
            try:
                self.compile(batch)
            except RuntimeError:  # the next call compiles alone, and so meets what is wrong, if it is still there
                self._only_alone.add(len(batch))

    def took(self, size: int, seconds: float) -> None:
        """Record the time that a batch of this size took."""
        self._seconds[size] += seconds  # type: ignore[assignment]

    def compile(self, batch: Tensor) -> bool:
        """Compile for batches of this size, now; return whether it succeeded.

        Where it fails (Triton needs a C compiler, for one), the user is warned and no further size is tried.

        Raises:
            RuntimeError: the device has no memory for it, or is lost: neither says anything about compiling.
        """
        self._function(batch)  # fills the network's caches first, so that they are not compiled
        try:
            self._compiled(batch)
        except Exception as error:  # whatever else the cause, the function itself still works
            if is_device_out_of_memory(error) or is_device_lost(error):
                raise
            self._note(f"the network could not be compiled, and runs as it is, slower: {in_one_line(error)}")
            self._worthwhile = inf
            return False
        self._sizes.add(len(batch))
        return True
