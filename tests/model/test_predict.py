from collections.abc import Callable, Iterable
from dataclasses import fields
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.support.archives import write_tiny_checkpoint
from tests.support.numerics import assert_same_images, birders, smooth_pixels
from trapline.errors import FatalError, UsageError
from trapline.model import checkpoint
from trapline.model.architecture import STAGES
from trapline.model.cpu_threads import CpuThreads
from trapline.model.gpu import Gpu
from trapline.model.hiera import Output
from trapline.model.predict import Predictor

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    """Eleven pictures: no multiple of the batch sizes below."""
    return smooth_pixels(11)


@pytest.fixture
def predictor(tiny_model: Path) -> Callable[..., Predictor]:
    def make(
        batch_size: int = 4, precision: Any = "fp32", device: Any = "cpu", stages: Any = (), threads: int = 1
    ) -> Predictor:
        return Predictor(
            checkpoint.load(str(tiny_model)), device, precision, batch_size, stages, threads=CpuThreads(threads)
        )

    return make


class TestTheAnswer:
    def test_in_fp32_is_that_of_birder(self, predictor: Callable[..., Predictor], tiny_model: Path) -> None:
        pixels = smooth_pixels()
        expected = birders(tiny_model, pixels, STAGES)
        assert expected.truth["probabilities"].std(dim=0).max() > 0.02  # or else any image could pass for any other
        expected.check(predictor(stages=STAGES)(pixels))

    def test_in_bf16_is_as_near_as_that_of_birder(self, predictor: Callable[..., Predictor], tiny_model: Path) -> None:
        pixels = smooth_pixels()
        fast = predictor(precision="bf16", stages=("stage4",))(pixels)
        birders(tiny_model, pixels, ["stage4"], "bf16").check(fast)
        assert (fast.probabilities != predictor()(pixels).probabilities).any()

    def test_has_the_types_that_rows_have(self, predictor: Callable[..., Predictor], pixels: Pixels) -> None:
        for precision in ("fp32", "bf16"):
            found = predictor(precision=precision, stages=("stage3",))(pixels)
            assert {found.probabilities.dtype, found.energy.dtype, found.embedding.dtype} == {np.dtype(np.float32)}
            assert found.features["stage3"].dtype == np.float16
            assert (found.in_bf16 is None) == (precision == "fp32")
            assert found.in_bf16 is None or found.in_bf16.tolist() == [True] * len(pixels)
            assert {len(found.probabilities), len(found.energy), len(found.embedding)} == {len(pixels)}
            ulp = np.finfo(np.float32).eps  # each of five is rounded, and so are their sums
            np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=0, atol=10 * ulp)

    @pytest.mark.parametrize("batch_size", [1, 3, 11, 64])
    def test_does_not_depend_on_the_batch(
        self, predictor: Callable[..., Predictor], tiny_model: Path, batch_size: int
    ) -> None:
        pixels = smooth_pixels(67)  # a multiple of none of them but one
        found = predictor(batch_size=batch_size, stages=("stage4",))(pixels)
        birders(tiny_model, pixels, ["stage4"]).check(found)

    @pytest.mark.parametrize("threads", [2, 3, 8])
    @pytest.mark.parametrize("count", [2, 7, 67])
    def test_does_not_depend_on_the_threads(
        self, predictor: Callable[..., Predictor], threads: int, count: int
    ) -> None:
        pixels = smooth_pixels(count)
        found = predictor(batch_size=64, stages=("stage4",), threads=threads)
        assert_same_images(found(pixels), predictor(stages=("stage4",))(pixels))

    @pytest.mark.parametrize(("given", "passes"), [(None, [2, 1]), (4, [1, 1, 1])])
    def test_for_few_images_is_divided_by_operations_or_by_images(
        self, tiny_model: Path, given: int | None, passes: list[int]
    ) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(4)
        try:
            few = Predictor(checkpoint.load(str(tiny_model)), "cpu", "fp32", 8, threads=CpuThreads(given))
        finally:
            torch.set_num_threads(before)
        tried = TestOutOfMemory.refuse(few, repeat(8), TestOutOfMemory.of_the_cpu)
        few(smooth_pixels(3))
        assert tried == passes

    def test_leaves_the_pixels_alone_and_takes_them_read_only(
        self, predictor: Callable[..., Predictor], pixels: Pixels, recwarn: pytest.WarningsRecorder
    ) -> None:
        before, shared = pixels.copy(), pixels.view()
        shared.flags.writeable = False
        predictor()(shared)
        np.testing.assert_array_equal(pixels, before)

    def test_without_a_classifier_has_no_probabilities(self, tmp_path: Path, pixels: Pixels) -> None:
        model = checkpoint.load(str(write_tiny_checkpoint(tmp_path, classes=0)))
        found = Predictor(model, "cpu", "fp32", 4)(pixels)
        assert found.probabilities.shape == (11, 0)
        assert np.isneginf(found.energy).all()
        assert np.isfinite(found.embedding).all()


class TestOutOfMemory:
    """The device is made to refuse; the network, and the allocator that refuses, are the real ones."""

    @staticmethod
    def refuse(predictor: Predictor, limits: Iterable[int], refusal: Callable[[], object]) -> list[int]:
        """Lets each pass of the network fail above the next of these batch sizes; gives the sizes that are tried."""
        tried: list[int] = []
        limit = iter(limits)
        predict = predictor.network.predict_tokens

        def limited(tokens: torch.Tensor, stages: tuple[str, ...]) -> Output:
            tried.append(len(tokens))
            if len(tokens) > next(limit):
                refusal()
            return predict(tokens, stages)

        predictor.network.predict_tokens = limited  # type: ignore[method-assign]
        return tried

    @staticmethod
    def of_the_cpu() -> object:
        return torch.empty(2**50)

    @staticmethod
    def of_a_gpu() -> object:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    @pytest.mark.parametrize("refusal", [of_the_cpu, of_a_gpu])
    def test_halves_the_batch_for_good_and_carries_on(
        self, predictor: Callable[..., Predictor], pixels: Pixels, refusal: Callable[[], object]
    ) -> None:
        small = predictor(batch_size=8, stages=("stage4",))
        tried = self.refuse(small, repeat(1), refusal)
        assert_same_images(small(pixels), predictor(stages=("stage4",))(pixels))
        assert tried == [2, *[1] * len(pixels)]  # a CPU never passes more than two
        assert small.batch_size == 1

    def test_in_one_of_several_threads_loses_and_repeats_nothing(
        self, predictor: Callable[..., Predictor], pixels: Pixels
    ) -> None:
        small = predictor(batch_size=8, threads=2)
        tried = self.refuse(small, chain([2, 2, 1], repeat(2)), self.of_the_cpu)
        assert_same_images(small(pixels), predictor()(pixels))
        assert small.batch_size == 1
        assert sum(tried) == len(pixels) + 2

    def test_midway_loses_and_repeats_nothing(self, predictor: Callable[..., Predictor], pixels: Pixels) -> None:
        small = predictor(batch_size=4)
        tried = self.refuse(small, chain([2, 1], repeat(2)), self.of_a_gpu)
        assert_same_images(small(pixels), predictor()(pixels))
        assert tried == [2, 2, *[1] * 9]

    @pytest.mark.parametrize("refusal", [of_the_cpu, of_a_gpu])
    def test_with_a_single_image_is_fatal_and_not_tried_again(
        self, predictor: Callable[..., Predictor], pixels: Pixels, refusal: Callable[[], object]
    ) -> None:
        none = predictor(batch_size=4)
        tried = self.refuse(none, repeat(0), refusal)
        with pytest.raises(FatalError, match=r"^device cpu: out of memory with a single image; .*use another"):
            none(pixels)
        assert tried == [2, 1]

    def test_is_not_what_other_errors_are_taken_for(self, predictor: Callable[..., Predictor], pixels: Pixels) -> None:
        def illegal() -> None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        broken = predictor()
        tried = self.refuse(broken, repeat(0), illegal)
        with pytest.raises(RuntimeError, match="illegal memory access"):
            broken(pixels)
        assert tried == [2]


class TestPrecision:
    def test_bf16_leaves_the_head_in_fp32(self, predictor: Callable[..., Predictor]) -> None:
        network = predictor(precision="bf16").network
        assert {parameter.dtype for parameter in network.body.parameters()} == {torch.bfloat16}
        head = [*network.features.parameters(), *network.classifier.parameters()]
        assert {parameter.dtype for parameter in head} == {torch.float32}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_said(predictor: Callable[..., Predictor]) -> None:
    with pytest.raises(UsageError, match="device cuda: torch finds no GPU here; choose --device cpu"):
        predictor(device="cuda")


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [2]), (3, [2, 2]), (6, [2, 2, 2]), (7, [8]), (8, [8]), (9, [8, 2]), (11, [8, 2, 2])]
)
def test_passes_of_a_gpu_are_of_two_sizes(
    predictor: Callable[..., Predictor], pixels: Pixels, count: int, sizes: list[int]
) -> None:
    padded = predictor()
    padded.gpu, padded.batch_size = Gpu(padded.answer, padded.device, pytest.fail), 8
    found = TestOutOfMemory.refuse(padded, repeat(8), TestOutOfMemory.of_a_gpu)
    assert_same_images(padded(pixels[:count]), predictor()(pixels[:count]))
    assert found == sizes


@pytest.mark.gpu
class TestOnAGpu:
    @pytest.mark.parametrize("count", [1, 3, 8, 9, 11])
    def test_padding_to_two_sizes_changes_no_answer(
        self, predictor: Callable[..., Predictor], pixels: Pixels, count: int
    ) -> None:
        gpu = predictor(batch_size=8, device="cuda", stages=("stage4",))
        sizes = TestOutOfMemory.refuse(gpu, repeat(8), TestOutOfMemory.of_a_gpu)
        found = gpu(pixels[:count])
        assert_same_images(found, predictor(stages=("stage4",))(pixels[:count]))
        assert sizes == {1: [2], 3: [2, 2], 8: [8], 9: [8, 2], 11: [8, 2, 2]}[count]
        assert {len(getattr(found, field.name)) for field in fields(found) if field.name != "features"} == {count}

    def test_memory_that_is_really_used_up_halves_the_batch(
        self, predictor: Callable[..., Predictor], pixels: Pixels
    ) -> None:
        gpu = predictor(batch_size=8, device="cuda")
        expected = gpu(pixels)
        TestOutOfMemory.refuse(gpu, repeat(3), lambda: torch.empty(2**50, device="cuda"))
        assert_same_images(gpu(pixels), expected)
        assert gpu.batch_size == 2
