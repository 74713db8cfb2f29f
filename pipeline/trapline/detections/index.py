"""Write all boxes into an index, from which a worker loads those of its shard.

No process holds all boxes in memory: they go into a database on local disk, ordered by shard and key, and from there,
shard by shard, into one file in OUTPUT. A worker reads its part of that file.
"""

import json
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trapline.decoding.crops import Box
from trapline.detections.matching import ImageMatcher, keys
from trapline.detections.megadetector import Detections
from trapline.detections.shard_boxes import Seen, frame_of, normalize_path
from trapline.errors import StorageError, TraplineError
from trapline.sources.shards import Shard
from trapline.storage import store
from trapline.storage.retry import translated_errors

# How many unmatched names to show: enough to see what is wrong with them.
EXAMPLES = 5

_SCHEMA = """
    pragma journal_mode = off; pragma synchronous = off;
    create table entries (shard int, key text, rank int, boxes text, primary key (shard, key)) without rowid;
    create table loose (file text primary key, clip text, boxes text) without rowid;
    create table members (key text, shard int);
    create table lost (file text primary key) without rowid;
"""
# Of two names for one image, the more specific one counts. Rows of a Parquet file add up; in JSON each image is one
# entry.
# `boxes` has a line of JSON for each box, and one for the frames of a clip that were processed.
_INSERT = """
    insert into entries values (?, ?, ?, ?) on conflict do update set
        boxes = iif(excluded.rank < rank, excluded.boxes, boxes || excluded.boxes), rank = excluded.rank
    where excluded.rank < rank or (excluded.rank = rank and {adds_up})
"""
_INSERT_LOOSE = (
    "insert into loose values (?, ?, ?) on conflict do update set boxes = boxes || excluded.boxes where {adds_up}"
)


@dataclass(frozen=True)
class Slice:
    """The part of an index that one shard needs.

    Attributes:
        url, identity: of the file with the whole index.
        offset, length: of this part, in bytes.
    """

    url: str
    identity: str
    offset: int
    length: int

    def load(self) -> dict[str, Seen]:
        """Return what was found, by key, including images without a box; raises StorageError or TransientError."""
        with store.open_unchanged(self.url, self.identity) as stream:
            stream.seek(self.offset)
            plainly = json.loads(zlib.decompress(stream.read(self.length)))
        return {key: _from_lines(lines) for key, lines in plainly.items()}


@dataclass
class Index:
    """The slices of a detector's file, and its counts.

    Attributes:
        slices: by URI of the shard; none for a shard that the file does not mention.
        counts: `images`: names that match a shard of the input; `repeated`: names of an image that was named before;
            `failures` of the detector; `boxes`; how many of them are `below_threshold`, of an `other_category`,
            `invalid` (empty, not a number, or outside of the picture) or `without_frame` (of a clip); and `unmatched`:
            names that match no shard.
        examples: some unmatched names.
        failed: some names of files that the detector could not read.
    """

    slices: dict[str, Slice] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def unread(self, file: str) -> str | None:
        """Return in one line what the detector could not read; None if it read everything."""
        count = self.counts["failures"]
        total = self.counts["images"] + self.counts["unmatched"]
        names = ", ".join(self.failed)
        return (
            f"{file}: of {count:,} of {total:,} names it has no boxes but a failure, such as {names}" if count else None
        )

    def unmatched(self, file: str) -> str | None:
        """Return in one line how many names in the detector's file match no image; None if all match."""
        count = self.counts["unmatched"]
        if not count:
            return None
        total = count + self.counts["images"]
        share = f"{count:,} of {total:,} names ({count / total:.1%})"
        return f"{file}: {share} match no image of the input, such as {', '.join(self.examples)}"


@contextmanager
def indexed(
    detections: Detections, shards: Sequence[Shard], todo: Sequence[Shard], output: str, url: str
) -> Iterator[Index]:
    """Write an index for workers, and remove it when the context ends.

    Args:
        detections: what a detector found.
        shards: all shards of the input: what a file name means depends on them.
        todo: the shards that are to be read.
        output: where results go.
        url: where the index goes.

    Raises:
        UsageError: the detector's file is not what it should be.
        StorageError, TransientError: one of the two stores refuses, or does not answer.
    """
    with TemporaryDirectory(prefix="trapline-") as scratch, _disk_errors(scratch):
        with _matched(detections, shards, output, scratch) as (database, index):
            slices = _write(database, [shard.uri for shard in shards], todo, scratch)
        store.put_file(url, str(Path(scratch, "slices")))
    identity = store.stat(url).identity
    index.slices = {uri: Slice(url, identity, offset, length) for uri, offset, length in slices}
    try:
        yield index
    finally:
        with suppress(TraplineError):  # a file that is left behind does no harm
            store.remove(url)


def counted(detections: Detections, shards: Sequence[Shard], output: str) -> Index:
    """Return an index with its counts only; arguments and errors as for `indexed`."""
    with (
        TemporaryDirectory(prefix="trapline-") as scratch,
        _disk_errors(scratch),
        _matched(detections, shards, output, scratch) as (_, index),
    ):
        return index


@contextmanager
def _matched(
    detections: Detections, shards: Sequence[Shard], output: str, scratch: str
) -> Iterator[tuple[sqlite3.Connection, Index]]:
    """Yield the database of all boxes by shard and key, and an index with the counts."""
    with closing(sqlite3.connect(Path(scratch, "index.sqlite"), isolation_level=None)) as database:
        database.executescript(_SCHEMA)
        index = Index()
        database.execute("begin")
        _fill(database, detections, ImageMatcher(shards, output), index)
        _place_loose(database, shards)
        index.counts["images"], index.counts["unmatched"] = database.execute(
            "select (select count(*) from entries), (select count(*) from lost)"
        ).fetchone()
        index.examples = [file for (file,) in database.execute(f"select file from lost limit {EXAMPLES}")]
        yield database, index


@contextmanager
def _disk_errors(scratch: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:  # any error of SQLite here is about the disk
        raise StorageError(f"{scratch}: {error}; set TMPDIR to a disk with room for the index of boxes") from error


def _as_lines(seen: Seen) -> Iterator[Any]:
    for box in seen.boxes:
        yield [box.category, box.confidence, box.bounds, *([] if box.frame is None else [box.frame])]
    if seen.processed or seen.failed:
        yield {"processed": seen.processed, "failed": seen.failed}


def _from_lines(lines: Sequence[Any]) -> Seen:
    boxes = [line for line in lines if isinstance(line, list)]
    rest: dict[str, Any] = next((line for line in lines if isinstance(line, dict)), {"processed": (), "failed": False})
    return Seen(
        tuple(Box(category, confidence, tuple(bounds), *frame) for category, confidence, bounds, *frame in boxes),
        tuple(rest["processed"]),
        rest["failed"],
    )


def _fill(database: sqlite3.Connection, detections: Detections, matcher: ImageMatcher, index: Index) -> None:
    counts = index.counts
    adds_up = "true" if detections.is_parquet else "false"
    insert, insert_loose = (sql.format(adds_up=adds_up) for sql in (_INSERT, _INSERT_LOOSE))
    for file, seen in detections.files(counts):
        lines = "".join(json.dumps(line) + "\n" for line in _as_lines(seen))
        name = normalize_path(file)
        if seen.failed and len(index.failed) < EXAMPLES:
            index.failed.append(name)
        if match := matcher.find(name):
            counts["repeated"] += not database.execute(insert, (*match, lines)).rowcount
        elif matcher.may_be_a_key(name):
            frame = frame_of(name)
            database.execute(insert_loose, (name, frame[0] if frame else None, lines))
        else:
            database.execute("insert or ignore into lost values (?)", (name,))


def _place_loose(database: sqlite3.Connection, shards: Sequence[Shard]) -> None:
    """Match names that are only a key: each belongs to the one archive of the input that has this key.

    A detector that ran on a tree of folders, before it was packed into numbered shards, does not know the archives.
    Finding the archive of each key means reading every archive a second time, which is done only if there are such
    names.
    """
    if not database.execute("select exists (select * from loose)").fetchone()[0]:
        return
    for index, shard in enumerate(shards):
        if shard.format != "folder":
            database.executemany(
                "insert into members values (?, ?)", ((normalize_path(key), index) for key in keys(shard))
            )
    database.execute("""
        create table placed as select key, min(shard) as shard from members group by key having count(*) = 1""")
    for named in ("file", "clip"):  # a frame is a picture of that name, or else a part of the clip
        database.execute(f"""
            insert or ignore into entries
            select shard, file, {ImageMatcher.BY_KEY}, boxes from loose join placed on key = {named}
            where file not in (select key from placed) or {named} = file""")
    database.execute("""
        insert into lost select file from loose
        where file not in (select key from placed) and coalesce(clip not in (select key from placed), true)""")


def _write(
    database: sqlite3.Connection, uris: Sequence[str], todo: Sequence[Shard], scratch: str
) -> list[tuple[str, int, int]]:
    """Write the file `slices`, shard by shard; return URI, offset and length of each."""
    slices = []
    wanted = {shard.uri for shard in todo}
    with translated_errors(scratch), Path(scratch, "slices").open("wb") as file:
        rows = database.execute("select shard, key, boxes from entries order by shard, key")
        for shard, group in groupby(rows, key=itemgetter(0)):
            if uris[shard] not in wanted:
                continue
            boxes = {key: [json.loads(line) for line in lines.splitlines()] for _, key, lines in group}
            data = zlib.compress(json.dumps(boxes).encode())
            slices.append((uris[shard], file.tell(), len(data)))
            file.write(data)
    return slices
