"""What a run counts: images that came back from prediction, and rows of committed shards."""

from collections import Counter
from typing import Any

from trapline.detections.index import EXAMPLES, Index
from trapline.results.footer import Footer
from trapline.results.rows import of_images
from trapline.run.messages import PredictedChunk
from trapline.run.plan import STATUSES, RunPlan
from trapline.sources.file_types import count_ignored


class Tallies:
    """Counts of images, rows and reasons.

    Args:
        plan: of the run.

    Attributes:
        images_seen: images that came back from prediction, committed or not; without those carried over.
        failed_seen: how many of these failed.
        carried_over, images, crops, clips, frames, reasons, species, ignored, images_already_done: see `Manifest`.
    """

    def __init__(self, plan: RunPlan) -> None:
        self.images_seen = 0
        self.failed_seen = 0
        self.carried_over = 0
        self.images: Counter[str] = Counter()
        self.images_already_done = plan.images_already_done
        self.crops = self.clips = self.frames = 0
        self.reasons: Counter[str] = Counter()
        self.species: Counter[str] = Counter()
        self.ignored = Counter(plan.found.ignored)
        self._index: Index | None = None
        self._unmatched = 0
        self._examples: set[str] = set()

    def record_index(self, index: Index) -> None:
        """Record what became of a detector's output."""
        self._index = index

    def record_chunk(self, chunk: PredictedChunk) -> None:
        """Count the images of a chunk."""
        images = of_images(chunk.rows)
        if chunk.carried:
            self.carried_over += len(images)
        else:
            self.images_seen += len(images)
            self.failed_seen += images.column("status").to_pylist().count("failed")
        if chunk.end:
            for key in chunk.end.unmatched[: EXAMPLES - len(self._examples)]:
                self._examples.add(f"{chunk.shard.uri}#{key}")

    def commit(self, footer: Footer) -> None:
        """Count the rows of a shard that was written."""
        self.images.update(footer.images)
        self.crops += footer.crops
        self.clips += footer.clips
        self.frames += footer.frames
        self._unmatched += footer.unmatched
        self.reasons.update(footer.reasons)
        self.species.update(footer.species)
        for kind, number in footer.ignored.items():  # not `update`: each shard may add kinds, without limit
            count_ignored(self.ignored, kind, number)

    def done_by_another(self, footer: Footer) -> None:
        """Count the rows of a shard that another run has written."""
        self.images_already_done.update(footer.images)

    @property
    def detections(self) -> dict[str, Any]:
        """See `Manifest`."""
        if not self._index:
            return {}
        counts = dict(self._index.counts)
        counts["unmatched"] += self._unmatched
        return {**counts, "examples": [*self._index.examples, *sorted(self._examples)][:EXAMPLES]}


def by_status(counts: Counter[str]) -> dict[str, int]:
    """Return counts for every status, also those that did not occur."""
    return {status: counts[status] for status in STATUSES}
