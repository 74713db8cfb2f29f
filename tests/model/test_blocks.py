"""The blocks against their definitions, written out in float64."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from tests.support.numerics import assert_as_exact
from trapline.model import blocks
from trapline.model.blocks import AttentionPool, Block, MaskUnitAttention, MeanPool


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention of q [queries, C] to k and v [keys, C], head by head, from the definition."""
    size = q.shape[-1] // heads
    parts = []
    for head in range(heads):
        of = slice(head * size, (head + 1) * size)
        weights = (q[:, of] @ k[:, of].T / size**0.5).exp()
        parts.append(weights / weights.sum(dim=1, keepdim=True) @ v[:, of])
    return torch.cat(parts, dim=1)


def test_max_pool_merges_tokens_whose_slowest_index_differs() -> None:
    # Tokens in unrolled order: token 4 i + j of a plain order would be another four.
    x = torch.tensor([[0.0, 9], [1, 2], [7, 3], [4, 4], [5, 1], [2, 8], [6, 0], [3, 5]])[None, None]
    assert torch.equal(blocks.max_pool(x), torch.tensor([[[[7.0, 9], [4, 8]]]]))


@pytest.mark.parametrize(("windowed", "shape"), [(True, (6, 8, 5)), (False, (2, 24, 5))])
def test_sequences_are_windows_or_whole_images(windowed: bool, shape: tuple[int, ...]) -> None:
    qkv = torch.arange(2 * 3 * 8 * 15.0).view(2, 3, 8, 15)
    q, k, v = blocks.sequences(qkv, pool=False, windowed=windowed)
    for place, part in enumerate((q, k, v)):
        assert part.shape == shape
        assert torch.equal(part.reshape(2, 3, 8, 5), qkv[..., 5 * place : 5 * place + 5])
    pooled, keys, values = blocks.sequences(qkv, pool=True, windowed=windowed)
    assert torch.equal(pooled.reshape(2, 3, 2, 5), blocks.max_pool(qkv[..., :5]))
    assert torch.equal(keys, k)
    assert torch.equal(values, v)


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("windowed", [False, True])
def test_attention_is_that_of_the_definition(pool: bool, windowed: bool) -> None:
    batch, windows, tokens, channels, heads = 4, 3, 8, 16, 2
    qkv = 2 * torch.randn(batch, windows, tokens, 3 * channels)

    def defined(values: Tensor) -> Tensor:
        q, k, v = values.chunk(3, dim=-1)
        q = blocks.max_pool(q) if pool else q
        alone = [(image, slice(window, window + 1)) for image in range(batch) for window in range(windows)]
        whole = [(image, slice(None)) for image in range(batch)]
        found = [
            attention(*(part[at].reshape(-1, channels) for part in (q, k, v)), heads)
            for at in (alone if windowed else whole)
        ]
        return torch.cat(found).view(batch, windows, -1, channels)

    found = blocks.attend(qkv, heads, pool=pool, windowed=windowed)
    assert found.shape == (batch, windows, tokens // 4 if pool else tokens, channels)
    assert_as_exact(found, defined(qkv), defined(qkv.double()))


def moves(block: nn.Module, x: Tensor) -> Tensor:
    """Which windows of the first image change when its first window does."""
    other = x.clone()
    other[0, 0] += 1
    changed: Tensor = (block(other) != block(x)).flatten(2).any(dim=2)
    assert not changed[1].any()
    return changed[0]


def test_a_window_is_seen_by_itself_or_by_all() -> None:
    x = torch.randn(2, 3, 8, 16)
    assert moves(Block(16, 16, 2, pool=False, windowed=True), x).tolist() == [True, False, False]
    assert moves(Block(16, 16, 2, pool=False, windowed=False), x).all()


@pytest.mark.parametrize(("dim_out", "pool"), [(16, False), (32, False), (16, True), (32, True)])
def test_a_block_adds_attention_and_mlp_to_its_input(dim_out: int, pool: bool) -> None:
    block = Block(16, dim_out, 2, pool=pool, windowed=True)
    x = torch.randn(2, 3, 8, 16)
    for layer in (block.attn.proj, block.mlp[3]):
        nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    kept = x if dim_out == 16 else block.proj(block.norm1(x))  # type: ignore[misc]
    kept = blocks.max_pool(kept) if pool else kept
    assert torch.equal(block(x), kept)
    nn.init.constant_(block.attn.proj.bias, 1)
    nn.init.constant_(block.mlp[3].bias, 2)  # type: ignore[arg-type]
    assert torch.equal(block(x), kept + 1 + 2)


def test_channels_that_stay_have_no_projection() -> None:
    assert Block(16, 16, 2, pool=True, windowed=True).proj is None
    assert MaskUnitAttention(16, 32, 2, pool=False, windowed=True).qkv.out_features == 3 * 32


def test_attention_pooling_is_that_of_the_definition_and_ignores_the_order() -> None:
    pool = AttentionPool(16, 4)
    nn.init.normal_(pool.latent)
    x = torch.randn(40, 10, 16)

    def defined(module: AttentionPool, tokens: Tensor) -> Tensor:
        query = module.q(module.latent[0])
        pairs = [module.kv(image).chunk(2, dim=1) for image in tokens]
        attended = module.proj(torch.cat([attention(query, k, v, 4) for k, v in pairs]))
        answer: Tensor = attended + module.mlp(module.norm(attended))
        return answer

    peer = defined(pool, x)
    found, turned = pool(x), pool(x.flip(1))
    truth = defined(pool.double(), x.double())
    assert_as_exact(found, peer, truth)
    assert_as_exact(turned, peer, truth)


def test_mean_pooling_is_the_mean_of_the_tokens() -> None:
    x = torch.tensor([[[1.0, 2], [3, 6]], [[0, 0], [4, -4]]])
    assert torch.equal(MeanPool()(x), torch.tensor([[2.0, 4], [2, -2]]))


def test_the_hidden_layer_is_four_times_as_wide_and_its_second_product_is_the_fourth_part() -> None:
    layers = blocks.mlp(6)
    assert {name: tuple(value.shape) for name, value in layers.state_dict().items()} == {
        "0.weight": (24, 6), "0.bias": (24,), "3.weight": (6, 24), "3.bias": (6,),
    }  # fmt: skip
