"""The model as a Python object: whatever form an image comes in, the answers are birder's."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from birder.common.fs_ops import load_model
from birder.data.transforms.classification import inference_preset
from birder.inference.classification import infer_image
from PIL import Image

from tests.support.archives import RGB_STATS, jpeg
from tests.support.numerics import assert_as_exact, birders, exact
from trapline.decoding.decode import decode
from trapline.errors import CheckpointError, UsageError
from trapline.model.classifier import Classifier

IMAGES = [jpeg(seed) for seed in range(12)]


@pytest.fixture(scope="module")
def classifier(tiny_model: Path) -> Classifier:
    return Classifier(tiny_model, "cpu", stages=("stage4",), batch_size=5)  # of 12, neither a multiple nor a divisor


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_pillow_images_get_what_birders_infer_image_gives(classifier: Classifier, tiny_model: Path) -> None:
    network, info = load_model(torch.device("cpu"), "hiera_abswin_tiny", path=tiny_model, inference=True)
    transform = inference_preset((64, 64), RGB_STATS)
    peers = [infer_image(network, opened(data), transform, return_embedding=True) for data in IMAGES]
    with torch.inference_mode():
        embedding = exact(network).embedding(torch.stack([transform(opened(data)).double() for data in IMAGES]))
        probabilities = exact(network).classify(embedding).softmax(dim=1)
    pictures = [opened(data) for data in IMAGES]
    assert_as_exact(classifier.probabilities(pictures), np.concatenate([peer[0] for peer in peers]), probabilities)
    assert_as_exact(classifier.embeddings(pictures), np.concatenate([peer[1] for peer in peers]), embedding)
    assert classifier.classes == tuple(info.class_to_idx)


@pytest.mark.parametrize("form", ["paths", "strings", "bytes", "arrays", "one array"])
def test_every_other_form_gets_the_pixels_of_a_run(
    classifier: Classifier, tiny_model: Path, tmp_path: Path, form: str
) -> None:
    for number, data in enumerate(IMAGES):
        (tmp_path / f"{number}.jpg").write_bytes(data)
    paths = [tmp_path / f"{number}.jpg" for number in range(len(IMAGES))]
    arrays = [np.asarray(opened(data)) for data in IMAGES]
    forms: dict[str, Callable[[], Any]] = {
        "paths": lambda: paths,
        "strings": lambda: [str(path) for path in paths],
        "bytes": lambda: IMAGES,
        "arrays": lambda: arrays,
        "one array": lambda: np.stack(arrays),
    }
    found = classifier.predict(forms[form]())
    pixels = np.stack([np.asarray(decode(data, (64, 64))[0]) for data in IMAGES])
    birders(tiny_model, pixels, ["stage4"]).check(found)


@pytest.mark.parametrize(
    "image",
    [IMAGES[3], bytearray(IMAGES[3]), memoryview(IMAGES[3]), opened(IMAGES[3]), np.asarray(opened(IMAGES[3]))],
    ids=type,
)
def test_one_picture_is_a_batch_of_one(classifier: Classifier, image: Any) -> None:
    found = classifier.predict(image)
    assert found.probabilities.shape == (1, 5)
    assert found.embedding.shape == (1, 128)
    assert classifier.features(image)["stage4"].shape == (1, 128, 2, 2)
    assert {found.probabilities.dtype, found.embedding.dtype} == {np.dtype(np.float32)}


def test_any_size_and_precision(tiny_model: Path) -> None:
    classifier = Classifier(str(tiny_model), "auto", "bf16", size=(96, 64))
    assert classifier.size == (96, 64)
    assert np.isfinite(classifier.embeddings(IMAGES[:2])).all()


def test_a_picture_that_breaks_off_gets_an_answer_and_a_warning(classifier: Classifier) -> None:
    with pytest.warns(UserWarning, match="image 0: truncated"):
        cut = classifier.probabilities(IMAGES[0][: len(IMAGES[0]) * 9 // 10])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not np.array_equal(cut, classifier.probabilities(IMAGES[0]))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "no images: give at least one"),
        (b"text", r"image 0: cannot be decoded \(not_an_image: .*leave it out"),
        ([IMAGES[0], np.zeros((3, 64, 64), np.uint8)], r"image 1: is uint8 \[3, 64, 64\]: give a path"),
        ([np.zeros((64, 64, 3))], r"image 0: is float64 \[64, 64, 3\]"),
        ([7], "image 0: is int"),
        (7, "image 0: is int"),
        (None, "image 0: is NoneType"),
        (np.zeros((64, 48), np.uint8), r"image 0: is uint8 \[64, 48\]"),
        (np.zeros((0, 48, 3), np.uint8), "image 0: has no pixels"),
        (Image.new("RGB", (0, 0)), "image 0: has no pixels"),
        ([IMAGES[0], Image.open(io.BytesIO(IMAGES[0][:-500]))], r"image 1: cannot be decoded \(.*truncated"),
        (Image.new("La", (8, 8)), r"image 0: cannot be decoded \(conversion from La"),
    ],
)
def test_what_is_no_picture_is_said(classifier: Classifier, images: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        classifier.predict(images)


def test_a_wrong_stage_or_checkpoint_is_said(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match=r"stages \['stage5'\]: do not exist; choose from stage1, "):
        Classifier(tiny_model, stages=["stage5"])
    with pytest.raises(CheckpointError, match="no such file"):
        Classifier("missing.pt")
