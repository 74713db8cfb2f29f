"""Archives and checkpoints, made for tests."""

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

RGB_STATS = {"mean": (0.5, 0.45, 0.4), "std": (0.25, 0.2, 0.3)}


def jpeg(seed: int, size: tuple[int, int] = (96, 72), quality: int = 90, **options: Any) -> bytes:
    """A picture of soft colours, another one for each seed; `size` is width and height."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


def pictures(count: int, prefix: str = "DCIM/IMG_", first: int = 0) -> dict[str, bytes]:
    """Names and contents of some pictures."""
    return {f"{prefix}{number:04d}.jpg": jpeg(number) for number in range(first, first + count)}


def write_tar(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    """A tar of these members, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_zip(path: Path, members: Mapping[str, bytes]) -> Path:
    """A zip of these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def write_parquet(path: Path, members: Mapping[str, bytes]) -> Path:
    """A Parquet file with an image column as Hugging Face's datasets have it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": data, "path": name} for name, data in members.items()]
    pq.write_table(pa.table({"image": images}), path)
    return path


def write_folder(path: Path, members: Mapping[str, bytes]) -> Path:
    """A folder of loose files."""
    for name, data in members.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return path


def write_checkpoint(
    folder: Path,
    classes: int,
    size: int,
    network: str = "hiera_abswin_tiny",
    config: dict[str, Any] | None = None,
    gain: float = 1.0,
) -> Path:
    """A checkpoint of random weights that birder itself writes; the classifier is scaled up so that images differ."""
    # Only here: they take 5 s, and most of the light rooms' tests need no network.
    import torch
    from birder.common.fs_ops import checkpoint_model
    from birder.conf import settings
    from birder.model_registry import registry
    from birder.net.base import get_signature

    torch.manual_seed(7)
    net = registry.net_factory(network, classes, 3, config=config, size=(size, size))
    with torch.no_grad():
        # birder starts with biases of 0.02 and a classifier of almost 0: far from what training leaves.
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.25)
        for name, parameter in net.named_parameters():
            if parameter.ndim > 1 and name.startswith(("stem", "body")):
                parameter.mul_(gain)
        if classes:
            # The embeddings of a random network lie close together: around one of them, the classifier tells apart.
            torch.nn.init.normal_(net.classifier.weight)
            net.classifier.bias.copy_(-net.classifier.weight @ net.eval().embedding(torch.zeros(1, 3, size, size))[0])
    folder.mkdir(parents=True, exist_ok=True)
    before, settings.MODELS_DIR = settings.MODELS_DIR, folder
    try:
        checkpoint_model(
            network,
            1,
            net,
            get_signature((0, 3, size, size), classes),
            {f"species {index}": index for index in range(classes)},
            RGB_STATS,
            None,
            None,
            None,
            None,
            **({"external_config": config} if config else {}),
        )
    finally:
        settings.MODELS_DIR = before
    return folder / f"{network}_1.pt"


TINY = {"depths": [1, 1, 1, 1], "embed_dim": 16, "num_heads": 1, "abs_win_pos_embed": True, "drop_path_rate": 0.0}


def write_tiny_checkpoint(folder: Path, classes: int = 5) -> Path:
    """A network of 64 x 64 pixels that takes a millisecond."""
    # Fresh weights are so small that a network this shallow would give every image almost the same answer.
    return write_checkpoint(folder, classes, 64, config=TINY, gain=4.0)


def sidecar(**values: Any) -> bytes:
    """A JSON sidecar."""
    return json.dumps(values).encode()
