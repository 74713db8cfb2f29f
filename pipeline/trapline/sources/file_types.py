"""Tell from a file's name whether it is an image, a clip, a sidecar, a shard, or junk; count what is none of these."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Literal

Format = Literal["tar", "zip", "parquet", "folder"]

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".heif"}
)

CLIP_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".avi", ".mkv", ".webm", ".mts", ".m2ts", ".asf", ".wmv", ".mpg", ".mpeg"}
)

SHARD_SUFFIXES: dict[str, Format] = {
    ".tar": "tar",
    ".tar.gz": "tar",
    ".tgz": "tar",
    ".zip": "zip",
    ".parquet": "parquet",
}

UNMATCHED_SIDECAR = "(unmatched .json sidecar)"
OTHER = "(other)"
# Kinds of ignored files that are counted separately: footers and manifests name each of them.
_MAX_KINDS = 100
_MAX_KIND_LENGTH = 60

_JUNK_FILES = frozenset({"thumbs.db", "desktop.ini", ".ds_store"})
# Folders of deleted files, thumbnails and older versions, by the system that makes them; compared in lower case.
_JUNK_FOLDERS = frozenset(
    {
        *("$recycle.bin", "system volume information"),  # Windows
        *("__macosx", ".appledouble", ".appledb", ".trashes", ".spotlight-v100", ".fseventsd", ".temporaryitems"),
        *("network trash folder", "temporary items"),  # macOS, on file servers
        *(".thumbnails", ".thumbs", ".xvpics", ".dtrash", "lost+found", ".globaltrash"),  # Linux, Android
        *("@eadir", "#recycle", "#snapshot"),  # Synology
        *("@recycle", ".@__thumb", "@recently-snapshot", ".@upload_cache"),  # QNAP
        *("network recycle bin", "network recycle bin 1"),
        *(".recycle", ".recycle_bin", "trashbox", ".snapshot", ".snapshots", "~snapshot", ".zfs"),  # other servers
        *(".stversions", ".picasaoriginals", ".tmb"),  # programs
    }
)
# `.Trash-1000` is that of user 1000; `FOUND.000` holds what chkdsk found.
_JUNK_FOLDER = re.compile(r"\.trash(-\d+)?|found\.\d{3}", re.IGNORECASE)
# FAT's name for its recycle bin; only in capitals, since a camera may be called `recycler`.
_RECYCLE_BINS_OF_FAT = frozenset({"RECYCLER", "RECYCLED"})
_SEPARATOR = re.compile(r"[/\\]")


def is_image(name: str) -> bool:
    """Return whether a file name is an image's."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def is_clip(name: str) -> bool:
    """Return whether a file name is a clip's."""
    return PurePosixPath(name).suffix.lower() in CLIP_SUFFIXES


def is_media(name: str) -> bool:
    """Return whether a file name is an image's or a clip's."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES | CLIP_SUFFIXES


def media_type(name: str) -> Literal["image", "video"] | None:
    """Return what a file is by its name; None if the name does not say."""
    return "image" if is_image(name) else "video" if is_clip(name) else None


def is_sidecar(name: str) -> bool:
    """Return whether a file name is that of an image's metadata."""
    return name.lower().endswith(".json")


def shard_format(name: str) -> Format | None:
    """Return how to read a file of this name; None if it is no shard."""
    lower = name.lower()
    return next((kind for suffix, kind in SHARD_SUFFIXES.items() if lower.endswith(suffix)), None)


def is_nested_archive(name: str) -> bool:
    """Return whether a file inside an archive is an archive of files itself."""
    return shard_format(name) in ("tar", "zip")


def sample_stem(name: str) -> str:
    """Return the stem that an image and its sidecar share: that of `a.jpg`, `a.json` and `a.jpg.json` is `a`."""
    for known in (is_sidecar, is_media):
        name = name.rpartition(".")[0] if known(name) else name
    return name


def junk(path: str) -> str | None:
    """Return the part of a path that marks it as junk of a system or program (`._*`, a file, a folder), or None."""
    *folders, last = _SEPARATOR.split(path)
    if last.startswith("._"):
        return "._*"
    if last.lower() in _JUNK_FILES:
        return last
    return next((folder for folder in folders if _is_junk_folder(folder)), None)


def junk_below(folder: str) -> Callable[[str], bool]:
    """Return a test whether what lies in `folder` is junk, such as lost+found, which ext4 disks have for root alone."""
    return lambda path: bool(junk(f"{path.removeprefix(folder)}/"))


def is_wanted(path: str, ignored: Counter[str], clips: bool = True) -> bool:
    """Return whether a path is an image's, a clip's or a sidecar's; count others by suffix, junk by what marks it.

    Args:
        path: of the file.
        ignored: counts the files that are not wanted.
        clips: whether clips are wanted.
    """
    found = junk(path)
    if not found and (is_image(path) or is_sidecar(path) or (clips and is_clip(path))):
        return True
    count_ignored(ignored, found or PurePosixPath(path).suffix.lower() or "(no suffix)")
    return False


def count_ignored(ignored: Counter[str], kind: str, number: int = 1) -> None:
    """Count ignored files of a kind; as `(other)` if there are 100 kinds already, or the kind's name is too long."""
    kind = kind.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if len(kind) > _MAX_KIND_LENGTH or (kind not in ignored and len(ignored) >= _MAX_KINDS):
        kind = OTHER
    ignored[kind] += number


def _is_junk_folder(name: str) -> bool:
    return name in _RECYCLE_BINS_OF_FAT or name.lower() in _JUNK_FOLDERS or bool(_JUNK_FOLDER.fullmatch(name))
