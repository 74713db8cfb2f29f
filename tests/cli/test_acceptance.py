"""Real photographs, packed into every kind of shard on S3, classified at full size: the answers are birder's own."""

import io
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch
from birder.common.fs_ops import load_model
from birder.data.transforms.classification import inference_preset
from birder.inference.classification import infer_batch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from tests.support.archives import RGB_STATS, write_checkpoint, write_folder, write_parquet, write_tar, write_zip
from tests.support.numerics import assert_as_exact, exact
from tests.support.servers import S3Server
from trapline.cli.classify import main

AWKWARD = {
    "african_elephants_truncated_file.jpg": "salvaged",
    "african_elephants_cmyk.jpg": "ok",
    "african_elephants_bw.jpg": "ok",
    "african_elephants_with_exif_orientation.jpg": "ok",
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_session")
def test_photographs_on_s3_get_the_answers_of_birder(
    photographs: Path, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    files = sorted([*photographs.rglob("*.jpg"), *photographs.rglob("*.JPG")])
    contents = {path.name: path.read_bytes() for path in files}
    names = list(contents)
    packers = (write_tar, write_zip, write_parquet, write_folder)
    paths = ("site=a/0001.tar", "site=b/card.zip", "site=c/export.parquet", "site=d/loose")
    for number, (pack, path) in enumerate(zip(packers, paths, strict=True)):
        pack(tmp_path / "archive" / path, {name: contents[name] for name in names[number::4]})
    s3.filesystem().put(f"{tmp_path}/archive/", f"{bucket}/archive/", recursive=True)
    model = write_checkpoint(tmp_path / "models", 707, 384, "hiera_abswin_base")

    arguments = [f"{bucket}/archive", f"{bucket}/output", "--model", str(model), "--precision", "fp32"]
    assert main(arguments) == 0

    s3.filesystem().get(f"{bucket}/output/", f"{tmp_path}/output/", recursive=True)
    query = f"select key, status, probabilities, embedding from read_parquet('{tmp_path}/output/**/*.parquet')"
    rows = duckdb.sql(query).fetchall()
    assert sorted(row[0] for row in rows) == sorted(names)
    statuses = {row[0]: row[1] for row in rows}
    assert {name: statuses[name] for name in AWKWARD} == AWKWARD
    assert {statuses[name] for name in names if name not in AWKWARD} == {"ok"}

    network, _ = load_model(torch.device("cpu"), "hiera_abswin_base", path=model, inference=True)
    transform = inference_preset((384, 384), RGB_STATS)
    found = {row[0]: (np.array(row[2]), np.array(row[3])) for row in rows}
    truth = exact(network)
    parts: dict[str, list[tuple[Any, Any, Any]]] = {"probabilities": [], "embedding": []}
    tops = set()
    for name, data in contents.items():
        picture = Image.open(io.BytesIO(data))
        if statuses[name] != "ok" or picture.mode != "RGB":
            continue
        # The pixels of birder's default loader; `infer_image` resizes by Pillow, which rounds some of them by 1 of 255.
        pixels = transform(decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB))[None]
        with torch.inference_mode():
            peer = infer_batch(network, pixels, return_embedding=True)
            embedding = truth.embedding(pixels.double())
            probabilities = truth.classify(embedding).softmax(dim=1)
        for part, exactly, ours, theirs in zip(parts, (probabilities, embedding), found[name], peer, strict=True):
            assert theirs is not None
            parts[part].append((np.float32(ours), theirs[0], exactly[0].numpy()))
        tops.add(int(probabilities.argmax()))
    assert len(parts["embedding"]) == len(names) - 3
    assert len(tops) >= 3, "a model that says the same of every picture proves nothing"
    for part, rows_of_part in parts.items():
        assert_as_exact(*(np.stack(each) for each in zip(*rows_of_part, strict=True)), part)
