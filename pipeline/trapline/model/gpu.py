"""Copies to and from a GPU while it computes.

Several threads call, each with its batch. While the device works on one, the pixels of another are copied
to it, and the answers to a third are copied back. Each thread has a stream of its own for copies; all compute on the
same one, in turn.
"""

import threading
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from trapline.model.hiera import Output
from trapline.model.lazy_compile import Compiled

# Blocks along one side of a CUDA grid: torch's attention kernels refuse more windows, or are run in another kernel.
MOST_WINDOWS = 65_535


class Busy:
    """Measure the time in which there is a call, counted once where calls of several threads overlap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._counted = 0.0

    def begin(self) -> None:
        """Note that a call begins."""
        with self._lock:
            if not self._calls:
                self._counted = perf_counter()
            self._calls += 1

    def end(self) -> float:
        """Note that a call ends; return the seconds with a call that no other call has counted."""
        with self._lock:
            now = perf_counter()
            seconds, self._counted = now - self._counted, now
            self._calls -= 1
        return seconds


class Gpu:
    """Run a function on a device, with copies beside the computing; several threads may call it.

    Args:
        answer: pixels uint8 [N, 3, H, W] on the device to answers there.
        device: a GPU. A CPU has no streams: there the steps run one after the other.
        note: receives warnings for the user.
    """

    def __init__(self, answer: Callable[[Tensor], Output], device: torch.device, note: Callable[[str], object]) -> None:
        self.answer = Compiled(answer, note)
        self._device = device
        self._streams: Any = torch.get_device_module(device)
        # A thread that spins until its answers are there would take a core from decoding.
        on_gpu = device.type == "cuda"
        self._event: Callable[[], Any] = partial(torch.cuda.Event, blocking=True) if on_gpu else self._streams.Event
        self._empty = partial(torch.empty, dtype=torch.uint8, pin_memory=on_gpu)
        self._own = threading.local()
        self._turn = threading.Lock()
        self._busy = Busy()

    def __call__(self, pixels: Tensor, size: int) -> Output:
        """Return answers to pixels uint8 [N, 3, H, W], both in the host's memory, from a pass over `size` images.

        The padding is left uninitialised; its answers are dropped.
        """
        self._busy.begin()
        try:
            answers = self._answers(pixels, size)
        finally:
            seconds = self._busy.end()
        self.answer.took(size, seconds)
        return answers

    def _answers(self, pixels: Tensor, size: int) -> Output:
        # torch reuses pinned memory once the copy is done.
        batch = self._empty(size, *pixels.shape[1:])
        batch[: len(pixels)] = pixels
        copies = self._copies()
        with self._streams.stream(copies):
            images = batch.to(self._device, non_blocking=True)
        with self._turn:
            computing = self._streams.current_stream()
            computing.wait_stream(copies)
            output = self.answer(images)
            copies.wait_stream(computing)
        # Until `done`, this call holds references to all that the streams use, so that torch cannot reuse the memory.
        done = self._event()
        with self._streams.stream(copies):
            answers = _map(output, lambda part: part[: len(pixels)].to("cpu", non_blocking=True))
            done.record()
        done.synchronize()
        return answers

    def _copies(self) -> Any:
        if not hasattr(self._own, "stream"):
            self._own.stream = self._streams.Stream()
        return self._own.stream


def _map(output: Output, function: Callable[[Tensor], Tensor]) -> Output:
    logits, embedding, features = output
    return Output(function(logits), function(embedding), {stage: function(map_) for stage, map_ in features.items()})
