"""What the libraries of a GPU say, in their own words."""

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor.exc import InductorError

from trapline.errors import FatalError
from trapline.model.device_errors import is_device_lost, is_device_out_of_memory

NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]
LOST = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
    torch.AcceleratorError("CUDA error: unspecified launch failure"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( handle, opa, opb, …)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
]
NEITHER = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"),
    RuntimeError("out of resource: shared memory, Required: 262144, Hardware limit: 232448"),
    ValueError("images of (32, 32) in a network for (64, 64)"),
    RuntimeError("Cannot find a working triton installation"),
]


def wrapped(error: Exception) -> list[Exception]:
    """The error as torch.compile wraps it, and as Python chains it."""
    chained = RuntimeError("the pass failed")
    chained.__cause__ = error
    return [error, BackendCompilerFailed(print, error, None), InductorError(error, None), chained]


@pytest.mark.parametrize("error", NO_MEMORY, ids=str)
def test_a_lack_of_memory_is_one_in_every_spelling(error: Exception) -> None:
    for each in wrapped(error):
        assert is_device_out_of_memory(each)
        assert not is_device_lost(each)


@pytest.mark.parametrize("error", LOST, ids=str)
def test_a_context_that_is_lost_is_no_lack_of_memory(error: Exception) -> None:
    for each in wrapped(error):
        assert is_device_lost(each)
        assert not is_device_out_of_memory(each)


@pytest.mark.parametrize("error", NEITHER, ids=str)
def test_other_errors_are_neither(error: Exception) -> None:
    for each in wrapped(error):
        assert not is_device_lost(each)
        assert not is_device_out_of_memory(each)


def test_what_is_already_explained_to_the_user_leaves_the_device_alone() -> None:
    error = FatalError("device cuda: out of memory with a single image; free some or use another")
    error.__cause__ = LOST[0]
    assert not is_device_lost(error)
