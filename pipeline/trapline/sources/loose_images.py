"""Fetch the loose images of a folder, several at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trapline.errors import StorageError
from trapline.sources import limits
from trapline.sources.file_types import is_clip
from trapline.storage import store
from trapline.storage.local import leads_nowhere
from trapline.storage.store import Entry

# Loose images that are fetched at the same time: hides the store's latency.
_FETCHED_AT_ONCE = 16
# Images that are held at the same time, if more than one.
_HELD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Loose:
    """An image or a clip in a folder, and its sidecar."""

    image: Entry
    sidecar: Entry | None

    @property
    def key(self) -> str:
        """Its name in the folder."""
        return self.image.url.rpartition("/")[2]

    @property
    def identity(self) -> str:
        """What changes when one of the two files does."""
        return f"{self.image.identity} {self.sidecar.identity}" if self.sidecar else self.image.identity

    @property
    def held_bytes(self) -> int:
        """Bytes in memory, of an image that was fetched."""
        return 0 if is_clip(self.key) else self.image.size


def batches(loose: Sequence[Loose]) -> Iterator[list[Loose]]:
    """Yield the images that are held at the same time."""
    batch: list[Loose] = []
    for each in loose:
        size = sum(other.held_bytes for other in batch) + each.held_bytes
        if batch and (len(batch) == _FETCHED_AT_ONCE or size > _HELD_BYTES):
            yield batch
            batch = []
        batch.append(each)
    yield batch


def fetch(batch: Sequence[Loose], lost: set[Entry]) -> dict[Entry, bytes]:
    """Return the bytes of a batch's images and sidecars; without clips, and without files that are too large.

    Args:
        batch: images to fetch.
        lost: files to leave out.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    images = {each.image for each in batch if not is_clip(each.key) and not limits.image_error(each.image.size)}
    sidecars = {each.sidecar for each in batch if each.sidecar and each.sidecar.size <= limits.MAX_SIDECAR_BYTES}
    files = [*(images | sidecars) - lost]
    return dict(zip(files, store.read_many(files), strict=True))


def lost_links(folder: Sequence[Loose]) -> set[Entry]:
    """Return the files of a folder that are links without a target, as git-annex leaves for files not fetched.

    Raises:
        StorageError: all images are such links, as when a disk is not mounted.
    """
    if not folder or store.remote(folder[0].image.url) is not None:
        return set()
    files = [file for each in folder for file in (each.image, each.sidecar) if file]
    lost = {file for file in files if leads_nowhere(file.url)}
    if lost and all(each.image in lost for each in folder):
        uri = folder[0].image.url.rpartition("/")[0]
        raise StorageError(f"{uri}: all its images are links without a target; mount the disk, or fetch them")
    return lost
