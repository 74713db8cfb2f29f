"""Find the image that a name in a detector's file means: its shard, and its key in the shard."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from trapline.detections.shard_boxes import composed, frame_of
from trapline.errors import TraplineError
from trapline.sources.file_types import shard_format
from trapline.sources.records import read
from trapline.sources.shards import FOLDER_OUTPUT, Shard
from trapline.storage import store

_BOUNDARY = re.compile("[/#]")
# A detector may have seen an archive unpacked, as a folder of its name.
_ARCHIVE_SUFFIX = re.compile(r"\.(?:tar\.gz|tgz|tar|zip|parquet)$", re.IGNORECASE)


class ImageMatcher:
    """Find the shard and the key that a name means.

    A name consists of a shard's name, `/` or `#`, and the key. Names are compared exactly, and if that finds no shard,
    in composed form (NFC), because macOS decomposes names that others compose. The first of these ranks that fits
    counts:

    0. the name begins with the shard's URI;
    1. it begins with the shard's path below INPUT, which is that of its result below OUTPUT;
    2. it begins with the last few segments of the shard's URI, and no other shard's URI ends in them;
    3. it begins with such segments of an archive without its suffix: `x/DCIM/1.JPG` of `x.tar`, once unpacked;
    4. it has such segments anywhere, the longest first: an absolute path of another machine, `C:/data/x/DCIM/1.JPG`;
    5. (`BY_KEY`) the whole name is a key of this shard only, which this class cannot know unless there is one shard.

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
        """Return the shard's position, the key and the rank; None if the name names no shard."""
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
        """Find the longest run of segments, not at the name's beginning, in which only one shard's URI ends."""
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
        """Return whether the shard may have this key, or the clip of this frame: a folder has no keys with a slash."""
        frame = frame_of(key)
        return not (self._folders[index] and "/" in (frame[0] if frame else key))

    def may_be_a_key(self, name: str) -> bool:
        """Return whether the whole name may be a key of an archive: there are archives, and the name names none."""
        named = any(shard_format(segment) for segment in _BOUNDARY.split(name)[:-1])
        return not all(self._folders) and not named


def keys(shard: Shard) -> Iterator[str]:
    """Yield all keys of a shard, as far as it can be read."""
    try:
        for record in read(shard, Counter()):
            yield record.key
    except TraplineError:  # it is reported when the shard is classified
        return


def _unambiguous(named: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Return the matches of composed names, except names that match two shards."""
    found: dict[str, set[tuple[int, int]]] = {}
    for name, match in named.items():
        found.setdefault(composed(name), set()).add(match)
    return {name: min(matches) for name, matches in found.items() if len({index for _, index in matches}) == 1}


def _unpacked(shard: Shard) -> str:
    """Return the URI of an archive's folder once it is unpacked: without its suffixes."""
    if shard.format == "folder":
        return shard.uri
    folder, _, name = shard.uri.rpartition("/")
    return f"{folder}/{_ARCHIVE_SUFFIX.sub('', name)}"


def _tails(uri: str) -> Iterator[str]:
    segments = uri.partition("://")[2].split("/") if "://" in uri else uri.split("/")
    for start in range(1, len(segments)):
        if tail := "/".join(segments[start:]):
            yield tail
