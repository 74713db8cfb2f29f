"""What is decided once: all nights and all workers compute alike, whatever processor each has."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.rows import COLUMNS, chunk, shard
from trapline.config import RunConfig
from trapline.model import checkpoint
from trapline.model.checkpoint import Model
from trapline.model.precision import resolve_precision
from trapline.model.rounding import measure_bound
from trapline.results import ledger
from trapline.run.job import fingerprint
from trapline.run.precision import choose_precision
from trapline.run.writer import commit


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return checkpoint.load(str(tiny_model))


@pytest.fixture(params=[False, True], ids=["emulated", "native"], autouse=True)
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With and without bfloat16 of its own."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: request.param)
    return iter([None])


def result(output: Path, name: str, model: Model, *how: Any) -> None:
    """A result of a model, written with a precision and a bound."""
    config = RunConfig(inputs=("archive",), output=str(output), model="model.pt")
    precision, bound = how
    commit([chunk(shard(str(output), name))], COLUMNS, fingerprint(config, model, precision, bound=bound))


def settled(asked: Any, model: Model, output: Path) -> tuple[str, float | None]:
    return choose_precision(asked, model, "cpu", ledger.survey(str(output)))


def test_in_an_empty_output_it_is_that_of_the_processor_or_what_was_asked_for(model: Model, tmp_path: Path) -> None:
    assert settled("auto", model, tmp_path)[0] == resolve_precision("auto", "cpu", model, archive=True)
    assert settled("fp32", model, tmp_path) == ("fp32", None)
    assert settled("bf16", model, tmp_path) == ("bf16", None)
    assert settled("checked", model, tmp_path) == ("checked", measure_bound(model))


@pytest.mark.parametrize("before", [("fp32", None), ("bf16", None), ("checked", 0.125)])
def test_what_is_left_open_stays_as_it_is_in_the_output(model: Model, tmp_path: Path, before: Any) -> None:
    result(tmp_path, "a.tar", model, *before)
    assert settled("auto", model, tmp_path) == before


def test_the_bound_of_the_output_is_kept(model: Model, tmp_path: Path) -> None:
    result(tmp_path, "a.tar", model, "checked", 0.125)
    result(tmp_path, "b.tar", model, "fp32", None)
    result(tmp_path, "c.tar", model, "fp32", None)
    assert settled("checked", model, tmp_path) == ("checked", 0.125)
    assert settled("auto", model, tmp_path) == ("fp32", None)  # what most of them are


def test_what_is_asked_for_is_not_overruled(model: Model, tmp_path: Path) -> None:
    result(tmp_path, "a.tar", model, "fp32", None)
    assert settled("bf16", model, tmp_path) == ("bf16", None)
    assert settled("checked", model, tmp_path) == ("checked", measure_bound(model))


def test_results_of_another_model_do_not_count(model: Model, tiny_model: Path, tmp_path: Path) -> None:
    larger = checkpoint.load(str(tiny_model), size=(96, 96))
    result(tmp_path, "a.tar", larger, "checked", 64.0)
    assert settled("checked", model, tmp_path) == ("checked", measure_bound(model))
    assert settled("auto", model, tmp_path)[0] == resolve_precision("auto", "cpu", model, archive=True)
