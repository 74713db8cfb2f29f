"""What OUTPUT holds. Every result file says in its footer whose rows it has; a cache remembers what the footers say.

A shard is done when its file exists and the file's footer names the current fingerprint and the shard's current
identity. There is no second book that could disagree: the cache is believed only of files whose size and etag are still
those that were read, and whoever deletes it loses nothing but the time to read the footers again.
"""

import io
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from operator import attrgetter

import pyarrow as pa
import pyarrow.parquet as pq

from trapline import __version__
from trapline.errors import OutputConflict, StorageError, TransientError
from trapline.results.fingerprint import Fingerprint
from trapline.sources.shards import Shard
from trapline.storage import store
from trapline.storage.store import Entry

# What is not data lives here, below OUTPUT.
SIDE_FOLDER = "_trapline"
# Parquet, under a name that no reader's glob picks up.
_CACHE = "ledger.cache"

_KEY = "trapline."
CLASSES_KEY = f"{_KEY}classes"

# A footer of ours has some 30 KB, most of it the names of the classes.
_FOOTER_BYTES = 2**16
_MAGIC = b"PAR1"
# Reading a footer is one request of some 20 ms: this many at a time keep one core of the driver busy.
_FOOTER_THREADS = 32


@dataclass(frozen=True)
class Footer:
    """What a result file says of itself, in the key-value metadata of its Parquet footer.

    Attributes:
        uri: the shard that the rows come from.
        identity: size and etag of that shard as it was read.
        fingerprint: how the rows were computed.
        images: by status: ok, salvaged, failed.
        reasons: kinds of error, counted.
        species: the most probable class, counted.
        ignored: what was neither image nor sidecar, by suffix.
        broken: why the shard could not be read to its end; None for a sound one.
        size: bytes of the shard.
        crops: rows of crops, which are besides those of images.
        unmatched: images that a detector saw in the shard, and the shard does not hold.
    """

    uri: str
    identity: str
    fingerprint: Fingerprint
    images: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    species: dict[str, int] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    broken: str | None = None
    size: int = 0
    crops: int = 0
    unmatched: int = 0

    def to_metadata(self) -> dict[str, str]:
        """Key-value metadata of a Parquet file."""
        plain = {name: value for name, value in asdict(self).items() if name != "fingerprint"}
        return {
            f"{_KEY}version": __version__,
            f"{_KEY}fingerprint": self.fingerprint.to_json(),
            f"{_KEY}shard": json.dumps(plain, ensure_ascii=False),
        }

    @classmethod
    def from_metadata(cls, metadata: dict[bytes, bytes]) -> "Footer | None":
        """The inverse; None where the file is not one of ours. What other versions add or leave out does no harm."""
        known = {field.name for field in fields(cls)}
        try:
            plain = json.loads(metadata[f"{_KEY}shard".encode()])
            fingerprint = Fingerprint.from_json(metadata[f"{_KEY}fingerprint".encode()].decode())
            return cls(fingerprint=fingerprint, **{name: plain[name] for name in known & plain.keys()})
        except (AttributeError, KeyError, TypeError, ValueError):
            return None


@dataclass(frozen=True, slots=True)
class Result:
    """A Parquet file in OUTPUT, as far as planning needs to know it: an archive may have a million.

    Attributes:
        url: of the file.
        version: size and etag of the file.
        shard: whose rows it holds; None where it is not one of ours.
        identity: size and etag of that shard as it was read.
        fingerprint: digest of how the rows were computed.
        ok, salvaged, failed: images by status.
    """

    url: str
    version: str
    shard: str | None = None
    identity: str | None = None
    fingerprint: str | None = None
    ok: int = 0
    salvaged: int = 0
    failed: int = 0

    @property
    def images(self) -> int:
        """Rows, those of crops apart."""
        return self.ok + self.salvaged + self.failed

    @classmethod
    def of(cls, entry: Entry, footer: Footer | None) -> "Result":
        """What there is to remember of a footer."""
        if footer is None:
            return cls(entry.url, entry.identity)
        digest = footer.fingerprint.digest
        return cls(entry.url, entry.identity, footer.uri, footer.identity, digest, **footer.images)


@dataclass(frozen=True)
class Plan:
    """What is left to do.

    Attributes:
        todo: shards without a valid result.
        done: the results of those that have one.
        otherwise: how many results were computed otherwise and stay, because the input does not hold their shards.
        results: all that OUTPUT holds.
    """

    todo: list[Shard]
    done: list[Result]
    otherwise: int
    results: list[Result]


def plan(shards: Sequence[Shard], output: str, fingerprint: Fingerprint, replace: bool) -> Plan:
    """Compare the shards with what OUTPUT holds.

    Args:
        shards: what the inputs hold.
        output: where results go.
        fingerprint: of this run.
        replace: whether results with another fingerprint may be overwritten.

    Raises:
        OutputConflict: OUTPUT holds, under a name that a shard would take, the rows of another shard or a file that
            is not ours; or a shard's rows under a name that it would not take now; or (without `replace`) rows with
            another fingerprint.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    results = survey(output)
    at = {result.url: result for result in results}
    todo, done = [], []
    for shard in shards:
        result = at.get(shard.output)
        if result:
            _refuse_foreign(shard, result, output)
        if result and (result.fingerprint, result.identity) == (fingerprint.digest, shard.identity):
            done.append(result)
        else:
            todo.append(shard)
    _refuse_second_copies(shards, results, output)
    others = [result for result in results if result.shard and result.fingerprint != fingerprint.digest]
    if others and not replace:
        _refuse_others(others, len(results), fingerprint, output)
    mine = {shard.output for shard in shards}
    return Plan(todo, done, sum(other.url not in mine for other in others), results)


def survey(output: str, trust_cache: bool = True) -> list[Result]:
    """Every Parquet file in OUTPUT, by name; footers that are not in the cache are read.

    Args:
        output: where to look; it need not exist.
        trust_cache: whether a footer in the cache need not be read.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    entries = store.list_files(output, missing_ok=True)
    cached = trust_cache and any(entry.url == _cache_url(output) for entry in entries)
    known = _remembered(output) if cached else {}
    results = [entry for entry in entries if entry.url.endswith(".parquet") and f"/{SIDE_FOLDER}/" not in entry.url]
    with ThreadPoolExecutor(_FOOTER_THREADS) as threads:

        def look(entry: Entry) -> Result:
            return known.get((entry.url, entry.identity)) or Result.of(entry, read_footer(entry))

        return list(threads.map(look, results))


def remember(output: str, results: Iterable[Result]) -> None:
    """Write the cache; raises as `survey` does."""
    ordered = list(results)
    columns = [field.name for field in fields(Result)]
    table = pa.table({name: list(map(attrgetter(name), ordered)) for name in columns})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    store.put(_cache_url(output), sink.getvalue())


def find(url: str) -> Footer | None:
    """The footer of the result at a URL as it is now; None where there is none, or none to be had."""
    try:
        return read_footer(store.stat(url))
    except (StorageError, TransientError):
        return None


def read_footer(entry: Entry) -> Footer | None:
    """The footer of a result file; None where it is not one of ours, or not Parquet at all.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    end = store.read_end(entry, _FOOTER_BYTES)
    length = int.from_bytes(end[-8:-4], "little") + 8
    if not end.endswith(_MAGIC) or length > entry.size:
        return None
    if length > len(end):
        end = store.read_end(entry, length)
    try:
        return Footer.from_metadata(pq.read_metadata(pa.BufferReader(end)).metadata or {})
    except (pa.ArrowException, OSError):  # Arrow says a bare OSError of a damaged footer
        return None


def _cache_url(output: str) -> str:
    return store.join(store.absolute(output), SIDE_FOLDER, _CACHE)


def _remembered(output: str) -> dict[tuple[str, str], Result]:
    data = store.read_many([_cache_url(output)])[0]
    try:
        table = pq.read_table(pa.BufferReader(data))
        columns = [table.column(field.name).to_pylist() for field in fields(Result)]
    except (pa.ArrowException, OSError, KeyError):  # damaged, or of another version
        return {}
    return {(row[0], row[1]): Result(*row) for row in zip(*columns, strict=True)}


def _refuse_foreign(shard: Shard, result: Result, output: str) -> None:
    if result.shard is None:
        raise OutputConflict(
            f"{shard.output}: not written by Trapline, and in the way; move it, or choose another OUTPUT"
        )
    if result.shard != shard.uri:
        raise OutputConflict(
            f"{shard.output}: holds the rows of {result.shard}, not of {shard.uri}; choose another OUTPUT than {output}"
        )


def _refuse_second_copies(shards: Sequence[Shard], results: Sequence[Result], output: str) -> None:
    name = {shard.uri: shard.output for shard in shards}
    for result in results:
        if result.shard in name and name[result.shard] != result.url:
            raise OutputConflict(
                f"{result.url}: holds the rows of {result.shard}, which would stand a second time in "
                f"{name[result.shard]}; give INPUT as it was given before, or choose another OUTPUT than {output}"
            )


def _refuse_others(others: Sequence[Result], total: int, mine: Fingerprint, output: str) -> None:
    footer = find(others[0].url)
    differences = "; ".join(footer.fingerprint.differences(mine)) if footer else others[0].url
    raise OutputConflict(
        f"{output}: {len(others)} of {total} results were written otherwise ({differences}); "
        "choose another OUTPUT, or overwrite them with --replace"
    )
