"""What is made fast is held to what it was made from."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from trapline.model import cpu_kernels
from trapline.model.hiera import STAGES, VARIANTS, Architecture, Hiera, Output

pytestmark = pytest.mark.skipif(not cpu_kernels.available(), reason="this build of torch has no oneDNN")

# Each kind of block of each variant, at a size that a second is enough for.
KINDS = {
    name: Architecture(**{**vars(variant), "depths": tuple(min(2, depth) for depth in variant.depths)})
    for name, variant in VARIANTS.items()
    if "huge" not in name
}


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def lively(architecture: Architecture) -> Hiera:
    """A network whose every layer matters."""
    network = Hiera(architecture, 7, (64, 64)).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim == 1 else 0.03))
    return network


def all_of(output: Output) -> dict[str, Tensor]:
    return {"logits": output.logits, "embedding": output.embedding, **output.features}


@pytest.mark.parametrize("name", KINDS)
def test_in_fp32_every_variant_gives_the_answers_that_it_gave(name: str) -> None:
    network = lively(KINDS[name])
    images = torch.randn(2, 3, 64, 64)
    quick = cpu_kernels.fuse(network)
    expected = all_of(network.predict(images, STAGES))  # which is left as it was
    found = all_of(quick.predict(images, STAGES))
    for part, value in expected.items():
        assert value.std() > 0.01, "weights this weak would hide an error"
        torch.testing.assert_close(found[part], value, atol=1e-5 * max(1, float(value.abs().max())), rtol=0, msg=part)


def test_in_bf16_it_is_no_further_from_fp32_than_without() -> None:
    network = lively(KINDS["hiera_abswin_base"])
    images = torch.randn(8, 3, 64, 64)
    exact = network.predict(images).embedding
    network.bfloat16()
    plain = network.predict(images.bfloat16()).embedding.float()
    quick = cpu_kernels.fuse(network).predict(images.bfloat16()).embedding.float()
    # Sums that stay in float32 until they are stored lose less: the bound leaves room for chance.
    assert (quick - exact).norm() < 1.2 * (plain - exact).norm()


def test_the_batch_may_be_of_any_size() -> None:
    network = cpu_kernels.fuse(lively(KINDS["hiera_abswin_tiny"]))
    images = torch.randn(5, 3, 64, 64)
    together = network.predict(images).embedding
    alone = torch.cat([network.predict(image[None]).embedding for image in images])
    torch.testing.assert_close(alone, together, atol=1e-4, rtol=0)
