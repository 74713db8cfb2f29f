"""Read a few pictures and frames of clips again from their shards, and make thumbnails of them.

Archives change: if a shard is gone, or a picture cannot be read or has changed, that is no error, and the thumbnail
says why there is none. Results may come from untrusted sources: only shards in the ledger are read, and only from the
kinds of stores that archives lie in.
"""

import base64
import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import IO

import numpy as np
from PIL import Image

from trapline.analysis.dataset import Results
from trapline.decoding.clips import ClipFacts, ClipFile
from trapline.decoding.decode import decode
from trapline.decoding.sampling import Still
from trapline.decoding.sandbox import Decoded, Sandbox
from trapline.errors import TransientError, TraplineError, in_one_line
from trapline.results import ledger
from trapline.sources.lookup import read_media
from trapline.sources.spooled import NoRoom, SpooledFile

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
        frame_seconds: of a clip, which frame to show.
    """

    shard: str
    key: str
    content_sha256: bytes
    frame_seconds: float | None = None


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


def known_shards(found: Results) -> set[str]:
    """Return the shards that the ledger of these results has.

    The ledger of rescored results has the result files that they come from; those have the shards. Where they are gone,
    nothing is known.
    """
    output, files, facts = found.output, found.files, found.fingerprint.facts
    while "rescored" in facts:
        roots = {str(file.shard).removesuffix(file.url.removeprefix(output)) for file in files}
        try:
            files = tuple(file for root in roots for file in ledger.survey(root) if file.shard)
        except TraplineError:
            return set()
        output, facts = next(iter(roots)), facts["rescored"]
    return {str(file.shard) for file in files}


def fetch(
    pictures: Iterable[Picture], shards: Collection[str] | None = None, image_column: str | None = None
) -> dict[Picture, Thumbnail]:
    """Return the thumbnails of some pictures; each shard is opened once.

    A tar is read up to the last picture that is wanted of it, a zip and a folder only where these lie, and of Parquet
    the row groups that have one. Of `_SHARDS_AT_ONCE` shards one encoded picture each is in memory, or one clip is on
    the disk. A store that does not answer is not asked again.

    Args:
        pictures: which.
        shards: those that may be read, as `known_shards` returns them; None for any.
        image_column: of Parquet shards, the column that was classified; None if it was found by itself.
    """
    wanted: dict[str, dict[str, Picture]] = defaultdict(dict)
    for picture in pictures:
        wanted[picture.shard][picture.key] = picture
    thumbnails: dict[Picture, Thumbnail] = {}
    silent = ""
    with closing(_Shrinker()) as shrinker, ThreadPoolExecutor(_SHARDS_AT_ONCE) as threads:
        all_of = list(wanted.items())
        for start in range(0, len(all_of), _SHARDS_AT_ONCE):
            some = all_of[start : start + _SHARDS_AT_ONCE]
            read = partial(_read, shrink=shrinker.shrink, shards=shards, image_column=image_column)
            answers = [_Answer(problem=silent) for _ in some] if silent else list(threads.map(read, some))
            for (_, keys), answer in zip(some, answers, strict=True):
                silent = silent or answer.silence
                for key, picture in keys.items():
                    thumbnails[picture] = answer.thumbnails.get(key) or Thumbnail(problem=answer.problem)
    return thumbnails


@dataclass
class _Answer:
    """What came of a shard: thumbnails by key, and why the others are missing."""

    thumbnails: Mapping[str, Thumbnail] = field(default_factory=dict)
    problem: str = ""
    silence: str = ""


def _read(
    shard_and_keys: tuple[str, Mapping[str, Picture]],
    shrink: Callable[[Picture, bytes | SpooledFile], Thumbnail],
    shards: Collection[str] | None,
    image_column: str | None,
) -> _Answer:
    shard, keys = shard_and_keys
    if shards is not None and shard not in shards:
        return _Answer(problem=f"{shard} is not read: it is no shard of these results")
    scheme = shard.partition("://")[0] if "://" in shard else ""
    if shards is not None and scheme not in _SCHEMES:
        return _Answer(problem=f"{shard} is not read: archives do not lie in {scheme}://")
    made: dict[str, Thumbnail] = {}
    try:
        for key, data in read_media(shard, keys, image_column):
            made[key] = shrink(keys[key], data)
    except NoRoom as error:
        return _Answer(made, in_one_line(error))
    except TransientError as error:
        return _Answer(made, f"the store does not answer: {in_one_line(error)}", silence=_SILENT)
    except TraplineError as error:
        return _Answer(made, in_one_line(error))
    return _Answer(made, f"{shard} does not hold it any more")


class _Shrinker:
    """Make thumbnails, one at a time: decoding is not for several threads.

    Clips are decoded under the limits that they were classified under, in a process of their own.
    """

    def __init__(self) -> None:
        self._one_at_a_time = Lock()
        self._sandbox = Sandbox("fastest")  # which starts its process with the first clip
        self.close = self._sandbox.close

    def shrink(self, picture: Picture, data: bytes | SpooledFile) -> Thumbnail:
        """Return the thumbnail of a picture with these bytes; raise NoRoom if a clip cannot be copied."""
        digest = data.sha256 if isinstance(data, SpooledFile) else hashlib.sha256(data).digest()
        if digest != picture.content_sha256:
            return Thumbnail(problem="it is another picture now than the one that was classified")
        if isinstance(data, bytes) and picture.frame_seconds is not None:
            data = SpooledFile.copied(partial(_write, data))
        try:
            with self._one_at_a_time:
                pixels, facts = self._decoded(data, picture.frame_seconds or 0.0)
        except MemoryError:
            return Thumbnail(problem="there is not enough memory to decode it")
        except (TransientError, OSError) as error:  # of the process, or of the disk
            return Thumbnail(problem=in_one_line(error))
        if pixels is None or not facts.width or not facts.height:
            return Thumbnail(problem=f"cannot be decoded ({facts.error})")
        if isinstance(facts, ClipFacts):
            (pixels,) = pixels
            height, width = pixels.shape[1:]
        else:
            scale = min(1.0, _SIDE / max(facts.width, facts.height))
            width, height = (max(1, round(side * scale)) for side in (facts.width, facts.height))
        array = pixels.permute(1, 2, 0).numpy()
        sink = io.BytesIO()
        Image.fromarray(array).resize((width, height)).save(sink, "JPEG", quality=_QUALITY, optimize=True)
        encoded = base64.b64encode(sink.getvalue()).decode()
        brightness = float((array.reshape(-1, 3).mean(axis=0) * _LUMA).sum() / 255)
        return Thumbnail(f"data:image/jpeg;base64,{encoded}", width, height, brightness)

    def _decoded(self, data: bytes | SpooledFile, seconds: float) -> Decoded:
        size = (_SIDE, _SIDE)
        if isinstance(data, bytes):
            return decode(data, size, mode="fastest")
        return self._sandbox(ClipFile(data.path, data.sha256, data), size, sampling=Still(seconds=seconds))


def _write(data: bytes, to: IO[bytes]) -> None:
    to.write(data)
