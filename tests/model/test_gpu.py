"""Copies beside computing. On a CPU the same code runs, without streams; what only a GPU can show is skipped there."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from jobs.benchmark.model import random_model
from tests.support.numerics import assert_as_exact, assert_same_images
from trapline.model import blocks, checkpoint, gpu
from trapline.model.attention_kernels import choose_kernels
from trapline.model.gpu import MOST_WINDOWS, Busy, Gpu
from trapline.model.hiera import Output
from trapline.model.predict import Predictor
from trapline.model.predictions import Predictions

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fail(note: str) -> None:
    pytest.fail(note)


def sums(pixels: Tensor) -> Output:
    """Answers that tell which image they are about, and how many were in the pass; integers below 2^24, so exact."""
    sums = pixels.flatten(1).float().sum(dim=1)
    return Output(sums[:, None], torch.full_like(sums, len(pixels))[:, None], {"stage1": sums[:, None].half()})


def images(count: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, 64, 64), dtype=np.uint8))


class TestAPass:
    def test_answers_about_the_images_and_not_about_what_fills_it_up(self) -> None:
        answers = Gpu(sums, DEVICE, fail)(images(3), 8)
        assert torch.equal(answers.logits, sums(images(3)).logits)
        assert answers.embedding.flatten().tolist() == [8, 8, 8]
        assert answers.features["stage1"].shape == (3, 1)
        assert {answers.logits.device.type, answers.features["stage1"].device.type} == {"cpu"}

    def test_leaves_nothing_of_it_in_the_next(self) -> None:
        device = Gpu(sums, DEVICE, fail)
        for seed in range(20):
            assert torch.equal(device(images(5, seed), 8).logits, sums(images(5, seed)).logits)

    def test_of_one_thread_is_not_mixed_with_that_of_another(self) -> None:
        device = Gpu(sums, DEVICE, fail)

        def right(seed: int) -> bool:
            batch = images(1 + seed % 4, seed)
            with torch.inference_mode():
                answers = device(batch, 4)
            return torch.equal(answers.logits, sums(batch).logits)

        with ThreadPoolExecutor(3) as threads:
            assert all(threads.map(right, range(200)))

    def test_is_counted_for_what_is_worth_compiling(self, monkeypatch: pytest.MonkeyPatch) -> None:
        took: list[tuple[int, float]] = []
        device = Gpu(sums, DEVICE, fail)
        monkeypatch.setattr(device.answer, "took", lambda *now: took.append(now))
        device(images(3), 4)
        ((size, seconds),) = took
        assert size == 4
        assert 0 < seconds < 60


def test_time_that_two_calls_share_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, busy = 0.0, Busy()
    monkeypatch.setattr(gpu, "perf_counter", lambda: now)

    def at(time: float, step: Callable[[], float | None]) -> float | None:
        nonlocal now
        now = time
        return step()

    begin, end = busy.begin, busy.end
    in_order = [(1, begin), (2, begin), (4, end), (6, end)]
    one_within_another = [(10, begin), (15, begin), (18, end), (20, end)]
    found = [at(time, step) for time, step in [*in_order, *one_within_another, (30, begin), (31, end)]]
    assert [seconds for seconds in found if seconds is not None] == [3, 2, 8, 2, 1]


def test_a_predictor_answers_several_threads_as_it_does_one(tiny_model: Path) -> None:
    predictor = Predictor(checkpoint.load(str(tiny_model)), DEVICE.type, "fp32", 4)  # type: ignore[arg-type]
    batches = [images(6, seed).numpy() for seed in range(6)]
    alone = [predictor(batch) for batch in batches]
    with ThreadPoolExecutor(3) as threads:
        for found, expected in zip(threads.map(predictor, batches), alone, strict=True):
            assert_same_images(found, expected)


@pytest.mark.gpu
class TestOnAGpu:
    """Hiera-Base, as it is used."""

    @pytest.fixture(scope="class")
    def predictor(self) -> Predictor:
        return Predictor(random_model(), "cuda", "bf16", 4)

    @pytest.mark.parametrize(("over_images", "expected"), [("flash", {"flash"}), ("cudnn", {"flash", "cudnn"})])
    def test_attention_is_the_kernel_of_its_place(self, over_images: Any, expected: set[str]) -> None:
        predictor = Predictor(random_model(), "cuda", "bf16", 4)
        before = predictor(random_pixels(4))
        choose_kernels(predictor.network, "flash", over_images)
        with torch.profiler.profile() as profile:
            found = predictor(random_pixels(4))
        names = {event.key for event in profile.key_averages() if "_scaled_dot_product_" in event.key}
        assert names == {f"aten::_scaled_dot_product_{kernel}_attention" for kernel in expected}
        assert least_cosine(found, before) >= 0.9995

    def test_as_many_windows_as_may_be_are_attended_to_in_one_pass(self) -> None:
        predictor = Predictor(random_model("hiera_abswin_tiny", (1024, 1024)), "cuda", "bf16", 10_000)
        assert predictor.batch_size == MOST_WINDOWS // 1024
        qkv = torch.randn(predictor.batch_size, 1024, 4, 96, device="cuda", dtype=torch.bfloat16)
        attended = blocks.attend(qkv, 1, pool=False, windowed=True)
        last = qkv[-1:].cpu()
        peer, truth = (blocks.attend(each, 1, pool=False, windowed=True) for each in (last, last.double()))
        assert_as_exact(attended[-1:], peer, truth)

    def test_compiled_sizes_are_compiled_once_and_give_the_same(self, predictor: Predictor) -> None:
        assert predictor.gpu
        counters.clear()
        before = predictor(random_pixels(4))
        for size in (4, 1):
            with torch.inference_mode():
                assert predictor.gpu.answer.compile(torch.from_numpy(random_pixels(size)).cuda())
        with ThreadPoolExecutor(2) as threads:
            for found in threads.map(predictor, [random_pixels(4)] * 4 + [random_pixels(1)] * 4):
                assert least_cosine(found, before) >= 0.9995
        assert counters["stats"]["unique_graphs"] == 2

    def test_pixels_are_copied_while_another_batch_is_computed(self) -> None:
        computed, meanwhile = torch.cuda.Event(), []

        def slow(pixels: Tensor) -> Output:
            time.sleep(0.1)  # for the copy, which this thread has asked for
            meanwhile.append(device._copies().query() and not computed.query())
            torch.cuda._sleep(10**9)  # cycles: half a second
            computed.record()
            return sums(pixels)

        device = Gpu(slow, torch.device("cuda"), fail)
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda seed: device(images(2, seed), 2), range(6)))
        assert any(meanwhile)


def least_cosine(found: Predictions, expected: Predictions) -> float:
    pairs = (torch.from_numpy(each.embedding[: len(found.embedding)]) for each in (found, expected))
    return float(torch.cosine_similarity(*pairs).min())


def random_pixels(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 3, 384, 384), dtype=np.uint8)
