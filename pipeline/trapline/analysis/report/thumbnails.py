"""Pictures come back from their shards: a few of them, small, for a page to show.

Archives move on. A shard that is gone, or a picture that cannot be read or is another one now, is no error here: the
thumbnail says what became of it.
"""

import base64
import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from trapline.decoding.decode import decode
from trapline.errors import TransientError, TraplineError, in_one_line
from trapline.sources.lookup import read_images

# Pixels of the longer side: sharp on a telephone, some 10 KB.
_SIDE = 320
_QUALITY = 72
# Shards that are read at the same time: hides the store's latency.
_SHARDS_AT_ONCE = 8
# As television weighs the eye's three colours (ITU-R BT.601).
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Picture:
    """Where a picture lies, as its row says.

    Attributes:
        shard, key: the two halves of its image_uri.
        content_sha256: of its bytes.
    """

    shard: str
    key: str
    content_sha256: bytes


@dataclass(frozen=True)
class Thumbnail:
    """A picture made small, or why there is none.

    Attributes:
        data_uri: of a JPEG.
        width, height: pixels.
        brightness: mean luma, from 0 (black) to 1.
        problem: why the picture cannot be shown; all else is empty then.
    """

    data_uri: str = ""
    width: int = 0
    height: int = 0
    brightness: float = 0.0
    problem: str = ""


def fetch(pictures: Iterable[Picture]) -> dict[Picture, Thumbnail]:
    """The thumbnails of some pictures; each shard is opened once.

    A tar is read up to the last picture that is wanted of it, a zip and a folder only where these lie, and of Parquet
    the row groups that have one. Memory is that of the pictures of `_SHARDS_AT_ONCE` shards. Where a store does not
    answer, it is asked no more.
    """
    wanted: dict[str, dict[str, Picture]] = defaultdict(dict)
    for picture in pictures:
        wanted[picture.shard][picture.key] = picture
    thumbnails: dict[Picture, Thumbnail] = {}
    silent = ""
    with ThreadPoolExecutor(_SHARDS_AT_ONCE) as threads:
        shards = list(wanted.items())
        for start in range(0, len(shards), _SHARDS_AT_ONCE):
            some = shards[start : start + _SHARDS_AT_ONCE]
            answers = [_Answer(problem=silent) for _ in some] if silent else list(threads.map(_read, some))
            for (_, keys), answer in zip(some, answers, strict=True):
                silent = silent or answer.silence
                for key, picture in keys.items():
                    thumbnails[picture] = _shrink(picture, answer.data.get(key), answer.problem)
    return thumbnails


@dataclass
class _Answer:
    """What a shard gave of what was wanted: bytes by key, and why it gave no more."""

    data: Mapping[str, bytes] = field(default_factory=dict)
    problem: str = ""
    silence: str = ""


def _read(shard_and_keys: tuple[str, Mapping[str, Picture]]) -> _Answer:
    shard, keys = shard_and_keys
    data: dict[str, bytes] = {}
    try:
        for key, found in read_images(shard, keys):
            data[key] = found
    except TransientError as error:
        return _Answer(data, f"the store does not answer: {in_one_line(error)}", "the store does not answer")
    except TraplineError as error:
        return _Answer(data, in_one_line(error))
    return _Answer(data, f"{shard} holds it no more")


def _shrink(picture: Picture, data: bytes | None, problem: str) -> Thumbnail:
    if data is None:
        return Thumbnail(problem=problem)
    if hashlib.sha256(data).digest() != picture.content_sha256:
        return Thumbnail(problem="it is another picture now than the one that was classified")
    try:
        pixels, facts = decode(data, (_SIDE, _SIDE), mode="fastest")
    except MemoryError:
        return Thumbnail(problem="there is not enough memory to decode it")
    if pixels is None or not facts.width or not facts.height:
        return Thumbnail(problem=f"cannot be decoded ({facts.error})")
    array = pixels.permute(1, 2, 0).numpy()
    scale = min(1.0, _SIDE / max(facts.width, facts.height))
    size = max(1, round(facts.width * scale)), max(1, round(facts.height * scale))
    sink = io.BytesIO()
    Image.fromarray(array).resize(size).save(sink, "JPEG", quality=_QUALITY, optimize=True)
    encoded = base64.b64encode(sink.getvalue()).decode()
    brightness = float((array.reshape(-1, 3).mean(axis=0) * _LUMA).sum() / 255)
    return Thumbnail(f"data:image/jpeg;base64,{encoded}", *size, brightness)
