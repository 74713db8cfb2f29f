"""A small Hiera, trained in under a minute of CPU time to tell six made-up birds apart.

A transformer learns slowly from few pictures. What makes it work here is the optimiser, and a stem that sees something
from the start.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from jobs.demo.archive import cameras_of, photograph
from jobs.demo.drawing.birds import SPECIES
from trapline.decoding.image_ops import resize
from trapline.model import checkpoint
from trapline.model.architecture import Architecture
from trapline.model.checkpoint import Model
from trapline.model.hiera import Hiera

SIZE = (64, 64)  # height and width that the model sees
CLASSES = tuple(sorted(species.name for species in SPECIES))
ARCHITECTURE = Architecture(depths=(1, 1, 1, 1), embed_dim=32, num_heads=1, abs_win_pos_embed=True)

_DRAWN = (160, 120)  # width and height in which examples are drawn: enough for 64 by 64
MEAN, STD = (0.4, 0.4, 0.4), (0.25, 0.25, 0.25)
BATCH = 64
_WARMUP = 20  # steps


def draw_examples(seed: int, count: int) -> Iterator[tuple[Tensor, int]]:
    """Draw photographs like those of the archive: uint8 [3, 64, 64], and the index of the class."""
    birds = sorted(SPECIES, key=lambda species: species.name)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        species = birds[number % len(birds)]
        cameras = cameras_of(species)
        camera = cameras[int(rng.integers(len(cameras)))]
        moment = datetime(2023, 1, 1) + timedelta(seconds=int(rng.integers(365 * 86400)))
        image = photograph(rng, species, rng.random() < 0.5, camera, moment, _DRAWN)
        # As the pipeline does it: both sides, no crop.
        yield resize(torch.from_numpy(np.array(image)).permute(2, 0, 1), SIZE), number % len(birds)


def new_network(images: Tensor, seed: int) -> Hiera:
    """Return an untrained network, made for images like these (uint8 [N, 3, H, W])."""
    torch.manual_seed(seed)
    network = Hiera(ARCHITECTURE, len(CLASSES), SIZE)
    whiten(network.get_parameter("stem.proj.weight"), normalise(images[:256]))
    return network


@torch.no_grad()
def whiten(filters: nn.Parameter, pixels: Tensor) -> None:
    """Initialise filters with the principal components of their input, and the negatives (arXiv:2404.00498)."""
    count, channels, *kernel = filters.shape
    patches = F.unfold(pixels, tuple(kernel), stride=5).transpose(1, 2).flatten(0, 1)  # 5: some are enough
    variances, components = torch.linalg.eigh(patches.T.cov())
    whitening = (components / (variances + 0.01).sqrt()).T[-(count // 2) :].unflatten(1, (channels, *kernel))
    filters.copy_(torch.cat([whitening, -whitening]))


def train(network: Hiera, images: Tensor, labels: Tensor, epochs: int, seed: int) -> Iterator[float]:
    """Train in place, a step at a time; yield the loss of each step.

    Args:
        network: for images of their size; in eval mode at the end.
        images: uint8 [N, 3, H, W], at least one batch of them.
        labels: int64 [N].
        epochs: how often each image is seen.
        seed: of the order, and of what is mirrored.
    """
    order = torch.Generator().manual_seed(seed)
    per_epoch = len(images) // BATCH
    steps = epochs * per_epoch
    hidden = [weight for name, weight in network.named_parameters() if weight.ndim == 2 and "classifier" not in name]
    others = [weight for weight in network.parameters() if all(weight is not other for other in hidden)]
    optimizers = (Muon(hidden, lr=0.03), AdamW(others, lr=0.002, betas=(0.9, 0.98), weight_decay=0.05))
    schedules = [LambdaLR(each, lambda step: min(1, (step + 1) / _WARMUP) * (1 - step / steps)) for each in optimizers]
    network.train()
    with _one_thread():
        for _ in range(epochs):
            for batch in torch.randperm(len(images), generator=order)[: per_epoch * BATCH].view(-1, BATCH):
                mirrored = torch.rand(BATCH, 1, 1, 1, generator=order) < 0.5
                pixels = torch.where(mirrored, images[batch].flip(3), images[batch])
                loss = F.cross_entropy(network(normalise(pixels)), labels[batch], label_smoothing=0.05)
                network.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                for optimizer, schedule in zip(optimizers, schedules, strict=True):
                    optimizer.step()
                    schedule.step()
                yield loss.item()
    network.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: the same sums in the same order on every machine, and no waiting for busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def normalise(pixels: Tensor) -> Tensor:
    """Convert uint8 to the network's input, float32 [N, 3, H, W]."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (pixels / 255 - mean) / std


def save(network: Hiera, path: Path) -> None:
    """Write a checkpoint as birder does."""
    model = Model(network, "custom", ARCHITECTURE, CLASSES, SIZE, MEAN, STD, weights_sha256="", source=str(path))
    checkpoint.save(model, path)


class Muon(Optimizer):
    """Momentum whose matrices are orthogonalised, so that every direction of a layer learns (Jordan et al. 2024).

    torch has one, which iterates in bfloat16: 2 s a step for this network on a CPU that must emulate it, not 0.05 s.

    Args:
        params: matrices only; Jordan et al., "Muon: An optimizer for hidden layers in neural networks", and
            arXiv:2502.16982.
        lr: the norm of a step, about.
    """

    def __init__(self, params: list[nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": 0.9, "weight_decay": 0.05})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move each matrix."""
        for group in self.param_groups:
            for weight in group["params"]:
                average = self.state[weight].setdefault("average", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                update = _orthogonal(weight.grad.lerp(average, group["momentum"]))
                rows, columns = weight.shape
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


def _orthogonal(matrix: Tensor) -> Tensor:
    """Return nearly the nearest matrix of singular values 1, by three Newton-Schulz steps of the authors' quintic."""
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = (matrix.T if tall else matrix) / (matrix.norm() + 1e-7)
    for _ in range(3):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if tall else x
