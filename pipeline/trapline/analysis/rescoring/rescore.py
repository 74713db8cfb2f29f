"""Compute new results from stored ones, without reading images: one file in OUTPUT for each file of RESULTS.

RESULTS is not changed. The new files are results, too: they appear whole or not at all, and have a footer that names
the file they come from and a fingerprint of everything that can change a row.
"""

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from trapline.analysis import dataset, parallel
from trapline.analysis.dataset import Results
from trapline.analysis.rescoring.scorer import Scorer
from trapline.analysis.rescoring.species_list import SpeciesList
from trapline.analysis.rescoring.taxonomy import Taxonomy
from trapline.errors import OutputConflict, PermanentError, TransientError, in_one_line
from trapline.results import clip_pooling, ledger
from trapline.results.fingerprint import Fingerprint
from trapline.results.footer import Footer, find
from trapline.results.ledger import Plan
from trapline.results.parquet import ROWS_PER_GROUP, file_metadata, parquet_writer
from trapline.results.rows import of_images, without_frames
from trapline.sources.shards import Shard
from trapline.storage import store

# Raise it when the same options would give other rows.
_METHOD = 4
# Files that are processed at the same time, each with its columns of one row group and its new file in memory.
_THREADS = 4


@dataclass(frozen=True)
class Outcome:
    """The outcome of one file.

    Attributes:
        url: of the new file.
        images: in it.
        species: the most probable class, counted.
        remarks: images with something to report, counted.
        trouble: why it could not be made; None if it was.
        patterns: deployments of the species list that hold for one of the images; None if that is not known.
    """

    url: str
    images: int
    species: Counter[str]
    remarks: Counter[str]
    trouble: str | None = None
    patterns: frozenset[str] | None = None


def fingerprint(
    results: Results, scorer: Scorer, species: SpeciesList | None, taxonomy: Taxonomy | None
) -> Fingerprint:
    """Return what the new rows depend on, which includes the fingerprint of the stored ones."""
    facts = {
        "rescore_method": _METHOD,
        "rescored": dict(results.fingerprint.facts),
        "head_sha256": scorer.head.digest if scorer.head else None,
        "temperature": scorer.temperature,
        "species_list_sha256": species.digest if species else None,
        "taxonomy_sha256": taxonomy.digest if taxonomy else None,
        "threshold": scorer.threshold if taxonomy else None,
        "top_k": scorer.top_k,
    }
    return Fingerprint({name: value for name, value in facts.items() if value is not None})


def plan(results: Results, output: str, fingerprint: Fingerprint, overwrite: bool) -> Plan:
    """Plan what is left to do, with result files in place of shards; raises as `ledger.plan` does."""
    output = store.absolute(output)
    shards = [
        Shard(
            uri=file.url,
            format="parquet",
            size=int(file.version.partition("-")[0]),
            identity=file.version,
            output=output + file.url.removeprefix(results.output),
        )
        for file in results.files
    ]
    return ledger.plan(shards, output, fingerprint, overwrite)


def run(todo: list[Shard], scorer: Scorer, fingerprint: Fingerprint) -> Iterator[Outcome]:
    """Rescore files, some at a time; a file that changes meanwhile or is damaged is an outcome too.

    Raises:
        StorageError: the store refuses.
    """
    score = partial(_score, scorer=scorer, fingerprint=fingerprint)
    yield from parallel.each(score, todo, _THREADS, partial(_found, fingerprint=fingerprint))


def _found(shard: Shard, trouble: str, fingerprint: Fingerprint) -> Outcome:
    """Return the outcome of a file whose worker died: it may have written the new one before."""
    footer = find(shard.output)
    if footer and (footer.uri, footer.identity, footer.fingerprint) == (shard.uri, shard.identity, fingerprint):
        return Outcome(shard.output, sum(footer.images.values()), Counter(footer.species), Counter())
    return Outcome(shard.output, 0, Counter(), Counter(), f"{shard.uri}: {trouble}")


def _score(shard: Shard, scorer: Scorer, fingerprint: Fingerprint) -> Outcome:
    try:
        with store.open_unchanged(shard.uri, shard.identity) as stream:
            data, outcome = _rows(pq.ParquetFile(stream), shard, scorer, fingerprint)
        store.put(shard.output, data)
    except (TransientError, PermanentError, OutputConflict) as error:
        return Outcome(shard.output, 0, Counter(), Counter(), in_one_line(error))
    except (pa.ArrowException, OSError) as error:
        trouble = f"{shard.uri}: no sound Parquet ({in_one_line(error)}); classify its shard again"
        return Outcome(shard.output, 0, Counter(), Counter(), trouble)
    return outcome


def _rows(file: pq.ParquetFile, shard: Shard, scorer: Scorer, fingerprint: Fingerprint) -> tuple[bytes, Outcome]:
    """Return the new file, and what is in it."""
    before = Footer.from_metadata(file.metadata.metadata or {})
    if before is None:
        raise OutputConflict(f"{shard.uri}: was replaced while it was read; try again")
    sink = io.BytesIO()
    images, species, remarks, patterns = 0, Counter[str](), Counter[str](), set[str]()
    batches = partial(file.iter_batches, batch_size=ROWS_PER_GROUP, columns=scorer.reads)
    # The row of a clip stands before its frames, and these perhaps in the next batch.
    clips = clip_pooling.total([scorer.sums(batch) for batch in batches()]) if before.frames else {}
    with parquet_writer(sink, scorer.schema) as writer:
        for batch in batches():
            table = scorer(batch, remarks, clips)
            images += len(of_images(table))
            patterns |= scorer.patterns(batch)
            species.update(without_frames(table).column("species").drop_null().to_pylist())
            writer.write_table(table)
        dataset.require_images(shard.uri, images, sum(before.images.values()))
        after = replace(
            before,
            uri=shard.uri,
            identity=shard.identity,
            fingerprint=fingerprint,
            species=dict(species.most_common()),
            size=shard.size,
        )
        writer.add_key_value_metadata(file_metadata(after, scorer.classes))
    return sink.getvalue(), Outcome(shard.output, images, species, remarks, patterns=frozenset(patterns))
