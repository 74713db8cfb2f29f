"""A function of a batch, compiled for the batch sizes that are worth it.

Compiling the network takes about a minute for each size, unless torch has it in its cache on disk. A run over a few
thousand images would wait longer than it saves, and the number of images is not known beforehand. So a size is compiled
once as much time has been spent on it as compiling takes: no run takes more than twice as long as it could have.
"""

from collections import Counter
from collections.abc import Callable
from math import inf
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

    def __call__(self, batch: Tensor) -> Out:
        """Return what the function returns. One thread at a time; all batches made in inference mode, or none."""
        size = len(batch)
        if size not in self._sizes and self._seconds[size] >= self._worthwhile:
            self.compile(batch)
        return (self._compiled if size in self._sizes else self._function)(batch)

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
