"""The fast paths against the exact one, with a trained network: its margins are not arbitrary, as random ones are."""

import copy
import io
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from jobs.demo import EPOCHS, EXAMPLES
from jobs.demo.archive import cameras_of, photograph
from jobs.demo.drawing.birds import SPECIES
from jobs.demo.model import CLASSES, SIZE, draw_examples, new_network, save, train
from trapline.decoding.decode import decode
from trapline.model import checkpoint
from trapline.model.checked import CheckedPredictor
from trapline.model.checkpoint import Model
from trapline.model.precision import multiplies_in_bf16
from trapline.model.predict import Predictor
from trapline.model.predictions import Predictions
from trapline.model.rounding import measure_bound

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Were one in a thousand to change its class, none of so many would with a probability of 5 %.
IMAGES = 3000


@pytest.fixture(scope="module")
def drawn() -> NDArray[np.uint8]:
    """Photographs that the network has not seen."""
    return torch.stack([pixels for pixels, _ in draw_examples(99, IMAGES)]).numpy()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    examples = list(draw_examples(1, EXAMPLES))
    images, labels = torch.stack([pixels for pixels, _ in examples]), torch.tensor([label for _, label in examples])
    network = new_network(images, 1)
    for _ in train(network, images, labels, EPOCHS, 1):
        pass
    path = tmp_path_factory.mktemp("trained") / "model.pt"
    save(network, path)
    return checkpoint.load(str(path))


@pytest.fixture(scope="module")
def exact(model: Model, drawn: NDArray[np.uint8]) -> Predictions:
    """By the network as it reads, in float32."""
    with torch.inference_mode():
        output = model.network.predict(normalised(model, drawn))
    probabilities = output.logits.softmax(1).numpy()
    assert len(set(probabilities.argmax(1))) == len(CLASSES)
    return Predictions(probabilities, output.logits.logsumexp(1).numpy(), output.embedding.numpy(), {})


def normalised(model: Model, pixels: NDArray[np.uint8]) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.rgb_mean, model.rgb_std))
    return (torch.from_numpy(pixels) / 255 - mean) / std


def agreement(found: Predictions, expected: Predictions) -> float:
    return float(np.mean(found.probabilities.argmax(1) == expected.probabilities.argmax(1)))


def least_cosine(found: Predictions, expected: Predictions) -> float:
    return float(torch.cosine_similarity(*(torch.from_numpy(each.embedding) for each in (found, expected))).min())


def margins(found: Predictions, expected: Predictions) -> NDArray[np.float32]:
    """Of each image whose class changed, how far apart its two likeliest were; the weights, and so the number of such
    images, differ from machine to machine, for training rounds too.
    """
    second, first = np.sort(expected.probabilities, axis=1)[:, -2:].T
    changed = found.probabilities.argmax(1) != expected.probabilities.argmax(1)
    return np.asarray((first - second)[changed])


@pytest.fixture(scope="module")
def autocast(model: Model, drawn: NDArray[np.uint8]) -> Predictions:
    """In bfloat16 as torch's autocast has it, by which ours is judged."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        output = model.network.predict(normalised(model, drawn))
    logits = output.logits.float()
    return Predictions(logits.softmax(1).numpy(), logits.logsumexp(1).numpy(), output.embedding.float().numpy(), {})


def test_fp32_keeps_the_class_of_every_image(model: Model, drawn: NDArray[np.uint8], exact: Predictions) -> None:
    found = Predictor(copy.deepcopy(model), "cpu", "fp32", 8)(drawn)
    assert margins(found, exact).max(initial=0) < 1e-4
    assert least_cosine(found, exact) >= 0.999999


@pytest.mark.skipif(not multiplies_in_bf16("cpu"), reason="this processor does not multiply in bfloat16")
def test_bf16_changes_the_class_of_few_images_and_only_between_almost_equals(
    model: Model, drawn: NDArray[np.uint8], exact: Predictions, autocast: Predictions
) -> None:
    changed, allowed = (
        margins(each, exact) for each in (Predictor(copy.deepcopy(model), "cpu", "bf16", 8)(drawn), autocast)
    )
    print(f"{len(changed)} of {IMAGES} changed, where autocast changes {len(allowed)}")
    assert len(changed) <= 2 * len(allowed) + 4
    assert changed.max(initial=0) < 0.03


def test_checked_changes_no_class_and_computes_few_images_twice(
    model: Model, drawn: NDArray[np.uint8], exact: Predictions
) -> None:
    bound = measure_bound(model)
    found = CheckedPredictor(copy.deepcopy(model), "cpu", bound, 8, note=pytest.fail)(drawn)
    assert found.in_bf16 is not None
    print(f"{np.mean(~found.in_bf16):.2%} computed twice, within {bound:.3g} of a boundary")
    assert margins(found, exact).max(initial=0) < 1e-4  # as of fp32 itself, which rounds too
    assert np.mean(~found.in_bf16) < 0.05
    assert least_cosine(found, exact) >= 0.998


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_bf16_on_a_gpu_changes_the_class_of_few_images_and_only_between_almost_equals(
    model: Model, drawn: NDArray[np.uint8], exact: Predictions, autocast: Predictions, compiled: bool
) -> None:
    predictor = Predictor(copy.deepcopy(model), "cuda", "bf16", 64, note=pytest.fail)
    if compiled and predictor.gpu:
        with torch.inference_mode():
            predictor.gpu.answer.compile(torch.from_numpy(drawn[:64]).cuda())
    found = predictor(drawn)
    changed = margins(found, exact)
    print(f"{len(changed)} of {IMAGES} changed; cosine {least_cosine(found, exact):.6f}")
    assert len(changed) <= 2 * len(margins(autocast, exact)) + 4
    assert changed.max(initial=0) < 0.03
    assert least_cosine(found, exact) >= 0.9995


def test_fast_decoding_keeps_embeddings(model: Model, tmp_path: Path) -> None:
    """Of pictures as large as cameras take them, 24 times as wide as the network's input."""
    predictor = Predictor(copy.deepcopy(model), "cpu", "fp32", 8)
    images = [picture(number) for number in range(48)]

    def answers(decoder: Callable[[bytes], torch.Tensor | None]) -> Predictions:
        pixels = [decoder(data) for data in images]
        return predictor(torch.stack([each for each in pixels if each is not None]).numpy())

    exact = answers(lambda data: decode(data, SIZE)[0])
    for mode in ("close", "fast", "fastest"):
        reduced = answers(lambda data, mode=mode: decode(data, SIZE, mode)[0])  # type: ignore[misc]
        print(f"{mode}: top-1 {agreement(reduced, exact):.2%}, cosine {least_cosine(reduced, exact):.6f}")
        assert margins(reduced, exact).max(initial=0) < 0.03
        assert least_cosine(reduced, exact) >= 0.999


def picture(number: int) -> bytes:
    """A drawn photograph of 1600 x 1200, as JPEG."""
    rng = np.random.default_rng([7, number])
    species = SPECIES[number % len(SPECIES)]
    camera = cameras_of(species)[0]
    image = photograph(rng, species, number % 2 == 0, camera, datetime(2024, 5, 17, 12), (1600, 1200))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
