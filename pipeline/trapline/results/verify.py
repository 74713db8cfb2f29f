"""Check that each image of the input is one row of the output.

The check does not rely on what wrote the rows: it lists and reads the shards again, and compares keys and content
hashes.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pyarrow.parquet as pq

from trapline.errors import ShardBroken, TraplineError
from trapline.results import layout
from trapline.results.footer import Footer
from trapline.results.ledger import Result, survey
from trapline.results.rows import of_frames, of_images
from trapline.sources.counts import count_images
from trapline.sources.records import read
from trapline.sources.shards import Shard, discover
from trapline.storage import store

# Threads: hashing releases the interpreter's lock, and stores answer many requests at a time.
_THREADS = 8
_COMPARED = ("key", "content_sha256", "media_type", "frame_seconds", "crop")
_UNIQUE = ("key", "frame_seconds", "crop")


@dataclass(frozen=True)
class Finding:
    """How one result file compares with its shard.

    Attributes:
        output: the result file.
        uri: the shard; None for a file that belongs to no shard of the input.
        images: images and clips of the shard, plus one if it breaks off.
        clips: rows of clips.
        frames: rows of the clips' frames.
        missing: keys without a row.
        duplicated: keys with more than one row, or with more than one row of the same frame or crop.
        foreign: rows whose key the shard does not hold.
        stale: rows whose content hash is not the image's; all rows if the shard has changed since.
        trouble: why the two could not be compared, or what else is wrong.
    """

    output: str
    uri: str | None
    images: int = 0
    clips: int = 0
    frames: int = 0
    missing: int = 0
    duplicated: int = 0
    foreign: int = 0
    stale: int = 0
    trouble: str | None = None

    @property
    def good(self) -> bool:
        """Whether each image is one row, and each row is an image."""
        return not (self.missing or self.duplicated or self.foreign or self.stale or self.trouble)


def reconcile(inputs: Sequence[str], output: str, sample: int | None = None, seed: int = 0) -> Iterator[Finding]:
    """Compare each shard with its result file; then name the files that belong to no shard.

    Args:
        inputs: as `classify` takes them.
        output: as `classify` takes it.
        sample: read only this many shards, drawn at random; listings are compared in full in any case.
        seed: of the draw.

    Raises:
        FatalError: input or output cannot be listed.
    """
    shards = discover(inputs, output).shards
    results = {result.url: result for result in survey(output, trust_cache=False)}
    if not results:
        layout.list_files(output)  # raises if OUTPUT does not exist
    chosen = set(Random(seed).sample(shards, min(sample, len(shards)))) if sample else set(shards)
    with ThreadPoolExecutor(_THREADS) as threads:
        yield from threads.map(lambda shard: _compare(shard, results.get(shard.output), shard in chosen), shards)
    read = {shard.uri for shard in shards}
    for url in sorted(results.keys() - {shard.output for shard in shards}):
        yield _stray(results[url], read)


def _compare(shard: Shard, result: Result | None, whole: bool) -> Finding:
    if result is None:
        return Finding(shard.output, shard.uri, trouble="no result yet")
    if result.shard != shard.uri:
        return Finding(shard.output, shard.uri, trouble=f"holds the rows of {result.shard or 'no shard'}")
    if result.identity != shard.identity:
        return Finding(shard.output, shard.uri, stale=result.images, trouble="the shard has changed")
    if not whole:
        return Finding(shard.output, shard.uri, images=result.images, clips=result.clips, frames=result.frames)
    try:
        return _compare_images(shard)
    except TraplineError as error:
        return Finding(shard.output, shard.uri, trouble=str(error))


def _compare_images(shard: Shard) -> Finding:
    rows: Counter[str] = Counter()
    parts: Counter[tuple[Any, ...]] = Counter()
    clips = frames = stale = 0
    with store.open_tail(shard.output) as stream:
        file = pq.ParquetFile(stream)
        footer = Footer.from_metadata(file.metadata.metadata or {})
        facts = footer.fingerprint.facts if footer else {}
        shard = replace(shard, image_column=facts.get("image_column"), clips="video_fps" in facts)
        images, broken = _hashes(shard)
        names = [name for name in _COMPARED if name in file.schema_arrow.names]
        for batch in file.iter_batches(columns=names):
            parts.update(zip(*(batch.column(name).to_pylist() for name in names if name in _UNIQUE), strict=True))
            frames += len(of_frames(batch))
            own = of_images(batch)
            clips += own.column("media_type").to_pylist().count("video") if "media_type" in names else 0
            for key, digest in zip(*(own.column(name).to_pylist() for name in _COMPARED[:2]), strict=True):
                rows[key] += 1
                stale += key in images and digest != images[key]
    return Finding(
        output=shard.output,
        uri=shard.uri,
        images=len(images),
        clips=clips,
        frames=frames,
        missing=len(images.keys() - rows.keys()),
        duplicated=len({part[0] for part, count in parts.items() if count > 1}),
        foreign=sum(count for part, count in parts.items() if part[0] not in images),
        stale=stale,
        trouble=None if broken else _miscounted(shard, len(images)),
    )


def _miscounted(shard: Shard, read: int) -> str | None:
    """Return how the number of images that were read differs from the independent count; None if it does not."""
    counted = count_images(shard)
    if counted is None or counted == read:
        return None
    return f"reading it gave {read} images, but its own headers count {counted}; please report this"


def _hashes(shard: Shard) -> tuple[dict[str, bytes | None], bool]:
    """Return the SHA-256 of each image by key, and whether the shard is broken.

    The hash is None for an image whose bytes cannot be read, and under an empty key for the break.
    """
    images: dict[str, bytes | None] = {}
    try:
        for record in read(shard, Counter()):
            images[record.key] = record.sha256
    except ShardBroken:
        images[""] = None
        return images, True
    return images, False


def _stray(result: Result, read: set[str]) -> Finding:
    """Return the finding for a file under no shard's name: fine if its shard is no longer in the input, else wrong."""
    if result.shard is None:
        return Finding(result.url, None, trouble="not written by Trapline")
    if result.shard in read:
        return Finding(result.url, None, duplicated=result.images, trouble=f"a second copy of {result.shard}")
    return Finding(result.url, None, images=result.images, clips=result.clips, frames=result.frames)
