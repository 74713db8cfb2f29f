from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.archives import write_tiny_checkpoint
from trapline.errors import UsageError
from trapline.model import checkpoint, cpu_kernels
from trapline.model.checkpoint import Model
from trapline.model.precision import multiplies_in_bf16, resolve_precision


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return checkpoint.load(str(tiny_model))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return checkpoint.load(str(write_tiny_checkpoint(tmp_path_factory.mktemp("encoder"), classes=0)))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "checked"])
def test_that_is_asked_for_is_what_one_gets(model: Model, device: Any, precision: Any) -> None:
    assert resolve_precision(precision, device, model) == precision


def test_that_is_left_open_depends_on_the_device(model: Model) -> None:
    assert [resolve_precision("auto", device, model) for device in ("cpu", "cuda")] == ["fp32", "bf16"]


@pytest.mark.parametrize("native", [False, True])
def test_an_archive_is_checked_where_the_cpu_multiplies_in_bf16(
    monkeypatch: pytest.MonkeyPatch, model: Model, encoder: Model, native: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: native)
    faster = native and cpu_kernels.available()
    assert resolve_precision("auto", "cpu", model, archive=True) == ("checked" if faster else "fp32")
    assert resolve_precision("auto", "cpu", encoder, archive=True) == "fp32"
    assert resolve_precision("auto", "cuda", model, archive=True) == "bf16"


def test_checked_needs_classes(encoder: Model) -> None:
    with pytest.raises(UsageError, match=r"--precision checked: .* has no classes to be checked; choose fp32 or bf16"):
        resolve_precision("checked", "cpu", encoder)


@pytest.mark.parametrize(("avx512", "amx"), [(False, False), (True, False), (False, True)])
def test_bf16_is_known_to_be_native_or_emulated(monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert multiplies_in_bf16("cpu") == ((avx512 or amx) and cpu_kernels.available())
    assert multiplies_in_bf16("cuda")
