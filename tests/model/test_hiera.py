"""The network against birder's, on the same weights."""

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from birder.model_registry import registry
from birder.net.base import BaseNet
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.support.numerics import assert_as_exact, exact
from trapline.model.architecture import STAGES, VARIANTS, Architecture
from trapline.model.hiera import Hiera

SMALL = Architecture((1, 1, 1, 1), 16, 1, abs_win_pos_embed=True)


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def pair(name: str, size: tuple[int, int], classes: int = 7, **config: object) -> tuple[BaseNet, Hiera]:
    """birder's network and ours with the same weights, which tell classes apart as trained ones do."""
    with torch.device("meta"):  # drawing their initial weights would take most of the time
        theirs = registry.net_factory(name, classes, config=config or None, size=size)
    theirs.to_empty(device="cpu")
    for parameter_name, parameter in theirs.named_parameters():
        if "norm" in parameter_name or parameter.ndim == 1:
            parameter.normal_(1 if parameter_name.endswith("weight") else 0, 0.1)
        else:
            parameter.normal_(0, 0.4 if parameter_name.startswith("pos_embed") else 0.02)

    architecture = Architecture(**{**vars(VARIANTS[name]), **config})
    ours = bare(architecture, classes, size)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    return theirs.eval(), ours.eval()


def bare(architecture: Architecture, classes: int, size: tuple[int, int]) -> Hiera:
    with torch.device("meta"):
        return Hiera(architecture, classes, size)


def assert_same(theirs: BaseNet, ours: Hiera, images: Tensor) -> None:
    output = ours.predict(images, STAGES)
    found = {"logits": output.logits, "embedding": output.embedding, **output.features}
    peer, truth = (answers(network, images) for network in (theirs, exact(theirs)))
    assert peer["logits"].std() > 0.1, "weights this weak would hide an error"
    assert found.keys() == truth.keys()
    for part, values in found.items():
        assert_as_exact(values, peer[part], truth[part], part)


def answers(network: BaseNet, images: Tensor) -> dict[str, Tensor]:
    images = images.to(next(network.parameters()).dtype)
    embedding = network.embedding(images)
    return {
        "logits": network.classify(embedding),
        "embedding": embedding,
        **network.detection_features(images),
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_computes_what_birders_does(name: str) -> None:
    # Of up to 671 M parameters: each kind of block once or twice. Hiera-Base in full depth is below.
    depths = tuple(min(2, depth) for depth in VARIANTS[name].depths)
    assert_same(*pair(name, (64, 64), depths=depths), torch.randn(4, 3, 64, 64))


@pytest.mark.parametrize(
    "config",
    [
        {"q_pool": 2},
        {"q_pool": 0},
        {"mlp_head": True},
        {"mlp_head": True, "head_bias": False},
        {"attn_pool_head": True, "attn_pool_num_heads": 4},
    ],
    ids=str,
)
def test_what_a_config_overrides_is_overridden_as_in_birder(config: dict[str, object]) -> None:
    # Without pooling, seven blocks of stage 3 would see 16 times as many tokens; two are as good.
    config = {"depths": (1, 1, 2, 1), **config}
    assert_same(*pair("hiera_abswin_tiny", (64, 96), **config), torch.randn(4, 3, 64, 96))


def test_abswin_base_computes_at_384_what_birders_does() -> None:
    theirs, ours = pair("hiera_abswin_base", (384, 384), classes=707)
    images = torch.randn(1, 3, 384, 384)
    assert_same(theirs, ours, images)
    shapes = {name: tuple(maps.shape) for name, maps in ours.detection_features(images).items()}
    assert shapes == {
        "stage1": (1, 96, 96, 96),
        "stage2": (1, 192, 48, 48),
        "stage3": (1, 384, 24, 24),
        "stage4": (1, 768, 12, 12),
    }


def test_abswin_base_with_707_classes_has_51_million_parameters() -> None:
    network = bare(VARIANTS["hiera_abswin_base"], 707, (384, 384))
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2) == 51.06


@pytest.mark.parametrize("name", ["hiera_tiny", "hiera_abswin_tiny"])
@pytest.mark.parametrize("size", [(128, 128), (32, 96), (64, 64)], ids=str)
def test_another_size_is_adjusted_to_as_birder_does(name: str, size: tuple[int, int]) -> None:
    theirs, ours = pair(name, (64, 64))
    ours(torch.randn(1, 3, 64, 64))  # so that a position embedding of the old size would be at hand
    theirs.adjust_size(size)
    ours.adjust_size(size)
    assert ours.size == size
    assert torch.equal(ours.pos_embed, theirs.pos_embed)
    assert_same(theirs, ours, torch.randn(4, 3, *size))


@pytest.mark.parametrize("size", [(100, 96), (96, 0), (16, 32)], ids=str)
def test_a_size_that_windows_do_not_fill_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        bare(SMALL, 7, size)
    with pytest.raises(ValueError, match="multiples of 32"):
        bare(SMALL, 7, (64, 64)).adjust_size(size)


def test_images_of_another_size_are_refused_even_where_shapes_would_broadcast() -> None:
    network = Hiera(SMALL, 7, (32, 64)).eval()
    for wrong in [(64, 32), (64, 64)]:
        with pytest.raises(ValueError, match="resize or adjust_size"):
            network(torch.randn(1, 3, *wrong))


def test_only_the_named_stages_come_back_and_unknown_ones_are_refused() -> None:
    network = Hiera(SMALL, 7, (32, 64)).eval()
    images = torch.randn(2, 3, 32, 64)
    assert network.predict(images).features == {}
    assert {name: tuple(maps.shape) for name, maps in network.predict(images, ["stage3"]).features.items()} == {
        "stage3": (2, 64, 2, 4)
    }
    with pytest.raises(ValueError, match="stage5"):
        network.predict(images, ["stage5"])


def test_the_parts_of_the_network_agree_with_the_one_pass() -> None:
    network = Hiera(SMALL, 7, (32, 32)).eval()
    images = torch.randn(2, 3, 32, 32)
    output = network.predict(images)
    assert torch.equal(network.embedding(images), output.embedding)
    assert torch.equal(network.classify(output.embedding), output.logits)
    assert torch.equal(network(images), output.logits)


def test_without_classes_there_are_embeddings_and_no_logits() -> None:
    theirs, ours = pair("hiera_abswin_tiny", (64, 64), classes=0)
    images = torch.randn(8, 3, 64, 64)
    assert ours(images).shape == (8, 0)
    truth = exact(theirs).embedding(images.double())
    assert_as_exact(ours.embedding(images), theirs.embedding(images), truth)


def test_attention_runs_in_a_fused_kernel() -> None:
    network = Hiera(Architecture((1, 1, 2, 1), 16, 1, attn_pool_head=True), 7, (64, 64)).eval()
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # fails where torch would fall back on plain matrix products
        network(torch.randn(2, 3, 64, 64))


def test_the_head_can_be_kept_in_a_finer_precision_than_the_body() -> None:
    network = Hiera(SMALL, 7, (64, 64)).eval()
    images = torch.randn(8, 3, 64, 64)
    truth = deepcopy(network).double().embedding(images.double())
    with torch.autocast("cpu", torch.bfloat16):
        peer = network.embedding(images)
    network.bfloat16()
    network.features.float()
    network.classifier.float()
    mixed = network.predict(images.bfloat16(), ["stage4"])
    assert (mixed.logits.dtype, mixed.embedding.dtype) == (torch.float32, torch.float32)
    assert mixed.features["stage4"].dtype == torch.bfloat16
    assert_as_exact(mixed.embedding, peer, truth)


def test_weights_start_as_birders_do() -> None:
    config = {"depths": (1, 1, 1, 1), "attn_pool_head": True}
    theirs = registry.net_factory("hiera_abswin_tiny", 50, size=(64, 64), config=config).state_dict()
    ours = Hiera(Architecture((1, 1, 1, 1), 96, 1, True, True), 50, (64, 64)).state_dict()
    assert ours.keys() == theirs.keys()
    for name, parameter in ours.items():
        if parameter.std() == 0:
            assert torch.equal(parameter, theirs[name])
        else:
            error = theirs[name].std() / parameter.numel() ** 0.5
            torch.testing.assert_close(parameter.mean(), theirs[name].mean(), atol=6 * error, rtol=0)
            torch.testing.assert_close(parameter.std(), theirs[name].std(), atol=6 * error, rtol=0)


def test_a_small_network_learns() -> None:
    network = Hiera(SMALL, 4, (32, 32))
    images, labels = torch.randn(16, 3, 32, 32), torch.arange(16) % 4
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    with torch.enable_grad():
        for _ in range(40):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimiser.step()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())
    assert torch.equal(network.eval()(images).argmax(dim=1), labels)


class TestThePositionEmbeddingThatIsKept:
    """It is computed once, and never used once the weights have changed."""

    images = torch.ones(1, 3, 64, 64)

    @pytest.fixture
    def network(self) -> Hiera:
        network = Hiera(SMALL, 7, (64, 64)).eval()
        network.embedding(self.images)
        return network

    def assert_fresh(self, network: Hiera) -> None:
        again = Hiera(SMALL, 7, network.size).to(network.pos_embed.dtype).eval()
        again.load_state_dict(network.state_dict())
        images = torch.ones(1, 3, *network.size, dtype=network.pos_embed.dtype)
        assert torch.equal(network.embedding(images), again.embedding(images))

    def test_it_is_computed_once(self, network: Hiera, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Hiera, "_compute_position", lambda _: pytest.fail("computed again"))
        network.embedding(self.images)

    def test_it_follows_a_loaded_state(self, network: Hiera) -> None:
        state = {name: value + 1 if "pos_embed" in name else value for name, value in network.state_dict().items()}
        network.load_state_dict(state)
        self.assert_fresh(network)

    def test_it_follows_a_change_of_dtype_and_back(self, network: Hiera) -> None:
        network.bfloat16()
        self.assert_fresh(network)
        network.float()
        self.assert_fresh(network)

    def test_it_follows_training(self, network: Hiera) -> None:
        network.train()
        network.pos_embed_win.add_(1)
        self.assert_fresh(network.eval())

    def test_it_follows_training_in_eval_mode(self, network: Hiera) -> None:
        with torch.enable_grad():
            network.embedding(self.images).sum().backward()
        network.pos_embed_win.add_(1)
        self.assert_fresh(network)

    def test_it_is_usable_after_inference_mode(self) -> None:
        network = Hiera(SMALL, 7, (64, 64)).eval()
        with torch.inference_mode():
            expected = network.embedding(self.images)
        assert torch.equal(network.embedding(self.images), expected)
        with torch.enable_grad():
            network.embedding(self.images).sum().backward()
