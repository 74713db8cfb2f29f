"""Find the image that a name in a detector's file means: its shard, and its key in the shard."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from trapline.detections.shard_boxes import frame_of
from trapline.errors import TraplineError
from trapline.sources.file_types import shard_format
from trapline.sources.records import read
from trapline.sources.shards import FOLDER_OUTPUT, Shard
from trapline.storage import store

# A detector may have seen an archive unpacked, as a folder of its name.
_BOUNDARY = re.compile("[/#]")
_ARCHIVE_SUFFIX = re.compile(r"\.(?:tar\.gz|tgz|tar|zip|parquet)$", re.IGNORECASE)


class ImageMatcher:
    """Finds the shard and the key that a name means.

    A name is a shard's, then `/` or `#`, then the key. Of several shards the first of these is meant, whose name is
    compared exactly, and if none is found, composed (NFC), as macOS writes decomposed names that others compose:

    0. whose URI the name begins with;
    1. whose path below INPUT it begins with, as that of its result below OUTPUT;
    2. of whose URI it begins with the last few segments, where no other shard's URI ends so;
    3. that begins with such segments of an archive without its suffix: `x/DCIM/1.JPG` of `x.tar`, once unpacked;
    4. that has such segments anywhere, the longest first: an absolute path of another machine, `C:/data/x/DCIM/1.JPG`;
    5. (`BY_KEY`) that alone has the whole name as a key, which this class cannot know unless there is one shard.

    Args:
        shards: of the input.
        output: where results go.
    """

    BY_KEY: Final = 5
    _INSIDE: Final = 4

    def __init__(self, shards: Sequence[Shard], output: str) -> None:
        self._folders = [shard.format == "folder" for shard in shards]
        self._alone = len(shards) == 1
        self._named: dict[str, tuple[int, int]] = {}
        tails = Counter(tail for shard in shards for tail in {*_tails(shard.uri), *_tails(_unpacked(shard))})
        for index, shard in enumerate(shards):
            below = shard.output.removeprefix(f"{store.absolute(output)}/")
            ending = FOLDER_OUTPUT if shard.format == "folder" else ".parquet"
            names = [shard.uri, below.removesuffix(ending).removesuffix("/")]
            ranked = [*enumerate(names), *((2, tail) for tail in _tails(shard.uri) if tails[tail] == 1)]
            ranked += [(3, tail) for tail in [_unpacked(shard), *_tails(_unpacked(shard))] if tails[tail] <= 1]
            for rank, name in ranked:
                self._named[name] = min(self._named.get(name, (rank, index)), (rank, index))
        self._composed = _unambiguous(self._named)

    def find(self, name: str) -> tuple[int, str, int] | None:
        """Return the shard's position, the key and the rank; None where no shard is named."""
        found = self._beginning(name, self._named) or self._beginning(composed(name), self._composed)
        found = found or self._inside(name)
        return found or ((0, name, self.BY_KEY) if self._alone else None)

    def _beginning(self, name: str, named: dict[str, tuple[int, int]]) -> tuple[int, str, int] | None:
        best: tuple[int, str, int] | None = None
        for end in [*(found.start() for found in reversed([*_BOUNDARY.finditer(name)])), None]:
            shard, key = (name[:end], name[end + 1 :]) if end is not None else ("", name)
            rank, index = named.get(shard, (self.BY_KEY, None))
            if index is not None and (not best or rank < best[2]) and self._may_hold(index, key):
                best = index, key, rank
        return best

    def _inside(self, name: str) -> tuple[int, str, int] | None:
        """Find the longest run of segments, not at the name's beginning, that ends one shard's URI and no other's."""
        name = composed(name)
        bounds = [found.start() for found in _BOUNDARY.finditer(name)]
        pairs = [(start, end) for start in range(len(bounds)) for end in range(start + 1, len(bounds))]
        for start, end in sorted(pairs, key=lambda pair: pair[0] - pair[1]):
            key = name[bounds[end] + 1 :]
            rank, index = self._composed.get(name[bounds[start] + 1 : bounds[end]], (0, None))
            if index is not None and rank and self._may_hold(index, key):
                return index, key, self._INSIDE
        return None

    def _may_hold(self, index: int, key: str) -> bool:
        """Whether the shard may have such a key, or the clip of such a frame: a folder's files lie directly in it."""
        frame = frame_of(key)
        return not (self._folders[index] and "/" in (frame[0] if frame else key))

    def may_be_a_key(self, name: str) -> bool:
        """Whether an archive may have the whole name as a key: there are archives, and the name names none itself."""
        named = any(shard_format(segment) for segment in _BOUNDARY.split(name)[:-1])
        return not all(self._folders) and not named


def keys(shard: Shard) -> Iterator[str]:
    """Yield all keys of a shard, as far as it can be read."""
    try:
        for record in read(shard, Counter()):
            yield record.key
    except TraplineError:  # which is reported when the shard is classified
        return


def composed(name: str) -> str:
    """Return a name in Unicode's composed form, NFC."""
    return unicodedata.normalize("NFC", name)


def _unambiguous(named: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Return what composed names lead to, but for those that are of two shards."""
    found: dict[str, set[tuple[int, int]]] = {}
    for name, match in named.items():
        found.setdefault(composed(name), set()).add(match)
    return {name: min(matches) for name, matches in found.items() if len({index for _, index in matches}) == 1}


def _unpacked(shard: Shard) -> str:
    """Return what an archive's URI is called once it is unpacked: without its suffixes."""
    if shard.format == "folder":
        return shard.uri
    folder, _, name = shard.uri.rpartition("/")
    return f"{folder}/{_ARCHIVE_SUFFIX.sub('', name)}"


def _tails(uri: str) -> Iterator[str]:
    segments = uri.partition("://")[2].split("/") if "://" in uri else uri.split("/")
    for start in range(1, len(segments)):
        if tail := "/".join(segments[start:]):
            yield tail
