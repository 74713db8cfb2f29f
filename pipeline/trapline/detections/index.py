"""Write all boxes into an index, from which a worker loads those of its shard.

No process holds all of them: they go into a database on this machine's disk, ordered by shard and key, and from there,
shard by shard, into one file beside the results. A worker reads its own part of that.
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

# Of names that are of no image: enough to see what is wrong with them.
EXAMPLES = 5

_SCHEMA = """
    pragma journal_mode = off; pragma synchronous = off;
    create table entries (shard int, key text, rank int, boxes text, primary key (shard, key)) without rowid;
    create table loose (file text primary key, clip text, boxes text) without rowid;
    create table members (key text, shard int);
    create table lost (file text primary key) without rowid;
"""
# Of two names for one image the more specific holds. Rows of a Parquet file add up; in JSON an image is one entry.
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
        url, identity: of the file that all of it stands in.
        offset, length: of the part, in bytes.
    """

    url: str
    identity: str
    offset: int
    length: int

    def load(self) -> dict[str, Seen]:
        """Return what was found by key, also in images without any box; raises StorageError or TransientError."""
        with store.open_unchanged(self.url, self.identity) as stream:
            stream.seek(self.offset)
            plainly = json.loads(zlib.decompress(stream.read(self.length)))
        return {key: _from_lines(lines) for key, lines in plainly.items()}


@dataclass
class Index:
    """The slices of a detector's file, and its counts.

    Attributes:
        slices: by URI of the shard; none for a shard of which the file knows nothing.
        counts: `images` that it names and a shard of the input may hold, and names of these that are `repeated`;
            `failures` of the detector's; `boxes`, and of them `below_threshold`, `other_category` and `invalid`
            (empty, no number, or outside of the picture) or `without_frame`, of a clip; and `unmatched`, which are of
            no shard.
        examples: some unmatched names.
        failed: some names of what the detector could not read.
    """

    slices: dict[str, Slice] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def unread(self, file: str) -> str | None:
        """Return what the detector could not read, in one line; None where it read all."""
        count = self.counts["failures"]
        total = self.counts["images"] + self.counts["unmatched"]
        names = ", ".join(self.failed)
        return (
            f"{file}: of {count:,} of {total:,} names it has no boxes but a failure, such as {names}" if count else None
        )

    def unmatched(self, file: str) -> str | None:
        """Return which share of the names in the detector's file is of no image, in one line; None where all match."""
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
        shards: all that the input holds: what a file name means depends on them.
        todo: those of them that are to be read.
        output: where results go.
        url: where the index goes.

    Raises:
        UsageError, StorageError, TransientError: as reading raises them, or as the other store says.
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
        with suppress(TraplineError):  # a file that stays is of no use, and does no harm
            store.remove(url)


def counted(detections: Detections, shards: Sequence[Shard], output: str) -> Index:
    """Return the counts alone, of an index that is not kept; arguments and errors as for `indexed`."""
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
    """Yield the database of all boxes by shard and key, and what was counted on the way."""
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
    except sqlite3.Error as error:  # of what SQLite trips over here, all is about the disk
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
    """Match names that are keys alone: each belongs to the one archive of the input that has such a key.

    A detector that ran on a tree of folders, before it was packed into numbered shards, knows no archive. Finding where
    each key is means reading every archive a second time, which is done only where such names are.
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
