"""What OUTPUT holds: every result file says in its footer whose rows it has, and a cache keeps what the footers say.

A shard is done when its file exists and the file's footer names the current fingerprint and the shard's current
identity, and no file of a folder was unavailable. Nothing else is recorded that could disagree: the cache counts only
for files whose size and etag have not changed, and deleting it costs only the time to read the footers again.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter

import pyarrow as pa
import pyarrow.parquet as pq

from trapline.errors import OutputConflict
from trapline.results import footer, layout
from trapline.results.fingerprint import Fingerprint
from trapline.results.footer import Footer
from trapline.sources.shards import Shard, shortened
from trapline.storage import store
from trapline.storage.local import is_temporary
from trapline.storage.store import Entry


@dataclass(frozen=True, slots=True)
class Result:
    """What planning needs to know of a Parquet file in OUTPUT; kept small, because an archive may have a million.

    Attributes:
        url: of the file.
        version: size and etag of the file.
        shard: whose rows it holds; None if it is not a result.
        identity: size and etag of that shard as it was read.
        fingerprint: digest of what the rows depend on, see `Footer.depends_on`.
        image_fingerprint: digest of what the rows of images depend on; equal to `fingerprint` without clips.
        ok, salvaged, failed: images and clips by status.
        clips: how many of these are clips.
        frames: rows of the clips' frames; not part of the three counts.
        unavailable: how many images and sidecars could not be read, see `Footer`.
    """

    url: str
    version: str
    shard: str | None = None
    identity: str | None = None
    fingerprint: str | None = None
    ok: int = 0
    salvaged: int = 0
    failed: int = 0
    clips: int = 0
    frames: int = 0
    image_fingerprint: str | None = None
    unavailable: int = 0

    @property
    def images(self) -> int:
        """Rows of images and clips, without those of crops and frames."""
        return self.ok + self.salvaged + self.failed

    @property
    def is_empty(self) -> bool:
        """Return whether the file has no bytes, as after a power cut; it may be overwritten."""
        return self.version.startswith("0-")

    @classmethod
    def of(cls, entry: Entry, said: Footer | None) -> "Result":
        """Return what the ledger keeps of a file and its footer."""
        if said is None:
            return cls(entry.url, entry.identity)
        counts = {**said.images, "clips": said.clips, "frames": said.frames, "unavailable": said.unavailable}
        digests = said.depends_on.digest, said.fingerprint.without_clips().digest
        return cls(
            entry.url, entry.identity, said.uri, said.identity, digests[0], **counts, image_fingerprint=digests[1]
        )


@dataclass(frozen=True)
class Plan:
    """What is left to do.

    Attributes:
        todo: shards without a valid result.
        unavailable: folders with a result that lacks files which were unavailable; they may be readable now.
        done: the valid results of the other shards.
        results_with_other_fingerprint: how many are kept because the input does not hold their shards.
        results: all results in OUTPUT.
    """

    todo: list[Shard]
    unavailable: list[Shard]
    done: list[Result]
    results_with_other_fingerprint: int
    results: list[Result]


def plan(
    shards: Sequence[Shard],
    output: str,
    fingerprint: Fingerprint,
    replace: bool,
    results: list[Result] | None = None,
) -> Plan:
    """Compare the shards with what OUTPUT holds.

    Args:
        shards: what the inputs hold.
        output: where results go.
        fingerprint: of this run.
        replace: whether results with another fingerprint may be overwritten.
        results: what `survey` has found there; by default it is called.

    Raises:
        OutputConflict: the name of a shard's result is taken by the rows of another shard, or by a file that is no
            result; or a shard has a result under another name than it would get now; or (without `replace`) there are
            rows with another fingerprint.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    results = survey(output) if results is None else results
    at = {result.url: result for result in results}
    mine = {fingerprint.digest, fingerprint.without_clips().digest}
    todo, unavailable, done = [], [], []
    for shard in shards:
        result = at.get(shard.output)
        if result and not result.is_empty:
            _refuse_foreign(shard, result, output)
        if not (result and result.fingerprint in mine and result.identity == shard.identity):
            todo.append(shard)
        # A file that `rescore` reads is Parquet: the rows of unavailable images are all that it will ever have.
        elif result.unavailable and shard.format == "folder":
            unavailable.append(shard)
        else:
            done.append(result)
    _refuse_second_copies(shards, results, output)
    others = [result for result in results if result.shard and result.fingerprint not in mine]
    if others and not replace:
        _refuse_others(others, len(results), fingerprint, output)
    outputs = {shard.output for shard in shards}
    return Plan(todo, unavailable, done, sum(other.url not in outputs for other in others), results)


def survey(output: str, trust_cache: bool = True) -> list[Result]:
    """List every Parquet file in OUTPUT, by name; footers that are not in the cache are read.

    Args:
        output: where to look; it need not exist.
        trust_cache: whether a footer in the cache need not be read.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    return survey_all(output, trust_cache)[0]


def survey_all(output: str, trust_cache: bool = True) -> tuple[list[Result], list[Entry]]:
    """Return what `survey` returns, and the unfinished files in OUTPUT: being written, or left by a killed writer."""
    entries = layout.list_files(output, missing_ok=True)
    cached = trust_cache and any(entry.url == layout.ledger_cache(output) for entry in entries)
    known = _remembered(output) if cached else {}

    def look(entry: Entry) -> Result:
        return known.get((entry.url, entry.identity)) or Result.of(entry, footer.read_footer(entry))

    return footer.read_each(layout.data_files(entries), look), [each for each in entries if is_temporary(each.url)]


def remember(output: str, results: Iterable[Result]) -> None:
    """Write the cache; raises as `survey` does."""
    ordered = list(results)
    columns = [field.name for field in fields(Result)]
    table = pa.table({name: list(map(attrgetter(name), ordered)) for name in columns})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    store.put(layout.ledger_cache(output), sink.getvalue())


def _remembered(output: str) -> dict[tuple[str, str], Result]:
    data = store.read_many([layout.ledger_cache(output)])[0]
    try:
        table = pq.read_table(pa.BufferReader(data))
        columns = [table.column(field.name).to_pylist() for field in fields(Result)]
    except (pa.ArrowException, OSError, KeyError):  # damaged, or of another version
        return {}
    return {(row[0], row[1]): Result(*row) for row in zip(*columns, strict=True)}


def _refuse_foreign(shard: Shard, result: Result, output: str) -> None:
    if result.shard is None:
        raise OutputConflict(
            f"{shard.output}: not written by Trapline, or damaged, and in the way; move it, or choose another OUTPUT"
        )
    if result.shard != shard.uri:
        raise OutputConflict(
            f"{shard.output}: holds the rows of {result.shard}, not of {shard.uri}; choose another OUTPUT than {output}"
        )


def _refuse_second_copies(shards: Sequence[Shard], results: Sequence[Result], output: str) -> None:
    name = {shard.uri: shard.output for shard in shards}
    for result in results:
        if result.shard in name and name[result.shard] != result.url:
            if name[result.shard] == shortened(result.url):  # an object store takes names of more than 255 bytes
                raise OutputConflict(
                    f"{result.url}: an earlier version gave the result of {result.shard} this name, which is too long "
                    f"for file systems; move it to {name[result.shard]}"
                )
            raise OutputConflict(
                f"{result.url}: holds the rows of {result.shard}, which would stand a second time in "
                f"{name[result.shard]}; give INPUT as it was given before, or choose another OUTPUT than {output}"
            )


def _refuse_others(others: Sequence[Result], total: int, mine: Fingerprint, output: str) -> None:
    said = footer.find(others[0].url)
    if said and not said.has_clips:
        mine = mine.without_clips()
    differences = "; ".join(said.depends_on.differences(mine)) if said else others[0].url
    raise OutputConflict(
        f"{output}: {len(others)} of {total} results were written with different settings ({differences}); "
        "choose another OUTPUT, or overwrite them with --replace"
    )
