"""Local files: fsspec's filesystem, changed where it does not do what `storage/store.py` promises.

fsspec silently skips symbolic links and folders that it may not read; its modification times are floats; it writes
files in place.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from errno import ELOOP
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import Any, BinaryIO
from uuid import uuid4

from fsspec.implementations.local import LocalFileSystem

_COPIED_AT_ONCE = 2**20
_TEMPORARY_SUFFIX = ".partial"


def temporary_name() -> str:
    """Return a file name that the globs of DuckDB (`*.parquet`) and pyarrow (which hides `_*`) do not match."""
    # Short, because the target's own name may already be as long as the file system allows.
    return f"_{uuid4().hex}{_TEMPORARY_SUFFIX}"


def is_temporary(url: str) -> bool:
    """Return whether a file has a temporary name: it is being written, or its writer was killed."""
    name = url.rpartition("/")[2]
    return name.startswith("_") and name.endswith(_TEMPORARY_SUFFIX)


def leads_nowhere(path: str) -> bool:
    """Return whether a file is a symbolic link without a target, or one that leads in a circle."""
    return os.path.islink(path) and not os.path.exists(path)  # noqa: PTH110, PTH114


def _nothing(_path: str) -> bool:
    return False


class LocalFiles(LocalFileSystem):  # type: ignore[misc]
    """Local files: links are followed, except in circles; unreadable folders are errors; files are published whole."""

    def info(self, path: Any, **_: Any) -> dict[str, Any]:
        """Return the facts of a file or of a link's target; of a link without a target, those of the link itself."""
        name = os.fspath(path)
        try:
            facts = os.stat(name)  # noqa: PTH116  # called for each file of an archive: a Path costs more than the call
        except OSError as error:
            if not isinstance(error, FileNotFoundError) and error.errno != ELOOP:
                raise
            facts = os.lstat(name)
        kind = "other"
        if S_ISREG(facts.st_mode) or S_ISLNK(facts.st_mode):
            kind = "file"
        elif S_ISDIR(facts.st_mode) and not _leads_back(Path(name)):
            kind = "directory"
        times = {"mtime": facts.st_mtime_ns, "ctime": facts.st_ctime_ns}
        return {"name": name, "size": facts.st_size, "type": kind, **times}

    def ls(self, path: str, detail: bool = False, left_out: Callable[[str], bool] = _nothing, **_: Any) -> list[Any]:
        """Return the facts, or the names, of what a folder holds, or of a file.

        Args:
            path: of the folder or the file.
            detail: whether to return facts.
            left_out: whether something in the folder may be skipped if its facts may not be read: a link may lead to a
                place without permission.
        """
        folder = self._strip_protocol(path)
        found = [self.info(folder)]
        if found[0]["type"] == "directory":
            with os.scandir(folder) as children:
                names = [child.path for child in children]
            found = [facts for name in names if (facts := self._facts(name, left_out))]
        return found if detail else [facts["name"] for facts in found]

    def _facts(self, name: str, left_out: Callable[[str], bool]) -> dict[str, Any] | None:
        """Return the facts of something in a folder; None if it is gone, or may be skipped."""
        try:
            return self.info(name)
        except FileNotFoundError:
            return None
        except PermissionError:
            if left_out(name):
                return None
            raise

    def walk(
        self, path: str, maxdepth: int | None = None, left_out: Callable[[str], bool] = _nothing, **_: Any
    ) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        """Yield each folder with the facts of its folders and of its files, by name.

        Folders without permission are errors, except those that `left_out` accepts. fsspec's own recursion ends with
        Python's limit, at some 1,000 levels.
        """
        waiting = [(self._strip_protocol(path), 1)]
        while waiting:
            folder, depth = waiting.pop()
            try:
                listing = self.ls(folder, detail=True, left_out=left_out)
            except FileNotFoundError:
                continue
            except PermissionError:
                if left_out(folder):
                    continue
                raise
            folders: dict[str, Any] = {}
            files: dict[str, Any] = {}
            for facts in listing:
                name = "" if facts["name"] == folder else facts["name"].rpartition("/")[2]
                (folders if facts["type"] == "directory" else files)[name] = facts
            yield folder, folders, files
            if maxdepth is None or depth < maxdepth:
                waiting += [(facts["name"], depth + 1) for facts in folders.values()]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """Write a file that appears whole or not at all, and that survives a power cut."""
        self._publish(Path(path), lambda file: file.write(value))

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        """Copy a file; the copy appears whole or not at all, and survives a power cut."""
        with Path(lpath).open("rb") as source:
            self._publish(Path(rpath), lambda file: shutil.copyfileobj(source, file, _COPIED_AT_ONCE))

    def _publish(self, target: Path, write: Callable[[BinaryIO], Any]) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(temporary_name())
        try:
            with beside.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
        # The new name is part of the folder's content, which must be on disk, too.
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _leads_back(folder: Path) -> bool:
    """Return whether a path is a link to one of the folders that contain it."""
    if not folder.is_symlink():
        return False
    target = os.path.realpath(folder)
    return any(target == os.path.realpath(parent) for parent in folder.parents)
