"""Count the images of a shard independently of `records`, so that `verify` notices what one of the two overlooks.

A tar is read header by header without `tarfile`, a zip is listed by `zipfile`, Parquet's footer has a count.
"""

import gzip
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from typing import IO

import pyarrow.parquet as pq

from trapline.errors import TraplineError
from trapline.sources.file_types import is_clip, is_image, is_nested_archive, junk
from trapline.sources.shards import Shard, folder_members, list_loose
from trapline.storage import store

_BLOCK = 512
# Types of tar headers that are no files: links, devices, folders, PAX globals, those of GNU, Solaris and star.
_TYPES_WITHOUT_ROW = b"23456" + b"gK" + b"DNV" + b"AEI"
_MAX_NAME_BYTES = 2**18
_EMPTY_ZIP_BYTES = 22
_NO_FILE_MODES = (0x4, 0xA)  # of zip members: folder, symbolic link
_PAX_LENGTH = re.compile(rb"([1-9]\d{0,7}) ")


def count_images(shard: Shard) -> int | None:
    """Return how many rows a sound shard should have; None if it cannot be counted this way.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    if shard.format == "folder":
        return sum(_gives_row(entry.url, shard) for entry in folder_members(list_loose(shard.uri), Counter())[0])
    try:
        with store.open_tail(shard.uri) as stream:
            if shard.format == "parquet":
                return int(pq.ParquetFile(stream).metadata.num_rows)
            names = _tar_names(stream) if shard.format == "tar" else _zip_names(stream)
            return sum(not junk(name) and (_gives_row(name, shard) or is_nested_archive(name)) for name in names)
    except TraplineError:
        raise
    except Exception:  # noqa: BLE001 - the parsers raise anything on damaged bytes
        return None


def _gives_row(name: str, shard: Shard) -> bool:
    return is_image(name) or (shard.clips and is_clip(name))


def _zip_names(stream: IO[bytes]) -> Iterator[str]:
    infos = zipfile.ZipFile(stream).infolist()
    if not infos and stream.seek(0, 2) > _EMPTY_ZIP_BYTES:  # an empty archive in the comment, as `zipfile` takes it
        raise ValueError
    for info in infos:
        if not info.is_dir() and info.external_attr >> 28 not in _NO_FILE_MODES:
            yield info.filename


def _tar_names(stream: IO[bytes]) -> Iterator[str]:
    if stream.read(2) == b"\x1f\x8b":
        stream.seek(0)
        stream = gzip.GzipFile(fileobj=stream)  # type: ignore[assignment]
    stream.seek(0)
    place = 0
    name, size = b"", None
    while len(header := stream.read(_BLOCK)) == _BLOCK and header.strip(b"\0"):
        kind = header[156:157]
        length = _number(header[124:136]) if size is None else size
        place += _BLOCK
        if kind == b"S":
            more = header[482]
            while more:
                more = stream.read(_BLOCK)[504]
                place += _BLOCK
        if kind in b"LxX":
            data = stream.read(min(length, _MAX_NAME_BYTES))
            if kind == b"L":
                name = data.partition(b"\0")[0]
            else:
                found = _pax_values(data)
                name, size = found.get(b"path") or name, int(found[b"size"]) if b"size" in found else size
        else:
            path = name or _short_name(header)
            is_old_folder = kind == b"\0" and path.endswith(b"/")
            if kind not in _TYPES_WITHOUT_ROW and not is_old_folder:
                yield path.decode("utf-8", "surrogateescape")
            name, size = b"", None
        place += 0 if kind in b"123456" else -(-length // _BLOCK) * _BLOCK
        stream.seek(place)


def _pax_values(data: bytes) -> dict[bytes, bytes]:
    """Return the values of a PAX header, each of which is `LENGTH NAME=VALUE\\n`; a value may hold line breaks."""
    found: dict[bytes, bytes] = {}
    place = 0
    while length := _PAX_LENGTH.match(data, place):
        name, _, value = data[length.end() : place + int(length[1]) - 1].partition(b"=")
        found[name] = value
        place += int(length[1])
    return found


def _short_name(header: bytes) -> bytes:
    name, prefix = header[:100].partition(b"\0")[0], header[345:500].partition(b"\0")[0]
    return prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.strip(b" \0") or b"0", 8)
