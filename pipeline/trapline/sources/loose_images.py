"""Fetch the loose images of a folder, several at a time."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from errno import EIO
from functools import partial
from typing import TypeVar

from trapline.errors import StorageError, TraplineError
from trapline.sources import limits
from trapline.sources.file_types import is_clip
from trapline.sources.spooled import NoRoom, SpooledFile
from trapline.storage import store
from trapline.storage.local import leads_nowhere
from trapline.storage.store import Entry

# Loose images that are fetched at the same time: hides the store's latency.
_FETCHED_AT_ONCE = 16
# Images that are held at the same time, if more than one.
_HELD_BYTES = 64 * 2**20
# Files that are tried when one was refused and none has been read yet.
_PROBES = 16
# Kind of error of a file that cannot be read now; another day it may be readable, unchanged.
UNAVAILABLE = "unavailable"

T = TypeVar("T")


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


class Fetcher:
    """Fetches the files of a folder; a file that cannot be read does not stop the others.

    Args:
        folder: all images and clips of the folder.
        lost: files to leave out.
    """

    def __init__(self, folder: Sequence[Loose], lost: set[Entry]) -> None:
        self._folder = folder
        self._lost = lost
        self._read: Entry | None = None  # a file that could be read

    def fetch(self, batch: Sequence[Loose]) -> dict[Entry, bytes | TraplineError]:
        """Return the bytes of a batch's images and sidecars, or why one cannot be read; without clips.

        Files that are too large are left out.

        Raises:
            StorageError, TransientError: no file of the folder can be read, or the store does not answer.
        """
        images = {each.image for each in batch if not is_clip(each.key) and not limits.image_error(each.image.size)}
        sidecars = {each.sidecar for each in batch if each.sidecar and each.sidecar.size <= limits.MAX_SIDECAR_BYTES}
        files = [*(images | sidecars) - self._lost]
        try:
            found: dict[Entry, bytes | TraplineError] = dict(zip(files, store.read_many(files), strict=True))
        except TraplineError as error:
            _raise_unless_of_one_file(error)
            found = {entry: _unless_refused(partial(_read_one, entry)) for entry in files}
        self._check(found)
        return found

    def clip(self, clip: Loose) -> SpooledFile | TraplineError:
        """Return the file of a clip, or why it cannot be read; raise as `fetch` does."""
        found = _unless_refused(partial(SpooledFile.loose, clip.image))
        self._check({clip.image: found})
        return found

    def _check(self, found: Mapping[Entry, bytes | SpooledFile | TraplineError]) -> None:
        """Raise a refusal if no other file can be read either: credentials have expired, or a disk is gone."""
        self._read = self._read or next(
            (entry for entry, each in found.items() if entry.size and not isinstance(each, TraplineError)), None
        )
        refusal = next((each for each in found.values() if isinstance(each, TraplineError)), None)
        if refusal and not any(map(_can_be_read, [self._read] if self._read else self._some_others(found))):
            raise refusal

    def _some_others(self, tried: Collection[Entry]) -> list[Entry]:
        files = [each.image for each in self._folder if each.image.size]
        others = [entry for entry in files if entry not in tried and entry not in self._lost]
        return others[:: len(others) // _PROBES + 1]


def _read_one(entry: Entry) -> bytes:
    return store.read_many([entry])[0]


def _can_be_read(entry: Entry) -> bool:
    return isinstance(_unless_refused(partial(store.read_range, entry, 0, 1)), bytes)


def _unless_refused(read: Callable[[], T]) -> T | TraplineError:
    try:
        return read()
    except TraplineError as error:
        _raise_unless_of_one_file(error)
        return error


def _raise_unless_of_one_file(error: TraplineError) -> None:
    """Raise an error that may pass, or that concerns more than one file."""
    cause = error.__cause__
    # A bad sector stays bad: the reading has been retried, with pauses. Not so that of the folder of temporary files.
    is_bad_sector = isinstance(cause, OSError) and cause.errno == EIO and not isinstance(error, NoRoom)
    if not isinstance(error, StorageError) and not is_bad_sector:
        raise error


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
