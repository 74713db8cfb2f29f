"""When something is compiled, and that it then says the same. Most of it holds for whatever compiles."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from threading import Event, Lock
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from tests.support.numerics import ENOUGH, assert_as_exact
from trapline.model.architecture import STAGES, VARIANTS, Architecture
from trapline.model.hiera import Hiera, Output
from trapline.model.lazy_compile import WORTHWHILE, Compiled

SMALL = Architecture((1, 1, 1, 1), 16, 1, abs_win_pos_embed=True)


@pytest.fixture(autouse=True)
def _anew() -> None:
    torch.manual_seed(0)
    torch.compiler.reset()
    counters.clear()


def graphs() -> int:
    """How many have been compiled."""
    return int(counters["stats"]["unique_graphs"])


def fail(note: str) -> None:
    pytest.fail(note)


def of_pixels(architecture: Architecture, dtype: torch.dtype = torch.float32) -> Any:
    """What a predictor has compiled, around a network whose every layer matters, and the same in float64."""
    network = Hiera(architecture, 7, (64, 64)).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim == 1 else 0.03))
    exact = deepcopy(network).double()
    network.to(dtype)
    network.features.float()
    network.classifier.float()

    def answer(pixels: Tensor) -> Output:
        images = (pixels.float().div_(255) - 0.45).div_(0.25).to(dtype)
        logits, embedding, features = network.predict(images, STAGES)
        return Output(logits.float(), embedding.float(), {stage: map_.half() for stage, map_ in features.items()})

    def truth(pixels: Tensor) -> Output:
        return exact.predict((pixels.double() / 255 - 0.45) / 0.25, STAGES)

    return answer, truth


def assert_all_as_exact(found: Output, peer: Output, truth: Output) -> None:
    assert_as_exact(found.logits, peer.logits, truth.logits, "logits")
    assert_as_exact(found.embedding, peer.embedding, truth.embedding, "embedding")
    assert found.features.keys() == truth.features.keys()
    for stage, map_ in found.features.items():
        assert_as_exact(map_, peer.features[stage], truth.features[stage], stage)


@torch.inference_mode()
def pixels(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8)


class TestWhatIsCompiled:
    @staticmethod
    def double() -> Compiled[Tensor]:
        return Compiled(lambda batch: batch * 2, fail, backend="eager")

    def test_is_what_took_long(self) -> None:
        double = self.double()
        for compiled in (0, 0, 1, 1):
            assert double(torch.ones(4)).tolist() == [2] * 4
            double.wait()
            assert graphs() == compiled
            double.took(4, WORTHWHILE / 2)

    def test_is_one_size_and_no_other(self) -> None:
        double = self.double()
        double.took(4, WORTHWHILE)
        for size in (1, 2, 4, 3, 4):
            assert double(torch.ones(size)).tolist() == [2] * size
            double.wait()
        assert graphs() == 1

    def test_is_compiled_once(self) -> None:
        double = self.double()
        for size in (8, 4, 2, 8, 4, 2):
            double.took(size, WORTHWHILE)
            double(torch.ones(size))
            double.wait()
        assert graphs() == 3

    def test_is_compiled_while_batches_go_on(self) -> None:
        go_on, calls = Event(), []

        def slow(graph: Any, _: object) -> Any:
            assert go_on.wait(60)
            return lambda batch: calls.append(threading.current_thread()) or graph(batch)

        double = Compiled(lambda batch: batch * 2, fail, backend=slow)  # type: ignore[arg-type]
        double.took(4, WORTHWHILE)
        for _ in range(3):
            assert double(torch.ones(4)).tolist() == [2] * 4
            assert double.is_compiling
        assert calls == []
        go_on.set()
        double.wait()
        assert double(torch.ones(4)).tolist() == [2] * 4
        assert calls[-1] is threading.current_thread()
        assert (graphs(), double.is_compiling) == (1, False)

    @pytest.mark.parametrize("inference", [True, False])
    def test_is_used_in_the_mode_that_it_was_compiled_in(self, inference: bool) -> None:
        double = self.double()
        double.took(4, WORTHWHILE)
        with torch.inference_mode(inference):
            for _ in range(3):
                double(torch.ones(4))
                double.wait()
        assert graphs() == 1

    def test_that_has_no_memory_beside_other_work_is_compiled_alone(self) -> None:
        errors = [torch.OutOfMemoryError("CUDA out of memory.") for _ in range(2)]
        threads = []

        def full(graph: Any, _: object) -> Any:
            threads.append(threading.current_thread())
            if errors:
                raise errors.pop()
            return graph

        double = Compiled(lambda batch: batch * 2, fail, backend=full)  # type: ignore[arg-type]
        double.took(4, WORTHWHILE)
        assert double(torch.ones(4)).tolist() == [2] * 4
        double.wait()
        with pytest.raises(RuntimeError, match="out of memory"):
            double(torch.ones(4))
        assert double(torch.ones(4)).tolist() == [2] * 4
        here = threading.current_thread()
        assert [thread is here for thread in threads] == [False, True, True]

    def test_is_not_given_up_when_another_size_is_one_too_many_for_torch(self) -> None:
        notes: list[str] = []
        double = Compiled(lambda batch: batch * 2, notes.append, backend="eager")
        assert [double.compile(torch.ones(size)) for size in range(1, 10)] == [True] * 8 + [False]
        assert all(double(torch.ones(size)).tolist() == [2] * size for size in range(1, 10))
        assert len(notes) == 1
        assert graphs() == 8

    def test_never_takes_the_place_of_what_cannot_be_compiled(self) -> None:
        calls = 0

        def broken(*_: object) -> None:
            nonlocal calls
            calls += 1
            raise RuntimeError("no C compiler found,\nset CC")

        notes: list[str] = []
        double = Compiled(lambda batch: batch * 2, notes.append, backend=broken)  # type: ignore[arg-type]
        for size in (4, 4, 8):
            double.took(size, WORTHWHILE)
            assert double(torch.ones(size)).tolist() == [2] * size
            double.wait()
        assert calls == 1
        (note,) = notes
        assert note.startswith("the network could not be compiled, and runs as it is, slower: ")
        assert "no C compiler found, set CC" in note

    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            RuntimeError("Triton Error [CUDA]: out of memory"),
            torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        ],
    )
    def test_is_tried_again_after_an_error_of_the_device(self, error: Exception) -> None:
        errors = [error]

        def full(graph: Any, _: object) -> Any:
            if errors:
                raise errors.pop()
            return graph

        double = Compiled(lambda batch: batch * 2, fail, backend=full)  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="CUDA"):
            double.compile(torch.ones(8))
        assert double.compile(torch.ones(4))
        assert graphs() == 1

    def test_is_never_less_than_all_of_it(self) -> None:
        def torn(batch: Tensor) -> Tensor:
            torch._dynamo.graph_break()
            return batch * 2

        notes: list[str] = []
        double = Compiled(torn, notes.append, backend="eager")
        assert not double.compile(torch.ones(4))
        assert double(torch.ones(4)).tolist() == [2] * 4
        assert len(notes) == 1


@pytest.mark.parametrize("name", ["hiera_tiny", "hiera_abswin_tiny", "hiera_abswin_base_plus_ap"])
def test_every_kind_of_network_is_one_graph_whatever_thread_calls_it(name: str) -> None:
    answer, truth = of_pixels(Architecture(**{**vars(VARIANTS[name]), "depths": (1, 1, 1, 1)}))
    network = Compiled(answer, fail, backend="aot_eager")

    in_turn = Lock()

    def check(images: Tensor) -> None:
        with torch.inference_mode(), in_turn:
            assert_all_as_exact(network(images), answer(images), truth(images))

    with torch.inference_mode():
        assert network.compile(pixels(ENOUGH))
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(check, [pixels(ENOUGH) for _ in range(4)]))
    assert graphs() == 1


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_by_inductor_it_gives_the_answers_that_it_gave(dtype: torch.dtype) -> None:
    (answer, truth), images = of_pixels(SMALL, dtype), pixels(ENOUGH)
    network = Compiled(answer, fail)
    with torch.inference_mode():
        assert network.compile(images)
        peer = answer(images)
        assert peer.embedding.std() > 0.1, "weights this weak would hide an error"
        assert_all_as_exact(network(images), peer, truth(images))
    assert graphs() == 1
