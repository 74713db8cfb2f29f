"""Tell apart errors of a device after which a smaller batch helps, and those after which only a new process does.

After an illegal access, an ECC error or the like, a process cannot use its GPU any more: each later call fails with the
same error. torch raises an `AcceleratorError` for errors of the CUDA runtime, and plain RuntimeErrors for cuBLAS, cuDNN
and Triton.
"""

from collections.abc import Iterator

import torch

from trapline.errors import TraplineError, is_out_of_memory

# cuBLAS is "not initialized" if there was no memory for its handle.
_NO_MEMORY = (
    "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED", "CUDNN_STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",
)  # fmt: skip
_OF_THE_DEVICE = ("CUDA error", "HIP error", "cuDNN error", "CUBLAS_STATUS_", "CUDNN_STATUS_", "Triton Error [CUDA]")


def is_device_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed, on a GPU or a CPU, whichever library reports it."""
    return any(
        isinstance(each, torch.OutOfMemoryError)
        or is_out_of_memory(each)
        or (isinstance(each, RuntimeError) and any(words in str(each) for words in _NO_MEMORY))
        for each in _chain(error)
    )


def is_device_lost(error: BaseException) -> bool:
    """Return whether the device reports an error other than a lack of memory, so that this process cannot use it."""
    if isinstance(error, TraplineError) or is_device_out_of_memory(error):
        return False
    return any(
        isinstance(each, torch.AcceleratorError)
        or (isinstance(each, RuntimeError) and any(words in str(each) for words in _OF_THE_DEVICE))
        for each in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and those inside it: an error of torch.compile wraps the one that ended the compilation."""
    inner: BaseException | None = error
    while inner is not None:
        yield inner
        inner = getattr(inner, "inner_exception", None) or inner.__cause__
