"""A model as a Python object, for notebooks and services: images in, arrays out, without Ray."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from os import PathLike, fspath
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from trapline.choices import Precision
from trapline.decoding import image_ops
from trapline.decoding.decode import decode
from trapline.errors import UsageError, in_one_line
from trapline.model import checkpoint as checkpoints
from trapline.model.architecture import STAGES
from trapline.model.checked import make_predictor
from trapline.model.precision import resolve_precision
from trapline.model.predict import DEFAULT_BATCH
from trapline.model.predictions import Predictions, joined
from trapline.model.rounding import measure_bound
from trapline.storage import store

_Bytes = bytes | bytearray | memoryview

Picture = str | PathLike[str] | _Bytes | Image.Image | npt.NDArray[np.uint8]
"""A path or URL; the bytes of a file; a Pillow image; or RGB pixels, uint8 [H, W, 3]."""


class Classifier:
    """A checkpoint on a device, called with pictures.

    >>> classifier = Classifier("birder-project/hiera_abswin_base_mim-intermediate-eu-common")
    >>> classifier.classes[classifier.probabilities("owl.jpg")[0].argmax()]

    Paths and bytes are decoded as `trapline classify` decodes them, so that the answers are those of its rows. Pillow
    images are resized by Pillow, as birder's `infer_image` does; pixels of the two ways differ by at most 1 of 255.
    A picture that breaks off gives a warning and an answer from what is left of it.

    Args:
        checkpoint: path, URL or name on the Hugging Face hub, as `trapline classify --model` takes it.
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        precision: "fp32"; "bf16"; "checked" for bf16, and again in fp32 where bf16 leaves the class in doubt; or
            "auto" for bf16 on a GPU and fp32 on a CPU.
        size: height and width that images are resized to, multiples of 32; default: the checkpoint's.
        stages: feature maps to return, among "stage1" to "stage4".
        batch_size: images at a time; default: 8 on a CPU, 256 on a GPU.

    Attributes:
        classes: names in the order of the probabilities; empty for a checkpoint without classifier.
        size: height and width that images are resized to.

    Raises:
        CheckpointError: the checkpoint cannot be found or used.
        UsageError: there is no such device or stage, or the size is no multiple of 32.
    """

    def __init__(
        self,
        checkpoint: str | PathLike[str],
        device: Literal["auto", "cpu", "cuda"] = "auto",
        precision: Precision = "auto",
        *,
        size: tuple[int, int] | None = None,
        stages: Sequence[str] = (),
        batch_size: int | None = None,
    ) -> None:
        if unknown := set(stages) - set(STAGES):
            raise UsageError(f"stages {sorted(unknown)}: do not exist; choose from {', '.join(STAGES)}")
        model = checkpoints.load(fspath(checkpoint), size=size)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.classes = model.classes
        self.size = model.size
        self._batch_size = batch_size or DEFAULT_BATCH[device]
        computed = resolve_precision(precision, device, model)
        bound = measure_bound(model) if computed == "checked" else None
        self._predictor = make_predictor(model, device, computed, self._batch_size, stages, bound=bound)

    def probabilities(self, images: Picture | Sequence[Picture]) -> npt.NDArray[np.float32]:
        """Return the probability of each class, float32 [N, classes]; arguments and errors as of `predict`."""
        return self.predict(images).probabilities

    def embeddings(self, images: Picture | Sequence[Picture]) -> npt.NDArray[np.float32]:
        """Return embeddings, float32 [N, D], D being 768 for Hiera-Base; arguments and errors as of `predict`."""
        return self.predict(images).embedding

    def features(self, images: Picture | Sequence[Picture]) -> dict[str, npt.NDArray[np.float16]]:
        """Return float16 [N, channels, rows, columns] by stage; arguments and errors as of `predict`."""
        return self.predict(images).features

    def predict(self, images: Picture | Sequence[Picture]) -> Predictions:
        """Return probabilities, energies, embeddings and the feature maps of the chosen stages, from one pass.

        Call it from one thread at a time: decoding changes settings of Pillow that all threads share.

        Args:
            images: one picture or several, also as one array uint8 [N, H, W, 3]; N is 1 for a single picture.

        Raises:
            UsageError: there is no image, or one cannot be found, decoded or understood; the message names it.
            FatalError: the device has no memory for even one image.
        """
        pixels = self._pixels(images)
        parts = []
        while batch := list(islice(pixels, self._batch_size)):
            parts.append(self._predictor(np.stack(batch)))
        if not parts:
            raise UsageError("no images: give at least one")
        return joined(parts)

    def _pixels(self, images: Picture | Sequence[Picture]) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield uint8 [3, H, W] of each picture at the model's size."""
        single = isinstance(images, str | PathLike | _Bytes | Image.Image) or not isinstance(images, Iterable)
        # An array of fewer dimensions, unless it holds paths, is a picture of another form.
        single = single or (isinstance(images, np.ndarray) and images.ndim <= 3 and images.dtype.kind not in "OSU")
        pictures: Iterable[object] = [images] if single else cast(Sequence[object], images)
        for number, image in enumerate(pictures):
            if isinstance(image, str | PathLike):
                yield self._decoded(store.read_many([fspath(image)])[0], fspath(image))
            elif isinstance(image, _Bytes):
                yield self._decoded(bytes(image), f"image {number}")
            elif isinstance(image, Image.Image):
                yield self._resized_by_pillow(image, number)
            else:
                yield self._resized(image, number)

    def _decoded(self, data: bytes, name: str) -> npt.NDArray[np.uint8]:
        pixels, facts = decode(data, self.size)
        if pixels is None:
            raise UsageError(f"{name}: cannot be decoded ({facts.error}): leave it out")
        if facts.error:
            warnings.warn(f"{name}: {facts.error}", stacklevel=4)
        return pixels.numpy()

    def _resized_by_pillow(self, image: Image.Image, number: int) -> npt.NDArray[np.uint8]:
        height, width = self.size
        if not all(image.size):
            raise UsageError(f"image {number}: has no pixels: leave it out")
        try:
            resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        except Exception as error:  # Pillow decodes only now, and raises errors of any type
            raise UsageError(f"image {number}: cannot be decoded ({in_one_line(error)}): leave it out") from error
        return np.asarray(resized).transpose(2, 0, 1)

    def _resized(self, image: object, number: int) -> npt.NDArray[np.uint8]:
        if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,)):
            got = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
            raise UsageError(
                f"image {number}: is {got}: give a path, bytes, a Pillow image or an array uint8 [H, W, 3]"
            )
        if not image.size:
            raise UsageError(f"image {number}: has no pixels: leave it out")
        return image_ops.resize(torch.from_numpy(image.transpose(2, 0, 1).copy()), self.size).numpy()
