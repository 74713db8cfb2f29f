"""A detector's output becomes an index: which boxes each shard's images have, for the workers to look up.

Read is the batch output of MegaDetector, format 1.x, or the same in Parquet, one row per box with the columns file,
category, conf and bbox. Neither is ever held whole: it is streamed into a database on this machine's disk, ordered by
shard, and what each shard has is put into one file beside the results, from which a worker reads its own part.
"""

import json
import re
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from math import nan
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import ijson
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.crops import Box, plain
from pipeline.errors import TraplineError, UsageError, in_one_line
from pipeline.places import Places, keys
from pipeline.shards import Shard
from pipeline.storage import Entry

# What the detectors of this family mean where the file does not say, as Parquet does not.
_STANDARD = {"1": "animal", "2": "person", "3": "vehicle"}
_COLUMNS = ("file", "category", "conf", "bbox")
# Python writes numbers that JSON does not have.
_NO_NUMBER = re.compile(rb"(?<=[\[,:\s])-?(?:NaN|Infinity)(?=[\s,\]}]|$)")
_EXAMPLES = 5

_SCHEMA = """
    pragma journal_mode = off; pragma synchronous = off;
    create table entries (place int, key text, rank int, boxes text, primary key (place, key)) without rowid;
    create table loose (file text primary key, boxes text) without rowid;
    create table members (key text, place int);
    create table lost (file text primary key) without rowid;
"""
# Of two names for one image the more specific holds. Rows of a Parquet file add up; in JSON an image is one entry.
_INSERT = """
    insert into entries values (?, ?, ?, ?) on conflict do update set
        boxes = iif(excluded.rank < rank, excluded.boxes, boxes || excluded.boxes), rank = excluded.rank
    where excluded.rank < rank or (excluded.rank = rank and {adds_up})
"""
_INSERT_LOOSE = (
    "insert into loose values (?, ?) on conflict do update set boxes = boxes || excluded.boxes where {adds_up}"
)


@dataclass(frozen=True)
class Slice:
    """The part of an index that one shard needs.

    Attributes:
        url, identity: of the file that all of it stands in.
        offset, length: of the part, in bytes.
    """

    url: str
    identity: str
    offset: int
    length: int

    def load(self) -> dict[str, tuple[Box, ...]]:
        """Boxes by key, also of images without any; raises StorageError or TransientError."""
        with storage.open_unchanged(self.url, self.identity) as stream:
            stream.seek(self.offset)
            plainly = json.loads(zlib.decompress(stream.read(self.length)))
        return {
            key: tuple(Box(category, confidence, tuple(bounds)) for category, confidence, bounds in boxes)
            for key, boxes in plainly.items()
        }


@dataclass
class Index:
    """What became of a file of detections.

    Attributes:
        slices: by URI of the shard; none for a shard of which the file knows nothing.
        counts: `images` that it names and a shard of the input may hold, and names of these that are `repeated`;
            `failures` of the detector's; `boxes`, and of them `below_threshold`, `other_category` and `invalid`
            (empty, no number, or outside of the picture); and `unmatched`, which are of no shard.
        examples: some unmatched names.
    """

    slices: dict[str, Slice] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Detections:
    """A file of detections, and which of them count.

    Attributes:
        entry: the file.
        digest: SHA-256 of its content, in hex.
        threshold: least confidence.
        categories: by name or by number.
    """

    entry: Entry
    digest: str
    threshold: float
    categories: tuple[str, ...]

    @classmethod
    def at(cls, url: str, threshold: float, categories: tuple[str, ...]) -> "Detections":
        """The file as it is now; raises StorageError or TransientError."""
        entry = storage.stat(storage.absolute(url))
        digest = sha256()
        with storage.open_unchanged(entry.url, entry.identity) as stream:
            while data := stream.read(2**20):
                digest.update(data)
        return cls(entry, digest.hexdigest(), threshold, categories)

    @contextmanager
    def indexed(self, shards: Sequence[Shard], todo: Sequence[Shard], output: str, url: str) -> Iterator[Index]:
        """An index for workers, which is there as long as the context.

        Args:
            shards: all that the input holds: what a file name means depends on them.
            todo: those of them that are to be read.
            output: where results go.
            url: where the index goes.

        Raises:
            UsageError: the file is not what it should be; the message says where.
            StorageError, TransientError: a store refuses, or does not answer; the file changed since `at`.
        """
        with TemporaryDirectory(prefix="trapline-") as scratch:
            with closing(sqlite3.connect(Path(scratch, "index.sqlite"), isolation_level=None)) as database:
                database.executescript(_SCHEMA)
                index = Index()
                database.execute("begin")
                self._fill(database, Places(shards, output), index)
                _place_loose(database, shards)
                index.counts["images"], index.counts["unmatched"] = database.execute(
                    "select (select count(*) from entries), (select count(*) from lost)"
                ).fetchone()
                index.examples = [file for (file,) in database.execute(f"select file from lost limit {_EXAMPLES}")]
                slices = _write(database, {place: shard.uri for place, shard in enumerate(shards)}, todo, scratch)
            storage.put_file(url, str(Path(scratch, "slices")))
        identity = storage.stat(url).identity
        index.slices = {uri: Slice(url, identity, offset, length) for uri, offset, length in slices}
        try:
            yield index
        finally:
            with suppress(TraplineError):  # it is of no use to anybody, and does no harm
                storage.remove(url)

    @property
    def _is_parquet(self) -> bool:
        return self.entry.url.lower().endswith(".parquet")

    def _fill(self, database: sqlite3.Connection, places: Places, index: Index) -> None:
        adds_up = "true" if self._is_parquet else "false"
        insert, insert_loose = (sql.format(adds_up=adds_up) for sql in (_INSERT, _INSERT_LOOSE))
        names = _STANDARD if self._is_parquet else self._categories()
        wanted = {names.get(category, category) for category in self.categories}
        for file, boxes in self._parquet_files() if self._is_parquet else self._json_files(index.counts):
            lines = "".join(self._kept(boxes, names, wanted, index.counts))
            place = places.find(plain(file))
            if place:
                index.counts["repeated"] += not database.execute(insert, (*place, lines)).rowcount
            elif places.may_be_a_key(file):
                database.execute(insert_loose, (plain(file), lines))
            else:
                database.execute("insert or ignore into lost values (?)", (plain(file),))

    def _kept(
        self, boxes: Sequence[tuple[str, float, Any]], names: dict[str, str], wanted: set[str], counts: Counter[str]
    ) -> Iterator[str]:
        """The boxes that count, each as a line of JSON."""
        for category, confidence, bounds in boxes:
            counts["boxes"] += 1
            name = names.get(category, category)
            box = Box.clipped(name, confidence, bounds)
            if box is None:
                counts["invalid"] += 1
            elif confidence < self.threshold:
                counts["below_threshold"] += 1
            elif name not in wanted:
                counts["other_category"] += 1
            else:
                yield json.dumps([name, confidence, box.bounds]) + "\n"

    def _categories(self) -> dict[str, str]:
        """Names by number, as the file has them."""
        info = self._first("info") or {}
        found = str(info.get("format_version", "1")) if isinstance(info, dict) else ""
        if found.partition(".")[0] != "1":
            raise self._malformed(f"its format_version is {found}, and only 1.x is known", "convert it")
        names = self._first("detection_categories")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise self._malformed("has no object `detection_categories`")
        unknown = [one for one in self.categories if one not in names and one not in names.values()]
        if unknown:
            has = ", ".join(names.values())
            raise UsageError(f"{self.entry.url}: has no category {unknown[0]!r} but {has}; see --detection-categories")
        return names

    def _json_files(self, counts: Counter[str]) -> Iterator[tuple[str, list[tuple[str, float, Any]]]]:
        number = 0
        for number, image in enumerate(self._items("images.item"), 1):
            what = f"image {number}"
            if not isinstance(image, dict) or not isinstance(image.get("file"), str):
                raise self._malformed(f"{what} names no `file`")
            if image.get("failure"):
                counts["failures"] += 1
            elif not isinstance(image.get("detections"), list):
                raise self._malformed(f"{what} ({image['file']}) has neither `detections` nor `failure`")
            yield image["file"], [self._box(box, what) for box in image.get("detections") or ()]
        if not number and not isinstance(self._first("images"), list):
            raise self._malformed("has no list `images`")

    def _box(self, box: Any, what: str) -> tuple[str, float, Any]:
        try:
            left, top, width, height = (_number(value) for value in box["bbox"])
            return str(box["category"]), _number(box["conf"]), (left, top, width, height)
        except (KeyError, TypeError, ValueError) as error:
            raise self._malformed(
                f"a detection of {what} is no box with `category`, `conf` and four numbers of `bbox`"
            ) from error

    def _items(self, prefix: str) -> Iterator[Any]:
        with storage.open_unchanged(self.entry.url, self.entry.identity) as stream:
            try:
                yield from ijson.items(_PythonsJson(stream), prefix, use_float=True)
            except ijson.JSONError as error:
                raise self._malformed(f"no JSON ({in_one_line(error)})") from error

    def _first(self, prefix: str) -> Any:
        with closing(self._items(prefix)) as items:  # type: ignore[type-var]
            return next(items, None)

    def _parquet_files(self) -> Iterator[tuple[str, list[tuple[str, float, Any]]]]:
        with storage.open_unchanged(self.entry.url, self.entry.identity) as stream:
            try:
                file = pq.ParquetFile(stream)
                lacking = [name for name in _COLUMNS if name not in file.schema_arrow.names]
                if lacking:
                    raise self._malformed(f"has no column {lacking[0]!r}", f"write {', '.join(_COLUMNS)}")
                rows = (row for batch in file.iter_batches(columns=_COLUMNS) for row in batch.to_pylist())
                for name, boxes in groupby(rows, key=itemgetter("file")):
                    if not isinstance(name, str):
                        raise self._malformed("a row names no `file`")
                    # A row without a box says that the image was seen.
                    yield name, [self._box(box, name) for box in boxes if box["bbox"] is not None]
            except (pa.ArrowException, OSError) as error:
                raise self._malformed(f"no sound Parquet ({in_one_line(error)})") from error

    def _malformed(self, what: str, remedy: str = "give MegaDetector's batch output, format 1.x") -> UsageError:
        return UsageError(f"{self.entry.url}: {what}; {remedy}")


class _PythonsJson:
    """A stream of JSON in which what is no number, and Python writes all the same, is null."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Some bytes; none at the end."""
        if not size:
            return b""
        data, cut = self._rest, 0
        while cut < 1:
            more = self._stream.read(size)
            data += more
            if not more:
                cut = len(data)
                break
            cut = data.rfind(b",")  # before which no number goes on
        head, self._rest = data[:cut], data[cut:]
        return _NO_NUMBER.sub(b"null", head)


def _number(value: Any) -> float:
    return nan if value is None else float(value)


def _place_loose(database: sqlite3.Connection, shards: Sequence[Shard]) -> None:
    """Names that may be keys alone: they are, where one archive of the input has such a key, and no other."""
    if not database.execute("select exists (select * from loose)").fetchone()[0]:
        return
    for place, shard in enumerate(shards):
        if shard.format != "folder":
            database.executemany("insert into members values (?, ?)", ((plain(key), place) for key in keys(shard)))
    placed = "select key, min(place) as place from members group by key having count(*) = 1"
    database.execute(f"""
        insert or ignore into entries
        select place, key, {Places.BY_KEY}, boxes from loose join ({placed}) on key = file
    """)
    database.execute(f"insert into lost select file from loose where file not in (select key from ({placed}))")


def _write(
    database: sqlite3.Connection, uris: dict[int, str], todo: Sequence[Shard], scratch: str
) -> list[tuple[str, int, int]]:
    """The file `slices`: what each shard has, one after the other; gives URI, offset and length."""
    slices = []
    wanted = {shard.uri for shard in todo}
    with storage.translated(scratch), Path(scratch, "slices").open("wb") as file:
        rows = database.execute("select place, key, boxes from entries order by place, key")
        for place, group in groupby(rows, key=itemgetter(0)):
            if uris[place] not in wanted:
                continue
            boxes = {key: [json.loads(line) for line in lines.splitlines()] for _, key, lines in group}
            data = zlib.compress(json.dumps(boxes).encode())
            slices.append((uris[place], file.tell(), len(data)))
            file.write(data)
    return slices
