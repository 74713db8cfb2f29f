"""Decide which shard goes into which file, so that a night rewrites few files, and no row is ever in two.

A shard stays in the file that it is in. New shards fill the last file and then files of their own, in the order of
their paths: the first run sorts the whole archive by place, and each later run adds its new shards as a block. So a
night rewrites the last file and those that hold a shard whose result changed, and a reader that opens files meanwhile
finds each shard's rows once, old or new.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from trapline.analysis.flat_tables.contents import Part, TableFile, identity
from trapline.errors import OutputConflict
from trapline.storage import store

_NAME = re.compile(r"images-(\d{5,})(?:-[0-9a-f]+)?\.parquet")
_DIGEST_LENGTH = 12


@dataclass(frozen=True)
class FilePlan:
    """A file as it is to be.

    Attributes:
        url: of the file.
        before: of the file as it is; None if there is none.
        kept: parts that this holds already.
        changed: parts whose rows are to be read from their results.
        complete: whether it needs no writing.
    """

    url: str
    before: str | None
    kept: tuple[Part, ...]
    changed: tuple[Part, ...]
    complete: bool = False

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts, by the paths of their results."""
        return tuple(sorted((*self.kept, *self.changed), key=lambda part: part.result))

    def renamed(self, way: str) -> "FilePlan":
        """Return the plan of a file beside the one as it is, under a name that changes with what it holds.

        Args:
            way: digest of how the rows are made.
        """
        folder, name = self.url.rsplit("/", 1)
        digest = hashlib.sha256(f"{way} {identity(self.parts)}".encode()).hexdigest()[:_DIGEST_LENGTH]
        return replace(self, url=store.join(folder, f"images-{_number(name):05}-{digest}.parquet"))


def assign(wanted: Sequence[Part], existing: Mapping[str, TableFile], folder: str, images: int) -> list[FilePlan]:
    """Return the files as they are to be, by name; what exists and is not among them is to be removed.

    Args:
        wanted: the parts of all results.
        existing: the files that there are, by URL.
        folder: of the files.
        images: after so many a file takes no more shards.

    Raises:
        OutputConflict: two results hold the rows of one shard, or two files do.
    """
    _refuse_twice(wanted, "two results hold the rows of {}: {} and {}; remove one of them")
    held = [part for file in existing.values() for part in file.parts]
    _refuse_twice(held, "{} is in two of the files (as {} and {}); remove the files, and run it again")
    at = {part.shard: file.url for file in existing.values() for part in file.parts}
    planned: dict[str, list[Part]] = {}
    for part in wanted:
        if part.shard in at:
            planned.setdefault(at[part.shard], []).append(part)
    url = max(existing, key=_number, default=_url(folder, 1))
    size = sum(part.images for part in planned.get(url, []))
    for part in sorted((part for part in wanted if part.shard not in at), key=lambda part: part.result):
        if size >= images:
            url, size = _url(folder, _number(url) + 1), 0
        planned.setdefault(url, []).append(part)
        size += part.images
    return [_plan(url, parts, existing.get(url)) for url, parts in sorted(planned.items())]


def _plan(url: str, parts: Sequence[Part], file: TableFile | None) -> FilePlan:
    held = set(file.parts) if file else set()
    kept = tuple(part for part in parts if part in held)
    changed = tuple(part for part in parts if part not in held)
    return FilePlan(url, file.url if file else None, kept, changed, complete=not changed and len(kept) == len(held))


def _refuse_twice(parts: Iterable[Part], message: str) -> None:
    seen: dict[str, Part] = {}
    for part in parts:
        first = seen.setdefault(part.shard, part)
        if first is not part:
            raise OutputConflict(message.format(part.shard, first.result, part.result))


def _url(folder: str, number: int) -> str:
    return store.join(folder, f"images-{number:05}.parquet")


def _number(url: str) -> int:
    found = _NAME.fullmatch(url.rpartition("/")[2])
    return int(found[1]) if found else 0
