"""Which image of the input a detector's file name means: its shard, and its key in there."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from trapline.errors import TraplineError
from trapline.sources.file_types import shard_format
from trapline.sources.records import read
from trapline.sources.shards import FOLDER_OUTPUT, Shard
from trapline.storage import store

# A detector may have seen an archive unpacked, as a folder of its name.
_BOUNDARY = re.compile("[/#]")


class ImageMatcher:
    """Where names lead. A name is a shard's, then `/` or `#`, then the key; of several shards the first of these holds

    0. whose URI the name begins with;
    1. whose path below INPUT it begins with, as that of its result below OUTPUT;
    2. of whose URI it begins with the last few segments, where no other shard's ends so;
    3. (`BY_KEY`) that alone has the whole name as a key, which this class cannot know unless there is one shard.

    Args:
        shards: of the input.
        output: where results go.
    """

    BY_KEY: Final = 3

    def __init__(self, shards: Sequence[Shard], output: str) -> None:
        self._folders = [shard.format == "folder" for shard in shards]
        self._alone = len(shards) == 1
        self._named: dict[str, tuple[int, int]] = {}
        tails = Counter(tail for shard in shards for tail in _tails(shard.uri))
        for index, shard in enumerate(shards):
            below = shard.output.removeprefix(f"{store.absolute(output)}/")
            ending = FOLDER_OUTPUT if shard.format == "folder" else ".parquet"
            names = [shard.uri, below.removesuffix(ending).removesuffix("/")]
            ranked = [*enumerate(names), *((2, tail) for tail in _tails(shard.uri) if tails[tail] == 1)]
            for rank, name in ranked:
                self._named[name] = min(self._named.get(name, (rank, index)), (rank, index))

    def find(self, name: str) -> tuple[int, str, int] | None:
        """Position of the shard, key and rank; None where no shard is named."""
        best: tuple[int, str, int] | None = None
        for end in [*(found.start() for found in reversed([*_BOUNDARY.finditer(name)])), None]:
            shard, key = (name[:end], name[end + 1 :]) if end is not None else ("", name)
            rank, index = self._named.get(shard, (self.BY_KEY, None))
            # A folder's images lie directly in it.
            if index is not None and (not best or rank < best[2]) and not (self._folders[index] and "/" in key):
                best = index, key, rank
        return best or ((0, name, self.BY_KEY) if self._alone else None)

    def may_be_a_key(self, name: str) -> bool:
        """Whether an archive may have the whole name as a key: there are archives, and the name names none itself."""
        named = any(shard_format(segment) for segment in _BOUNDARY.split(name)[:-1])
        return not all(self._folders) and not named


def keys(shard: Shard) -> Iterator[str]:
    """All keys of a shard, as far as it can be read."""
    try:
        for record in read(shard, Counter()):
            yield record.key
    except TraplineError:  # which is told when the shard is classified
        return


def _tails(uri: str) -> Iterator[str]:
    segments = uri.partition("://")[2].split("/") if "://" in uri else uri.split("/")
    for start in range(1, len(segments)):
        if tail := "/".join(segments[start:]):
            yield tail
