"""A function of a batch, compiled for the sizes of batch that are worth it.

Compiling the network takes a minute or so for each size, on a machine where nobody did it before (torch keeps what came
of it on disk). A run over a few thousand images would wait for longer than it saves, and nobody knows beforehand how
many images a run has. So a size is compiled once as much time has been spent on it as compiling takes: no run takes
twice as long as it would have taken had it known.
"""

from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Generic, TypeVar

import torch
from torch import Tensor

from trapline.errors import in_one_line

# Seconds. Hiera-Base took 68 on two cores, for a CPU; `trapline benchmark model` says what it takes on a GPU.
WORTHWHILE = 60.0

Out = TypeVar("Out")


class Compiled(Generic[Out]):
    """The function, with the same answers up to rounding.

    Args:
        function: of one tensor [N, ...], in one graph.
        note: is told where it does not compile.
        mode: of `torch.compile`. Not one with CUDA graphs: torch keeps those by thread, and fails in any other.
        backend: likewise.
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
        # In one graph, or else what does not compile, and the ninth size, would go on uncompiled without a word.
        self._compiled = torch.compile(function, fullgraph=True, dynamic=False, mode=mode, backend=backend)
        self._sizes: set[int] = set()
        self._seconds = Counter[int]()
        self._worthwhile = WORTHWHILE

    def __call__(self, batch: Tensor) -> Out:
        """What the function gives. By one thread at a time; of batches made in inference mode, or of none that are."""
        size = len(batch)
        if size not in self._sizes and self._seconds[size] >= self._worthwhile:
            self.compile(batch)
        return (self._compiled if size in self._sizes else self._function)(batch)

    def took(self, size: int, seconds: float) -> None:
        """A batch of that size took so long."""
        self._seconds[size] += seconds  # type: ignore[assignment]

    def compile(self, batch: Tensor) -> bool:
        """Compiles for batches as large as this one, now; gives whether it did.

        Where it cannot (there may be no C compiler, which Triton needs), it says so, and is not tried again.
        """
        self._function(batch)  # which may keep what it computes but once; it is no part of what is compiled
        try:
            self._compiled(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, there is another way
            self._note(f"the network could not be compiled, and runs as it is, slower: {in_one_line(error)}")
            self._worthwhile = inf
            return False
        self._sizes.add(len(batch))
        return True
