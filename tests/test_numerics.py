"""The fast paths against the exact one, with a trained network: its margins are not arbitrary, as random ones are."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from jobs.demo.archive import cameras_of, photograph
from jobs.demo.birds import SPECIES
from jobs.demo.model import CLASSES, SIZE, draw_examples, new_network, save, train
from pipeline import checkpoint
from pipeline.checkpoint import Model
from pipeline.decode import decode
from pipeline.predict import Predictions, Predictor, resolve_precision

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Of 3,000 images none may change its class: were it more than one in a thousand, that would happen with 5 % probability.
IMAGES = 3000


@pytest.fixture(scope="module")
def drawn() -> NDArray[np.uint8]:
    """Photographs that the network has not seen."""
    return torch.stack([pixels for pixels, _ in draw_examples(99, IMAGES)]).numpy()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    examples = list(draw_examples(1, 1024))
    images, labels = torch.stack([pixels for pixels, _ in examples]), torch.tensor([label for _, label in examples])
    network = new_network(images, 1)
    for _ in train(network, images, labels, 4, 1):
        pass
    path = tmp_path_factory.mktemp("trained") / "model.pt"
    save(network, path)
    return checkpoint.load(str(path))


@pytest.fixture(scope="module")
def exact(model: Model, drawn: NDArray[np.uint8]) -> Predictions:
    """By the network as it reads, in float32."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.rgb_mean, model.rgb_std))
    with torch.inference_mode():
        output = model.network.predict((torch.from_numpy(drawn) / 255 - mean) / std)
    probabilities = output.logits.softmax(1).numpy()
    assert len(set(probabilities.argmax(1))) == len(CLASSES)
    return Predictions(probabilities, output.logits.logsumexp(1).numpy(), output.embedding.numpy(), {})


def agreement(found: Predictions, expected: Predictions) -> float:
    return float(np.mean(found.probabilities.argmax(1) == expected.probabilities.argmax(1)))


def least_cosine(found: Predictions, expected: Predictions) -> float:
    return float(torch.cosine_similarity(*(torch.from_numpy(each.embedding) for each in (found, expected))).min())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_precision_keeps_the_class_of_every_image(
    precision: str, model: Model, drawn: NDArray[np.uint8], exact: Predictions
) -> None:
    if precision == "bf16" and resolve_precision("auto", "cpu") != "bf16":
        pytest.skip("this processor does not multiply in bfloat16, and `auto` does not choose it")
    found = Predictor(copy.deepcopy(model), "cpu", precision, 8)(drawn)  # type: ignore[arg-type]
    print(f"{precision}: top-1 {agreement(found, exact):.4%}, cosine {least_cosine(found, exact):.6f}")
    assert agreement(found, exact) >= 0.999
    assert least_cosine(found, exact) >= (0.999999 if precision == "fp32" else 0.9995)


def test_fast_decoding_keeps_embeddings(model: Model, tmp_path: Path) -> None:
    """Of pictures as large as cameras take them, 24 times as wide as the network's input."""
    predictor = Predictor(copy.deepcopy(model), "cpu", "fp32", 8)
    images = [picture(number) for number in range(48)]

    def answers(decoder: Callable[[bytes], torch.Tensor | None]) -> Predictions:
        pixels = [decoder(data) for data in images]
        return predictor(torch.stack([each for each in pixels if each is not None]).numpy())

    exact, fast = (answers(lambda data, fast=fast: decode(data, SIZE, fast)[0]) for fast in (False, True))  # type: ignore[misc]
    print(f"fast decoding: top-1 {agreement(fast, exact):.2%}, cosine {least_cosine(fast, exact):.6f}")
    assert agreement(fast, exact) == 1
    assert least_cosine(fast, exact) >= 0.999


def picture(number: int) -> bytes:
    """A drawn photograph of 1600 x 1200, as JPEG."""
    import io
    from datetime import datetime

    rng = np.random.default_rng([7, number])
    species = SPECIES[number % len(SPECIES)]
    camera = cameras_of(species)[0]
    image = photograph(rng, species, number % 2 == 0, camera, datetime(2024, 5, 17, 12), (1600, 1200))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
