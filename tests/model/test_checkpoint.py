"""Checkpoints that birder writes, and files that only look like them."""

import hashlib
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from birder.common import fs_ops
from birder.conf import settings
from birder.model_registry import registry
from birder.net.base import BaseNet, get_signature
from birder.net.mim.base import get_mim_signature
from safetensors.torch import save_file
from torch import Tensor

from tests.support.numerics import ENOUGH, assert_as_exact, exact
from trapline.errors import CheckpointError, UsageError
from trapline.model.architecture import VARIANTS, Architecture
from trapline.model.checkpoint import PUBLISHED_SHA256, load
from trapline.model.hiera import Hiera

SMALL = {"depths": [1, 1, 1, 1], "embed_dim": 16, "num_heads": 1, "abs_win_pos_embed": True}
RGB_STATS = {"mean": (0.5191, 0.5306, 0.4877), "std": (0.2316, 0.2304, 0.2588)}
BIRDS = {"Parus major": 0, "Turdus merula": 1, "Corvus corone": 2}


def network(classes: int = 3, config: dict[str, Any] | None = None) -> BaseNet:
    """birder's network, whose logits differ as those of trained ones do."""
    torch.manual_seed(0)
    net = registry.net_factory("hiera_abswin_tiny", classes, config=SMALL | (config or {}), size=(64, 64)).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.normal_(float("norm" in name and name.endswith("weight")), 0.2)
    return net


def write_pt(
    folder: Path, net: BaseNet, classes: dict[str, int] = BIRDS, config: dict[str, Any] | None = SMALL
) -> Path:
    """What birder's training leaves."""
    signature = get_signature((0, 3, 64, 64), len(classes))
    before, settings.MODELS_DIR = settings.MODELS_DIR, folder
    try:
        fs_ops.checkpoint_model(
            "small", 1, net, signature, classes, RGB_STATS, None, None, None, None, external_config=config
        )
    finally:
        settings.MODELS_DIR = before
    return folder / "small_1.pt"


def write_safetensors(folder: Path, net: BaseNet, classes: dict[str, int] = BIRDS) -> Path:
    """What birder's `convert-model --st` leaves."""
    signature = get_signature((0, 3, 64, 64), len(classes))
    path = folder / "small.safetensors"
    fs_ops.save_st(net, str(path), str(net.task), classes, signature, RGB_STATS, external_config=SMALL)
    return path


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    contents = torch.load(path, weights_only=True)
    change(contents)
    torch.save(contents, path)
    return path


def write_hollow(path: Path, variant: str) -> Path:
    """A checkpoint of a registered variant, in full shape but with one number stored for each tensor; no config."""
    with torch.device("meta"):
        state = Hiera(VARIANTS[variant], 3, (64, 64)).state_dict()
    state = {name: torch.ones(()).expand(tensor.shape) for name, tensor in state.items()}
    signature = get_signature((0, 3, 64, 64), 3)
    torch.save({"state": state, "class_to_idx": BIRDS, "signature": signature, "rgb_stats": RGB_STATS}, path)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_pt(tmp_path, network())


@contextmanager
def refused(path: Path | str, pattern: str) -> Iterator[None]:
    """An error of one line, which names the file and matches the pattern."""
    with pytest.raises(CheckpointError, match=pattern) as caught:
        yield
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def images(*size: int) -> Tensor:
    return torch.randn(ENOUGH, 3, *(size or (64, 64)))


def assert_same(ours: Hiera, theirs: BaseNet, size: tuple[int, int] = (64, 64)) -> None:
    batch = images(*size)
    with torch.no_grad():
        logits = theirs(batch)
        assert logits.std() > 0.1, "weights this weak would hide an error"
        assert_as_exact(ours(batch), logits, exact(theirs)(batch.double()))


@pytest.mark.parametrize("write", [write_pt, write_safetensors])
def test_a_checkpoint_of_birder_gives_birders_logits(tmp_path: Path, write: Callable[..., Path]) -> None:
    net = network()
    path = write(tmp_path, net)
    model = load(str(path))
    assert_same(model.network, net)
    assert model.classes == ("Parus major", "Turdus merula", "Corvus corone")
    assert (model.size, model.rgb_mean, model.rgb_std) == ((64, 64), RGB_STATS["mean"], RGB_STATS["std"])
    assert (model.variant, model.architecture) == ("custom", Architecture((1, 1, 1, 1), 16, 1, abs_win_pos_embed=True))
    assert model.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.source == str(path)
    assert not model.network.training
    assert not any(parameter.requires_grad for parameter in model.network.parameters())


def test_the_format_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    net = network()
    renamed = write_safetensors(tmp_path, net).rename(tmp_path / "weights.pt")
    assert_same(load(str(renamed)).network, net)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_registered_variant_is_recognised_by_its_tensors(tmp_path: Path, variant: str) -> None:
    model = load(str(write_hollow(tmp_path / "hollow.pt", variant)))
    assert (model.variant, model.architecture) == (variant, VARIANTS[variant])


def test_a_config_overrides_the_variant_that_the_tensors_show(tmp_path: Path) -> None:
    path = rewrite(write_hollow(tmp_path / "hollow.pt", "hiera_tiny"), lambda it: it.update(config={"q_pool": 2}))
    model = load(str(path))
    assert (model.variant, model.architecture.q_pool) == ("custom", 2)


def test_a_config_that_training_alone_needs_changes_nothing(tmp_path: Path) -> None:
    config = {"drop_path_rate": 0.3, "attn_pool_type": "MultiHeadAttentionPool", "attn_pool_num_heads": None}
    path = rewrite(write_hollow(tmp_path / "hollow.pt", "hiera_tiny"), lambda it: it.update(config=config))
    assert load(str(path)).variant == "hiera_tiny"


def test_the_classifier_with_a_hidden_layer_is_read(tmp_path: Path) -> None:
    net = network(config={"mlp_head": True})
    assert_same(load(str(write_pt(tmp_path, net, config=SMALL | {"mlp_head": True}))).network, net)


def test_an_encoder_without_classifier_gives_embeddings(tmp_path: Path) -> None:
    net = network(classes=0)
    model = load(str(write_pt(tmp_path, net, classes={})))
    assert model.classes == ()
    batch = images()
    with torch.no_grad():
        truth = exact(net).embedding(batch.double())
        assert_as_exact(model.network.embedding(batch), net.embedding(batch), truth)
        assert model.network(batch).shape == (len(batch), 0)


def test_another_size_is_adjusted_to_as_birder_does(checkpoint: Path) -> None:
    theirs, _ = fs_ops.load_model(
        torch.device("cpu"), "hiera_abswin_tiny", path=checkpoint, new_size=(96, 128), inference=True
    )
    model = load(str(checkpoint), size=(96, 128))
    assert model.size == (96, 128)
    assert_same(model.network, theirs, (96, 128))


def test_weights_stored_in_half_precision_become_float32(tmp_path: Path) -> None:
    model = load(str(write_pt(tmp_path, network().bfloat16())))
    assert {parameter.dtype for parameter in model.network.parameters()} == {torch.float32}


class TestWrongInvocations:
    def test_an_unknown_architecture_lists_the_known(self, checkpoint: Path) -> None:
        with pytest.raises(UsageError, match=r"hiera_medium.*hiera_tiny, .*hiera_abswin_base_plus_ap"):
            load(str(checkpoint), architecture="hiera_medium")

    def test_a_size_that_windows_do_not_fill_is_refused(self, checkpoint: Path) -> None:
        with pytest.raises(UsageError, match="multiples of 32"):
            load(str(checkpoint), size=(100, 64))

    @pytest.mark.parametrize("name", ["missing.pt", "models/missing.pt", "~/missing.pt", "", "a/b/c"])
    def test_a_file_that_is_not_there_is_said_so(self, name: str) -> None:
        with refused(name, "no such file"):
            load(name)

    def test_a_wrong_architecture_names_the_first_tensor_and_both_shapes(self, tmp_path: Path) -> None:
        path = write_hollow(tmp_path / "hollow.pt", "hiera_abswin_tiny")
        shapes = re.escape("pos_embed is (1, 96, 4, 4), not (1, 256, 96)")
        with refused(path, f"is no hiera_tiny for 64 x 64: {shapes}"):
            load(str(path), architecture="hiera_tiny")
        with refused(path, r"is no hiera_abswin_small .*: body.stage3.7.norm1.weight is none, not \(384,\)"):
            load(str(path), architecture="hiera_abswin_small")

    def test_a_known_file_with_other_contents_shows_both_digests(self, checkpoint: Path) -> None:
        name, published = next(iter(PUBLISHED_SHA256.items()))
        path = checkpoint.rename(checkpoint.with_name(name))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with refused(path, f"{digest}.*{published}"):
            load(str(path))
        assert load(str(path), sha256=digest.upper()).weights_sha256 == digest

    def test_a_digest_that_the_user_names_is_checked(self, checkpoint: Path) -> None:
        with refused(checkpoint, "0{64}"):
            load(str(checkpoint), sha256="0" * 64)

    def test_a_file_that_may_not_be_read_is_said_so(self, checkpoint: Path) -> None:
        checkpoint.chmod(0)
        if os.access(checkpoint, os.R_OK):
            pytest.skip("this user may read everything")
        with refused(checkpoint, "Permission denied"):
            load(str(checkpoint))


class TestFilesThatAreNoCheckpoint:
    @pytest.mark.parametrize("contents", [b"", b"hello", b"<!DOCTYPE html><html></html>", b"\x80\x04N.", bytes(99)])
    def test_other_files_are_no_checkpoint(self, tmp_path: Path, contents: bytes) -> None:
        path = tmp_path / "weights.pt"
        path.write_bytes(contents)
        with refused(path, "is no birder checkpoint"):
            load(str(path))

    @pytest.mark.parametrize("contents", [torch.zeros(3), [1, 2], {"state": 3}, {"a": torch.zeros(3)}], ids=str)
    def test_other_archives_of_torch_are_no_checkpoint(self, tmp_path: Path, contents: object) -> None:
        path = tmp_path / "weights.pt"
        torch.save(contents, path)
        with refused(path, "is no birder checkpoint"):
            load(str(path))

    @pytest.mark.parametrize("key", ["class_to_idx", "signature", "rgb_stats"])
    def test_a_part_that_is_missing_is_named(self, checkpoint: Path, key: str) -> None:
        rewrite(checkpoint, lambda it: it.pop(key))
        with refused(checkpoint, f"is no birder checkpoint: {key}: "):
            load(str(checkpoint))

    def test_a_safetensors_file_without_metadata_is_no_checkpoint(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.safetensors"
        save_file(network().state_dict(), path)
        with refused(path, "is no birder checkpoint: class_to_idx"):
            load(str(path))

    def test_a_zip_of_something_else_is_no_checkpoint(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("DCIM/IMG_0001.JPG", b"")
        with refused(path, "damaged"):
            load(str(path))

    @pytest.mark.parametrize("write", [write_pt, write_safetensors])
    @pytest.mark.parametrize("part", [0.01, 0.5, 0.999])
    def test_a_download_that_was_cut_short_is_said_so(
        self, tmp_path: Path, write: Callable[..., Path], part: float
    ) -> None:
        path = write(tmp_path, network())
        os.truncate(path, int(path.stat().st_size * part))
        with refused(path, "damaged or cut short"):
            load(str(path))

    @pytest.mark.parametrize("archive", [True, False], ids=["archive", "bare pickle"])
    def test_a_file_that_asks_to_run_code_is_refused_and_runs_none(self, tmp_path: Path, archive: bool) -> None:
        class Intruder:
            def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
                return os.system, (f"touch {tmp_path / 'intruded'}",)

        path = tmp_path / "weights.pt"
        if archive:
            torch.save({"state": Intruder()}, path)
        else:
            path.write_bytes(pickle.dumps({"state": Intruder()}))
        with refused(path, "asks to run posix.system" if archive else "is no birder checkpoint"):
            load(str(path))
        assert not (tmp_path / "intruded").exists()


class TestCheckpointsThatCannotBeUsed:
    def test_a_shape_that_is_no_variant_needs_a_config(self, tmp_path: Path) -> None:
        path = write_pt(tmp_path, network(), config=None)
        with refused(path, r"\(1, 1, 1, 1\) blocks, the first of 16 channels.*hiera_tiny, .*hiera_abswin_base_plus_ap"):
            load(str(path))

    def test_a_network_of_another_kind_is_no_variant(self, checkpoint: Path) -> None:
        rewrite(checkpoint, lambda it: it.update(state={"conv.weight": torch.zeros(3)}, config={}))
        with refused(checkpoint, "no known variant"):
            load(str(checkpoint))

    def test_class_names_and_classifier_must_be_as_many(self, checkpoint: Path) -> None:
        rewrite(checkpoint, lambda it: it["class_to_idx"].pop("Corvus corone"))
        with refused(checkpoint, "names 2 classes.*classifier has 3"):
            load(str(checkpoint))

    @pytest.mark.parametrize("indices", [(0, 1, 1), (0, 1, 3), (1, 2, 3)], ids=str)
    def test_class_indices_must_be_each_once(self, checkpoint: Path, indices: tuple[int, ...]) -> None:
        rewrite(checkpoint, lambda it: it.update(class_to_idx=dict(zip(BIRDS, indices, strict=True))))
        with refused(checkpoint, "not 0 to 2, each once"):
            load(str(checkpoint))

    @pytest.mark.parametrize(
        ("shape", "message"), [((0, 4, 64, 64), "takes 4 channels"), ((0, 3, 60, 64), "multiples of 32")]
    )
    def test_inputs_that_no_image_fills_are_refused(
        self, checkpoint: Path, shape: tuple[int, ...], message: str
    ) -> None:
        rewrite(checkpoint, lambda it: it.update(signature=get_signature(shape, 3)))
        with refused(checkpoint, message):
            load(str(checkpoint))

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"attn_pool_type": "EfficientProbing"}, "asks for attn_pool_type"),
            ({"new_trick": True}, "asks for new_trick"),
            ({"depths": [1, 1]}, "depths"),
        ],
        ids=str,
    )
    def test_a_config_that_is_not_supported_is_named(
        self, checkpoint: Path, config: dict[str, object], message: str
    ) -> None:
        rewrite(checkpoint, lambda it: it["config"].update(config))
        with refused(checkpoint, message):
            load(str(checkpoint))

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("part", ["mean", "std"])
    @pytest.mark.parametrize("write", [write_pt, write_safetensors])
    def test_preprocessing_that_is_no_number_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, part: str, write: Callable[..., Path]
    ) -> None:
        monkeypatch.setitem(RGB_STATS, part, (0.5, value, 0.5))
        path = write(tmp_path, network())
        with refused(path, f"is no birder checkpoint: rgb_stats.{part}.1: "):
            load(str(path))

    def test_weights_that_are_no_numbers_are_refused(self, checkpoint: Path) -> None:
        rewrite(checkpoint, lambda it: it["state"]["stem.proj.bias"].fill_(float("nan")))
        with refused(checkpoint, "stem.proj.bias holds NaN or infinity: fetch it again"):
            load(str(checkpoint))

    def test_a_network_for_masked_images_is_refused_and_its_encoder_asked_for(self, tmp_path: Path) -> None:
        whole = registry.mim_net_factory("mae_hiera", network(classes=0), size=(64, 64))
        path = write_pt(tmp_path, whole)
        rewrite(path, lambda it: it.update(class_to_idx={}, signature=get_mim_signature((0, 3, 64, 64))))
        with refused(path, "is for masked_image_modeling.*the encoder alone"):
            load(str(path))
