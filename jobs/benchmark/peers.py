"""Programs that one would write without Trapline: `python -m jobs.benchmark.peers bare|naive …`.

Both use Trapline's network, so that only the data path differs, and both decode as birder's transform does.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trapline.decoding.decode import decode
from trapline.model import checkpoint
from trapline.model.predict import Predictor


class Photographs(Dataset[Tensor]):
    """The images of a folder, decoded."""

    def __init__(self, folder: str, size: tuple[int, int]) -> None:
        self.paths = sorted(Path(folder).glob("*.jpg"))
        self.size = size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Return one image, uint8 [3, H, W]."""
        pixels, _ = decode(self.paths[index].read_bytes(), self.size)
        return torch.zeros(3, *self.size, dtype=torch.uint8) if pixels is None else pixels


def bare(model_path: str, folder: str, output: str, precision: Literal["fp32", "bf16"]) -> None:
    """Loop over a DataLoader; the answers go into one file at the end."""
    model = checkpoint.load(model_path)
    predictor = _predictor(model, precision)
    images = DataLoader(Photographs(folder, model.size), batch_size=8, num_workers=1)
    answers = [predictor(batch.numpy()) for batch in images]
    np.savez(
        output,
        probabilities=np.concatenate([answer.probabilities for answer in answers]),
        embedding=np.concatenate([answer.embedding for answer in answers]),
    )


def naive(model_path: str, folder: str, output: str) -> None:
    """Run Ray Data as its documentation has it: read_images, map_batches, write_parquet."""
    import ray

    class Classify:
        def __init__(self) -> None:
            model = checkpoint.load(model_path)
            torch.set_num_threads(2)
            self.predictor = _predictor(model, "fp32")

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            answer = self.predictor(np.ascontiguousarray(batch["image"].transpose(0, 3, 1, 2)))
            return {"path": batch["path"], "probabilities": answer.probabilities, "embedding": answer.embedding}

    size = checkpoint.load(model_path).size
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    images = ray.data.read_images(folder, size=size, mode="RGB", include_paths=True)
    images.map_batches(Classify, batch_size=8, concurrency=1, num_cpus=0.9).write_parquet(output)


def _predictor(model: checkpoint.Model, precision: Literal["fp32", "bf16"]) -> Predictor:
    if torch.cuda.is_available():
        return Predictor(model, "cuda", precision, 64)
    return Predictor(model, "cpu", precision, 8)


if __name__ == "__main__":
    programs: dict[str, Callable[..., None]] = {"bare": bare, "naive": naive}
    programs[sys.argv[1]](*sys.argv[2:])
