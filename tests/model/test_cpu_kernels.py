"""What is made fast is held to what it was made from."""

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from tests.support.numerics import assert_as_exact
from trapline.model import cpu_kernels
from trapline.model.architecture import STAGES, VARIANTS, Architecture
from trapline.model.hiera import Hiera, Output

pytestmark = pytest.mark.skipif(not cpu_kernels.available(), reason="this build of torch has no oneDNN")

# Each kind of block of each variant, at a size that a second is enough for.
KINDS = {
    name: Architecture(**{**vars(variant), "depths": tuple(min(2, depth) for depth in variant.depths)})
    for name, variant in VARIANTS.items()
    if not name.endswith(("large", "huge"))  # whose blocks are of the same kinds
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
    images = torch.randn(4, 3, 64, 64)
    quick = cpu_kernels.fuse(network)
    peer = all_of(network.predict(images, STAGES))  # which is left as it was
    found = all_of(quick.predict(images, STAGES))
    truth = all_of(deepcopy(network).double().predict(images.double(), STAGES))
    for part, values in found.items():
        assert peer[part].std() > 0.01, "weights this weak would hide an error"
        assert_as_exact(values, peer[part], truth[part], part)


def test_in_bf16_it_is_no_further_from_fp32_than_without() -> None:
    network = lively(KINDS["hiera_abswin_base"])
    images = torch.randn(8, 3, 64, 64)
    truth = deepcopy(network).double().embedding(images.double())
    network.bfloat16()
    plain = network.embedding(images.bfloat16()).float()
    quick = cpu_kernels.fuse(network).embedding(images.bfloat16()).float()
    assert_as_exact(quick, plain, truth)


def test_the_batch_may_be_of_any_size() -> None:
    plain = lively(KINDS["hiera_abswin_tiny"])
    network = cpu_kernels.fuse(plain)
    images = torch.randn(5, 3, 64, 64)
    truth = deepcopy(plain).double().embedding(images.double())
    for size in (1, 2, 5):
        found = torch.cat([network.embedding(batch) for batch in images.split(size)])
        assert_as_exact(found, plain.embedding(images), truth, f"batches of {size}")
