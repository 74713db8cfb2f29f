"""Test `--precision checked` over many pictures: none may get another class than float32 gives it.

Pictures are drawings of the demo and photographs, each cropped, mirrored, made lighter or darker, and so never the same
twice. The networks are trained on other crops of them: each drawing has the class of its bird or scene, and each
photograph, or burst of them, is a class of its own.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from jobs.benchmark import decoding
from jobs.demo.archive import CAMERAS, cameras_of, photograph
from jobs.demo.drawing.birds import SPECIES
from jobs.demo.model import MEAN, STD, normalise, train, whiten
from trapline.model.architecture import Architecture
from trapline.model.checked import CheckedPredictor
from trapline.model.checkpoint import Model
from trapline.model.hiera import Hiera
from trapline.model.predict import Predictor
from trapline.model.predictions import Predictions
from trapline.model.rounding import measure_bound

DRAWINGS = 1200
_SIZE = (180, 240)  # height and width in which pictures are kept
_BATCH = 64
_ALIKE = 0.94  # correlation of thumbnails from which pictures have one class
_LEAST_SIDE = {"drawings": 0.85, "photographs": 0.4}  # of a crop, as a part of the picture's


@dataclass(frozen=True)
class Pictures:
    """Pictures of one kind.

    Attributes:
        kind: "drawings" or "photographs".
        pixels: uint8 [N, 3, height, width].
        labels: name of a labelling -> int64 [N].
    """

    kind: str
    pixels: Tensor
    labels: dict[str, Tensor]

    def varied(self, numbers: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Return crops of some pictures, mirrored or not, lighter or darker: uint8 [n, 3, height, width]."""

        def between(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(len(numbers), generator=generator)

        side = between(_LEAST_SIDE[self.kind], 1)
        crops = torch.zeros(len(numbers), 2, 3)
        crops[:, 0, 0] = side * torch.where(between(0, 1) < 0.5, -1.0, 1.0)
        crops[:, 1, 1] = side
        crops[:, :, 2] = torch.stack([between(-1, 1), between(-1, 1)], dim=1) * (1 - side[:, None])
        grid = F.affine_grid(crops, [len(numbers), 3, *size], align_corners=False)
        pixels = F.grid_sample(self.pixels[numbers].float(), grid, padding_mode="reflection", align_corners=False)
        contrast, brightness = (values.view(-1, 1, 1, 1) for values in (between(0.6, 1.4), between(-20, 20)))
        return (pixels * contrast + brightness).clamp(0, 255).byte()


@dataclass(frozen=True)
class Kind:
    """A network to be trained.

    Attributes:
        name: of the row.
        size: height and width.
        architecture: of the network.
        labels: name of the labelling of drawings.
        epochs: how many crops of each example are seen, every one once.
    """

    name: str
    size: tuple[int, int]
    architecture: Architecture
    labels: str
    epochs: int


NETWORKS = (
    Kind("64 pixels, width 32", (64, 64), Architecture((1, 1, 1, 1), 32, 1, abs_win_pos_embed=True), "bird", 8),
    Kind("64 pixels, width 16", (64, 64), Architecture((1, 1, 2, 1), 16, 1), "scene", 40),
    Kind("96 pixels, width 16", (96, 96), Architecture((1, 1, 2, 1), 16, 1, abs_win_pos_embed=True), "bird", 8),
    Kind("128 pixels, width 16", (128, 128), Architecture((1, 1, 1, 1), 16, 1, abs_win_pos_embed=True), "scene", 24),
)


@dataclass(frozen=True)
class Row:
    """The answers of one network for pictures of one kind.

    Attributes:
        network: its name.
        pictures: their kind.
        images: how many.
        accuracy: share of them that get their class from fp32; None for a checkpoint with classes of its own.
        changed_by_bf16: how many get another class from bf16 than from fp32.
        changed_by_checked: how many from `checked`.
        computed_again: share of the images.
        probability_error: the largest |p - p_fp32| in bf16.
        cosine: the least one between an embedding in bf16 and in fp32.
        bound: of the network.
        furthest_changed: of those that bf16 changes, the largest distance from the boundary, as a part of the bound.
    """

    network: str
    pictures: str
    images: int
    accuracy: float | None
    changed_by_bf16: int
    changed_by_checked: int
    computed_again: float
    probability_error: float
    cosine: float
    bound: float
    furthest_changed: float


def drawings(count: int, seed: int) -> Pictures:
    """Draw scenes of the demo; they are labelled by bird, and by bird, camera and time of day."""
    birds = sorted(SPECIES, key=lambda species: species.name)
    pixels, scenes = [], []
    for number in range(count):
        random = np.random.default_rng([seed, number])
        bird = birds[number % len(birds)]
        cameras = cameras_of(bird)
        camera, night = cameras[int(random.integers(len(cameras)))], bool(random.random() < 0.5)
        image = photograph(random, bird, night, camera, datetime(2023, 5, 1 + number % 28, 12), _SIZE[::-1])
        pixels.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
        scenes.append((number % len(birds), CAMERAS.index(camera), night))
    names = sorted(set(scenes))
    labels = {"bird": [scene[0] for scene in scenes], "scene": [names.index(scene) for scene in scenes]}
    return Pictures("drawings", torch.stack(pixels), {name: torch.tensor(values) for name, values in labels.items()})


def photographs(images: Sequence[bytes]) -> Pictures:
    """Decode photographs; each is a class of its own, except that those of a burst, and copies, share one."""
    pixels = torch.from_numpy(decoding.pixels(images, _SIZE))
    return Pictures("photographs", pixels, {"photograph": look_alikes(pixels)})


def look_alikes(pixels: Tensor) -> Tensor:
    """Number groups of pictures that look alike, int64 [N]: as thumbnails in grey they correlate, or both with another.

    A frame of a burst and its neighbour correlate by 0.95 or more, other photographs of one camera by 0.92 or less.

    Args:
        pixels: uint8 [N, 3, height, width].
    """
    thumbnails = F.adaptive_avg_pool2d(pixels.float().mean(dim=1), 16).flatten(1)
    thumbnails = F.normalize(thumbnails - thumbnails.mean(dim=1, keepdim=True))
    alike = (thumbnails @ thumbnails.T > _ALIKE).fill_diagonal_(True)  # flat ones are like nothing
    groups, before = torch.arange(len(pixels)), None
    while before is None or not torch.equal(groups, before):
        groups, before = torch.where(alike, groups, len(pixels)).amin(dim=1), groups
    numbers: Tensor = torch.unique(groups, return_inverse=True)[1]
    return numbers


def trained(kind: Kind, pictures: Sequence[Pictures], seed: int, examples: int = 1536) -> Model:
    """Train a network on so many pictures of each kind, on other crops of them in each epoch."""
    generator = torch.Generator().manual_seed(seed)
    classes = numbered(kind, pictures)
    numbers = [torch.arange(examples * kind.epochs) % len(each.pixels) for each in pictures]
    labels = torch.cat([numbering[own] for numbering, own in zip(classes, numbers, strict=True)])
    pixels = torch.empty(len(labels), 3, *kind.size, dtype=torch.uint8)  # up to 3.6 GB, so filled in place
    start = 0
    for each, own in zip(pictures, numbers, strict=True):
        for part in torch.split(own, _BATCH):
            pixels[start : start + len(part)] = each.varied(part, kind.size, generator)
            start += len(part)
    torch.manual_seed(seed)
    names = tuple(f"class {number}" for number in range(int(torch.cat(classes).max()) + 1))
    network = Hiera(kind.architecture, len(names), kind.size)
    whiten(network.get_parameter("stem.proj.weight"), normalise(pixels[:: len(pixels) // 256]))
    for _ in train(network, pixels, labels, 1, seed):
        pass
    network.requires_grad_(False)
    return Model(network, "custom", kind.architecture, names, kind.size, MEAN, STD, kind.name, kind.name)


def numbered(kind: Kind, pictures: Sequence[Pictures]) -> list[Tensor]:
    """Return the class of each picture, int64 [N], one tensor for each kind of pictures; no kinds share a class."""
    classes, first = [], 0
    for each in pictures:
        own = each.labels.get(kind.labels, next(iter(each.labels.values())))
        classes.append(own + first)
        first += int(own.max()) + 1
    return classes


def measure(console: Console, models: Sequence[Model], pictures: Sequence[Pictures], images: int) -> Iterator[Row]:
    """Yield a row for each model and kind of pictures, which share the images evenly."""
    share = -(-images // (len(models) * len(pictures)))
    kinds = {kind.name: kind for kind in NETWORKS}
    for model in models:
        kind = kinds.get(model.source)
        classes: Sequence[Tensor | None] = numbered(kind, pictures) if kind else [None] * len(pictures)
        for each, labels in zip(pictures, classes, strict=True):
            with console.status(f"{model.source}: {each.kind}"):
                yield compare(model, each, labels, share, seed=1)


def compare(model: Model, pictures: Pictures, labels: Tensor | None, images: int, seed: int) -> Row:
    """Compare the classes that a model gives in bf16, checked and fp32; `labels` int64 [N] are the right ones."""
    bound = measure_bound(model)
    checked = CheckedPredictor(replace(model, network=copy.deepcopy(model.network)), "cpu", bound, _BATCH)
    exact = Predictor(replace(model, network=copy.deepcopy(model.network)), "cpu", "fp32", _BATCH)
    generator = torch.Generator().manual_seed(seed)
    by_bf16 = by_checked = again = right = 0
    error, cosine, furthest = 0.0, 1.0, 0.0
    for numbers in torch.split(torch.randint(len(pictures.pixels), (images,), generator=generator), _BATCH):
        pixels = pictures.varied(numbers, model.size, generator).numpy()
        fast, truth = checked.fast(pixels), exact(pixels)
        found = checked.check(pixels, fast)
        changed = _classes(fast) != _classes(truth)
        by_bf16 += int(changed.sum())
        by_checked += int((_classes(found) != _classes(truth)).sum())
        right += 0 if labels is None else int((_classes(truth) == labels[numbers].numpy()).sum())
        again += len(pixels) if found.in_bf16 is None else int((~found.in_bf16).sum())
        error = max(error, float(np.abs(fast.probabilities - truth.probabilities).max()))
        ours, theirs = (torch.from_numpy(each.embedding) for each in (fast, truth))
        cosine = min(cosine, float(torch.cosine_similarity(ours, theirs).min()))
        distances = checked.distances(fast.probabilities).min(axis=1)
        furthest = max(furthest, float(distances[changed].max(initial=0)) / bound)
    accuracy = None if labels is None else right / images
    return Row(
        model.source,
        pictures.kind,
        images,
        accuracy,
        by_bf16,
        by_checked,
        again / images,
        error,
        cosine,
        bound,
        furthest,
    )


def _classes(predictions: Predictions) -> npt.NDArray[np.intp]:
    return np.asarray(predictions.probabilities.argmax(axis=1))
