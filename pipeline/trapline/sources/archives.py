"""Iterate over the images and sidecars of an archive, whatever its format."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import IO, NoReturn

from trapline.errors import ImageError
from trapline.sources import limits
from trapline.sources.file_types import count_ignored, is_nested_archive, is_sidecar, is_wanted, junk
from trapline.sources.members import Member
from trapline.sources.tar_archive import tar_members
from trapline.sources.zip_archive import read_directory


def image_members(stream: IO[bytes], format: str) -> Iterator[Member]:
    """Read the images of a tar or zip in the order of their rows; raise whatever the parser raises."""
    members = tar_members(stream) if format == "tar" else read_directory(stream).members
    return (member for member in wanted(members, Counter()) if not is_sidecar(member.name))


def wanted(members: Iterable[Member], ignored: Counter[str], clips: bool = True) -> Iterator[Member]:
    """Yield images, clips, and sidecars that are not too large; count the rest, and clips unless `clips` is set.

    An archive inside the archive becomes a failed row that says so.
    """
    for member in members:
        if member.is_file and is_nested_archive(member.name) and not junk(member.name):
            yield replace(member, size=0, read=_refuse_nested)
        elif not is_wanted(member.name, ignored, clips):
            continue
        elif not member.is_file:
            count_ignored(ignored, "(link or device)")
        elif is_sidecar(member.name) and member.size > limits.MAX_SIDECAR_BYTES:
            count_ignored(ignored, limits.SIDECAR_TOO_LARGE)
        else:
            yield member


def _refuse_nested() -> NoReturn:
    raise ImageError("nested_archive", "an archive inside an archive is not read; unpack the outer one")
