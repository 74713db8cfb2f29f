"""What each file of the flat tables holds, according to its own footer: the shards, and the version of their results.

There is no other record: a file is written whole, with its rows and this list.
"""

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from trapline.analysis import tables
from trapline.analysis.tables import Origin
from trapline.results import footer, layout
from trapline.results.ledger import Result
from trapline.storage.store import Entry

_KEY = "trapline.shards"


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one shard.

    Attributes:
        shard: its URL; a shard stays in the file that it is in.
        result: path of its result file, below RESULTS.
        version: size and etag of that file.
        images: images and clips, without rows of crops and of frames.
    """

    shard: str
    result: str
    version: str
    images: int

    @classmethod
    def of(cls, result: Result, output: str) -> "Part":
        """Return what the ledger says of a result file below an OUTPUT."""
        return cls(result.shard or "", result.url.removeprefix(output).lstrip("/"), result.version, result.images)


@dataclass(frozen=True)
class TableFile:
    """A file of the flat tables.

    Attributes:
        url: of the file.
        origin: how it was made.
        parts: what it holds.
    """

    url: str
    origin: Origin
    parts: tuple[Part, ...]

    @property
    def images(self) -> int:
        """Images and clips in it."""
        return sum(part.images for part in self.parts)


def survey(folder: str) -> dict[str, TableFile | None]:
    """List every Parquet file in a folder, which need not exist, by URL; None if it is no flat table.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    entries = layout.data_files(layout.list_files(folder, missing_ok=True))
    return dict(zip((entry.url for entry in entries), footer.read_each(entries, _read), strict=True))


def to_metadata(parts: Iterable[Part]) -> dict[str, str]:
    """Return what a footer says of the parts; packed, since every reader of the file reads its footer."""
    text = json.dumps([astuple(part) for part in parts], ensure_ascii=False)
    return {_KEY: b64encode(zlib.compress(text.encode())).decode()}


def identity(parts: Iterable[Part]) -> str:
    """Return a digest that changes when a part comes, goes or changes."""
    return tables.identity(Result(part.result, part.version) for part in parts)


def _read(entry: Entry) -> TableFile | None:
    said = footer.read_metadata(entry)
    origin = tables.origin_of(said)
    try:
        packed = ((said and said.metadata) or {})[_KEY.encode()]
        rows: Sequence[Sequence[object]] = json.loads(zlib.decompress(b64decode(packed)))
        parts = tuple(Part(*row) for row in rows)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, zlib.error):
        return None
    return None if origin is None else TableFile(entry.url, origin, parts)
