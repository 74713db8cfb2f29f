"""A few pictures, read again from their shards and made small, for a page to show.

Archives change. A shard that is gone, or a picture that cannot be read or is another one now, is no error here: the
thumbnail says why there is none. Rows may come from anyone: only shards that the ledger has are read, from the kinds of
stores that archives lie in.
"""

import base64
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import IO

import numpy as np
from PIL import Image

from trapline.analysis.dataset import Results
from trapline.decoding.decode import decode
from trapline.errors import TransientError, TraplineError, in_one_line
from trapline.results import ledger
from trapline.sources import archives
from trapline.sources.archives import Member
from trapline.sources.parquet_images import PictureTable
from trapline.sources.records import MAX_IMAGE_BYTES, unique_key
from trapline.sources.shards import FOLDER_OUTPUT, is_image, is_wanted, shard_format
from trapline.storage import store

# Pixels of the longer side: sharp on a telephone, some 10 KB.
_SIDE = 320
_QUALITY = 72
_SILENT = "the store does not answer"
# Shards that are read at the same time: hides the store's latency.
_SHARDS_AT_ONCE = 8
# As television weighs the eye's three colours (ITU-R BT.601).
_LUMA = np.array([0.299, 0.587, 0.114])


# What archives are read from. Other filesystems of fsspec's would ask any server (http), or read what a name leads them
# to (reference, simplecache, and what `::` chains).
_SCHEMES = {"", "file", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "adl", "az", "oss", "hdfs", "sftp"}


@dataclass(frozen=True)
class Picture:
    """Where a picture lies, according to its row.

    Attributes:
        shard, key: of its row.
        content_sha256: of its bytes.
    """

    shard: str
    key: str
    content_sha256: bytes


@dataclass(frozen=True)
class Thumbnail:
    """A small picture, or why there is none.

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


def known_shards(found: Results) -> dict[str, bool]:
    """Return the shards that the ledger of these results has, and of each whether it is a folder of loose images.

    The ledger of rescored results has the result files that they come from; those have the shards. Where they are gone,
    nothing is known.
    """
    output, files, facts = found.output, found.files, found.fingerprint.facts
    while "rescored" in facts:
        roots = {str(file.shard).removesuffix(file.url.removeprefix(output)) for file in files}
        try:
            files = tuple(file for root in roots for file in ledger.survey(root) if file.shard)
        except TraplineError:
            return {}
        output, facts = next(iter(roots)), facts["rescored"]
    return {str(file.shard): file.url.rpartition("/")[2] == FOLDER_OUTPUT for file in files}


def fetch(pictures: Iterable[Picture], shards: Mapping[str, bool] | None = None) -> dict[Picture, Thumbnail]:
    """Return the thumbnails of some pictures; each shard is opened once.

    A tar is read up to the last picture that is wanted of it, a zip and a folder only where these lie, and of Parquet
    the row groups that have one. Memory is that of the pictures of `_SHARDS_AT_ONCE` shards. A store that does not
    answer is not asked again.

    Args:
        pictures: which.
        shards: those that may be read, as `known_shards` returns them; None for any.
    """
    wanted: dict[str, dict[str, Picture]] = defaultdict(dict)
    for picture in pictures:
        wanted[picture.shard][picture.key] = picture
    thumbnails: dict[Picture, Thumbnail] = {}
    silent = ""
    with ThreadPoolExecutor(_SHARDS_AT_ONCE) as threads:
        all_of = list(wanted.items())
        for start in range(0, len(all_of), _SHARDS_AT_ONCE):
            some = all_of[start : start + _SHARDS_AT_ONCE]
            read = partial(_read, shards=shards)
            answers = [_Answer(problem=silent) for _ in some] if silent else list(threads.map(read, some))
            for (_, keys), answer in zip(some, answers, strict=True):
                silent = silent or answer.silence
                for key, picture in keys.items():
                    thumbnails[picture] = _shrink(
                        picture, answer.data.get(key), answer.problems.get(key, answer.problem)
                    )
    return thumbnails


@dataclass
class _Answer:
    """What was read of a shard: bytes by key, and why the others are missing; `problems` of single keys."""

    data: Mapping[str, bytes] = field(default_factory=dict)
    problem: str = ""
    problems: Mapping[str, str] = field(default_factory=dict)
    silence: str = ""


def _read(shard_and_keys: tuple[str, Mapping[str, Picture]], shards: Mapping[str, bool] | None) -> _Answer:
    shard, keys = shard_and_keys
    if shards is not None and shard not in shards:
        return _Answer(problem=f"{shard} is not read: it is no shard of these results")
    scheme = shard.partition("://")[0] if "://" in shard else ""
    if shards is not None and scheme not in _SCHEMES:
        return _Answer(problem=f"{shard} is not read: archives do not lie in {scheme}://")
    kind = None if shards and shards[shard] else shard_format(shard)
    if kind is None:
        return _loose(shard, keys)
    data: dict[str, bytes] = {}
    try:
        for key, found in _search(shard, kind, keys):
            data[key] = found
            if len(data) == len(keys):
                break
    except TransientError as error:
        return _Answer(data, f"the store does not answer: {in_one_line(error)}", silence=_SILENT)
    except TraplineError as error:
        return _Answer(data, in_one_line(error))
    except Exception as error:  # noqa: BLE001  # the parsers of archives raise errors of many kinds
        return _Answer(data, f"{shard} cannot be read: {in_one_line(error)}")
    return _Answer(data, f"{shard} does not hold it any more")


def _loose(folder: str, keys: Iterable[str]) -> _Answer:
    """Read single files: one that is gone says nothing about the others."""
    data: dict[str, bytes] = {}
    problems: dict[str, str] = {}
    for key in keys:
        try:
            data[key] = store.read_many([store.join(folder, key)])[0]
        except TransientError as error:
            return _Answer(data, f"the store does not answer: {in_one_line(error)}", problems, _SILENT)
        except TraplineError as error:
            problems[key] = in_one_line(error)
    return _Answer(data, problems=problems)


def _search(shard: str, kind: str, keys: Mapping[str, Picture]) -> Iterator[tuple[str, bytes]]:
    """Yield the wanted pictures, in the order of the shard."""
    if kind == "parquet":
        with store.open_tail(shard) as stream:
            yield from _rows(PictureTable(stream, shard), keys)
        return
    with store.open_unchanged(shard, store.stat(shard).identity) as stream:
        for key, member in _images(stream, kind):
            if key in keys and member.size <= MAX_IMAGE_BYTES:
                yield key, member.read()


def _rows(table: PictureTable, keys: Container[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the wanted pictures of a table; row groups without any have only their names read."""
    seen: Counter[str] = Counter()
    for group in range(table.groups):
        named = [unique_key(name, seen) for name in table.names(group)]
        last = max((place for place, key in enumerate(named) if key in keys), default=-1)
        for key, row in zip(named[: last + 1], table.rows(group), strict=False):
            if key in keys and row.data:
                yield key, row.data


def _images(stream: IO[bytes], kind: str) -> Iterator[tuple[str, Member]]:
    """Yield the images of an archive under the keys that they have in rows."""
    seen: Counter[str] = Counter()
    for member in archives.tar_members(stream) if kind == "tar" else archives.zip_members(stream):
        if member.is_file and is_image(member.name) and is_wanted(member.name, Counter()):
            yield unique_key(member.name, seen), member


def _shrink(picture: Picture, data: bytes | None, problem: str) -> Thumbnail:
    if data is None:
        return Thumbnail(problem=problem)
    if hashlib.sha256(data).digest() != picture.content_sha256:
        return Thumbnail(problem="it is another picture now than the one that was classified")
    try:
        pixels, facts = decode(data, (_SIDE, _SIDE), fast=True)
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
