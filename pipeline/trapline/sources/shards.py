"""List the shards of the inputs: what to read, how to recognise that it changed, and which Parquet file it becomes."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import PurePosixPath

from trapline.errors import OutputConflict, UsageError
from trapline.sources.file_types import (
    Format,
    count_ignored,
    is_media,
    is_wanted,
    junk,
    junk_below,
    sample_stem,
    shard_format,
)
from trapline.sources.own_results import without_results
from trapline.sources.sidecars import SidecarIndex
from trapline.storage import store
from trapline.storage.store import Entry

# Inputs that are listed at the same time, for lists of many lines: hides the store's latency.
_LISTINGS = 16

# Keys of object stores may have path segments that lead out of OUTPUT on a file system.
_ESCAPED_SEGMENTS = {".": "%2E", "..": "%2E%2E"}

# Bytes of a file name that file systems allow; results have longer names than their shards.
_LONGEST_NAME = 255

# The result of a folder of loose images lies inside the mirrored folder, so that it is in the same Hive partitions.
FOLDER_OUTPUT = "images.parquet"


class EmptyInput(UsageError):
    """The inputs hold no shard."""


@dataclass(frozen=True)
class Shard:
    """A unit of work and of commit: one file in, one Parquet file out.

    Attributes:
        uri: the archive file, or the folder that holds loose images.
        format: how to read it.
        size: bytes to read.
        identity: size and etag (or modification time); for a folder a digest over those of its images and sidecars.
        output: URL of the Parquet file that it becomes.
        arrived: when it was added or changed, by the store's clock; of a folder, the latest of its files. None if the
            store does not say.
        image_column: of a Parquet file, the column that the user names; None to find it.
        clips: whether clips are read, besides images.
    """

    uri: str
    format: Format
    size: int
    identity: str
    output: str
    arrived: datetime | None = field(default=None, compare=False)
    image_column: str | None = None
    clips: bool = True


@dataclass(frozen=True)
class Discovery:
    """What the inputs hold.

    Attributes:
        shards: by URI.
        ignored: files that are neither shards nor images, counted by suffix (or by name, for known junk).
        excluded: number of shards that were listed and not selected.
    """

    shards: list[Shard]
    ignored: dict[str, int]
    excluded: int = 0


def discover(inputs: Sequence[str], output: str, image_column: str | None = None, clips: bool = True) -> Discovery:
    """List every shard at the inputs: files, folders (recursively), glob patterns, or `@list.txt` files of these.

    The output name mirrors the path below the input: below the folder as given, below the last folder before a
    pattern's first wildcard, and below the root of the store for the lines of a list (because lines come and go).
    A folder that holds loose images is one shard, even if a pattern matches only some of them. Results of Trapline
    that lie below an input are no shards.

    Args:
        inputs: what to list.
        output: where results go; what lies there is not listed.
        image_column: of Parquet files, the column that holds the images; None to find it.
        clips: whether clips are read; the identity of a folder includes its clips in any case.

    Raises:
        UsageError: an input lies in output, names single images, has a name that is not UTF-8, or holds nothing to
            classify.
        OutputConflict: two shards would become one file.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    output = store.absolute(output)
    roots = list(_expand(inputs))
    shards: dict[str, Shard] = {}
    ignored: Counter[str] = Counter()
    with ThreadPoolExecutor(_LISTINGS) as threads:
        listings = threads.map(lambda root: _list(root[0], output), roots)
        for (url, base), entries in zip(roots, listings, strict=True):
            for shard in _shards(url, base, entries, output, image_column, ignored):
                shards.setdefault(shard.uri, shard if clips else replace(shard, clips=False))
    if not shards:
        raise EmptyInput(
            f"{' '.join(inputs)}: holds no shard (.tar, .tar.gz, .tgz, .zip, .parquet), no image and no clip"
        )
    _refuse_unprintable(shards)
    _refuse_collisions(shards.values())
    return Discovery([shards[uri] for uri in sorted(shards)], dict(ignored.most_common()))


def list_loose(folder: str) -> list[Entry]:
    """List the files directly in a folder; raise as `store.list_folder` does."""
    if not folder.endswith("/"):
        return store.list_folder(folder, junk_below(folder))
    # The folder of a key such as `a//1.jpg` is `a/`; the filesystems of fsspec would drop its last slash.
    return [entry for entry in store.list_files(folder.rstrip("/")) if entry.url.rpartition("/")[0] == folder]


def folder_members(entries: Iterable[Entry], ignored: Counter[str]) -> tuple[list[Entry], SidecarIndex[Entry]]:
    """Return the images and clips among a folder's files, and their `.json` sidecars; count what is neither."""
    images: list[Entry] = []
    sidecars = SidecarIndex[Entry]()
    for entry in entries:
        name = entry.url.rpartition("/")[2]  # not the folder: it has been chosen already
        if (shard_format(name) and not junk(name)) or not is_wanted(name, ignored):
            continue
        if is_media(name):
            images.append(entry)
        else:
            sidecars.add(entry.url, entry)
    return images, sidecars


def folder_identity(images: list[Entry], sidecars: Iterable[Entry]) -> str:
    """Return a digest that changes when an image or a sidecar is added, removed or replaced."""
    digest = hashlib.sha256()
    for entry in [*images, *sorted(sidecars, key=lambda entry: (sample_stem(entry.url), entry.url))]:
        digest.update(os.fsencode(f"{PurePosixPath(entry.url).name}\0{entry.identity}\n"))
    return f"{len(images)}-{digest.hexdigest()[:32]}"


def _expand(inputs: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each input, absolute, with the base of its output names; None if the base is the input itself."""
    for url in inputs:
        if not url.startswith("@"):
            yield store.absolute(url), None
            continue
        for line in map(str.strip, store.read_text(url[1:]).splitlines()):
            if line and not line.startswith("#"):
                root = store.absolute(line)
                yield root, root[: root.index("://") + 3] if "://" in root else "/"


def _list(root: str, output: str) -> list[Entry]:
    if is_below(root, output):
        raise UsageError(f"{root}: lies in OUTPUT {output}; choose an OUTPUT outside of the input")
    if root.startswith(("http://", "https://")):
        raise UsageError(f"{root}: web servers cannot be listed; download it, or give the URL of its object store")
    if is_media(root):
        raise UsageError(f"{root}: names single images or clips; give the folder that holds them")
    above = store.glob_base(root) if store.has_glob(root) else root
    return [entry for entry in store.list_files(root, left_out=junk_below(above)) if not is_below(entry.url, output)]


def _shards(
    root: str, base: str | None, entries: list[Entry], output: str, column: str | None, ignored: Counter[str]
) -> Iterator[Shard]:
    is_pattern = store.has_glob(root)
    above = store.glob_base(root) if is_pattern else _base(root, entries)
    base = base or above
    folders: dict[str, list[Entry]] = defaultdict(list)
    for entry in without_results(entries, ignored):
        folder, _, name = entry.url.rpartition("/")
        # Only the path below INPUT counts: a user may classify a snapshot.
        if found := junk(f"{folder.removeprefix(above)}/"):
            count_ignored(ignored, found)
        elif (kind := shard_format(name)) and not junk(name):
            result = shortened(f"{_mirrored(entry.url, base, output)}.parquet")
            yield Shard(entry.url, kind, entry.size, entry.identity, result, entry.arrived, column)
        else:
            folders[folder].append(entry)
    for folder, files in folders.items():
        others: Counter[str] = Counter()
        images, sidecars = folder_members(list_loose(folder) if is_pattern else files, others)
        if images:  # other files are counted when the shard is read
            size = sum(entry.size for entry in images)
            identity, result = folder_identity(images, sidecars), f"{_mirrored(folder, base, output)}/{FOLDER_OUTPUT}"
            yield Shard(folder, "folder", size, identity, result, _latest([*images, *sidecars]))
        else:
            sidecars.count_unmatched(others)
            for kind_of_file, number in others.items():
                count_ignored(ignored, kind_of_file, number)


def _latest(entries: Iterable[Entry]) -> datetime | None:
    times = [entry.arrived for entry in entries]
    return max(time for time in times if time) if all(times) else None


def _base(root: str, entries: list[Entry]) -> str:
    is_file = len(entries) == 1 and entries[0].url == root
    return root.rpartition("/")[0] if is_file else root


def _mirrored(url: str, base: str, output: str) -> str:
    segments = filter(None, url.removeprefix(base.rstrip("/")).split("/"))
    return store.join(output, *map(_escaped, segments))


def _escaped(segment: str) -> str:
    """Return the name of a result or of its folder, without backslashes, which DuckDB's patterns do not match."""
    return _ESCAPED_SEGMENTS.get(segment, segment).replace("\\", "%5C")


def shortened(result: str) -> str:
    """Return the URL of a result; a name that is too long becomes its beginning and a digest."""
    folder, _, name = result.rpartition("/")
    data = name.encode(errors="surrogateescape")
    if len(data) <= _LONGEST_NAME:
        return result
    digest = hashlib.sha256(data).hexdigest()[:16]
    ending = f"-{digest}.parquet"
    return f"{folder}/{data[: _LONGEST_NAME - len(ending)].decode(errors='ignore')}{ending}"


def is_below(url: str, folder: str) -> bool:
    """Return whether a URL is this folder or lies in it; both must be absolute."""
    return f"{url}/".startswith(f"{folder.rstrip('/')}/")


def _refuse_unprintable(uris: Iterable[str]) -> None:
    # Rows name their shard, in columns of UTF-8.
    for uri in uris:
        try:
            uri.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{uri!a}: the name is no UTF-8, as a column of text must be; rename it") from error


def _refuse_collisions(shards: Iterable[Shard]) -> None:
    owners: dict[str, Shard] = {}
    for shard in shards:
        other = owners.setdefault(shard.output, shard)
        if other is not shard:
            raise OutputConflict(
                f"{shard.output}: would hold both {other.uri} and {shard.uri}; classify them into two OUTPUTs"
            )
    for shard in owners.values():
        above = shard.output.rpartition("/")[0]
        while ".parquet" in above and "://" not in above:  # keys of object stores may begin with other keys
            if above in owners:
                raise OutputConflict(
                    f"{above}: would be the result of {owners[above].uri}, and the folder of that of {shard.uri}; "
                    "classify them into two OUTPUTs"
                )
            above = above.rpartition("/")[0]
