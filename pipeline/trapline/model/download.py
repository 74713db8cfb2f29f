"""Find or download a checkpoint: a path, a URL of any store, or a name on the Hugging Face hub."""

import hashlib
import os
import re
from functools import partial
from pathlib import Path
from uuid import uuid4

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from trapline.errors import CheckpointError, in_one_line
from trapline.storage import store
from trapline.storage.deadlines import in_time
from trapline.storage.filesystems import LOCAL, resolve
from trapline.storage.retry import with_retries
from trapline.storage.watched_loop import UNKNOWN

_HUB_NAME = re.compile(r"(?P<repository>[\w.-]+/(?P<name>[\w.-]+))(@(?P<revision>[\w./-]+))?")
_SUFFIXES = (".pt", ".safetensors")
# The hub's client gives up a silent server after 10 s, but not one that sends a byte now and then.
_HUB_SECONDS = UNKNOWN


def fetch(source: str) -> Path:
    """Return the checkpoint's path on this machine, after downloading it if necessary.

    Args:
        source: a path, a URL of any fsspec filesystem, or a name on the Hugging Face hub, `organisation/name` or
            `organisation/name@revision`. A file that exists is never taken for a name.

    Raises:
        CheckpointError: it is not there, or cannot be reached.
    """
    try:
        if "://" in source:
            return _fetch_url(source)
        path = Path(source).expanduser()
        hub_name = _HUB_NAME.fullmatch(source)
        if hub_name and not path.exists() and not source.endswith(_SUFFIXES):
            return _fetch_from_hub(hub_name["repository"], hub_name["name"], hub_name["revision"])
    except CheckpointError:
        raise
    except Exception as error:  # each store, and the hub, raises the errors of its own client library
        cause = f"{type(error).__name__}: {in_one_line(error)}"
        raise CheckpointError(
            f"{source}: cannot be fetched ({cause}): check the name, the network and your access to it"
        ) from error
    if source and path.is_dir():  # an unset variable of a shell is not the current folder
        raise CheckpointError(f"{source}: is a folder: name the checkpoint in it (.pt, .safetensors)")
    if not path.is_file():
        raise CheckpointError(f"{source}: no such file: give a path, a URL, or organisation/name on the hub")
    return path


def _fetch_url(url: str) -> Path:
    """Download into a cache, under a key of the URL, the size and the version that the store reports."""
    filesystem, remote = resolve(url)
    if filesystem is LOCAL:
        return fetch(remote)
    info = with_retries(url, lambda: filesystem.info(remote))
    version = store.version(info)
    key = hashlib.sha256(f"{url}\n{info['size']}\n{version}".encode()).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "trapline" / "checkpoints"
    path = cache / key[:16] / Path(remote.partition("?")[0]).name
    # Only with a version: without one, other weights of the same size would go unnoticed.
    if version and path.exists():
        return path

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{uuid4().hex}.partial")
    try:
        with_retries(url, lambda: filesystem.get_file(remote, str(partial)), received=info["size"])
        arrived = partial.stat().st_size
        if info["size"] not in (None, arrived):
            raise CheckpointError(f"{url}: {arrived} of {info['size']} bytes arrived: try again")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _fetch_from_hub(repository: str, name: str, revision: str | None) -> Path:
    """Download through the hub's own client, for its cache, resuming, mirrors and offline mode."""
    reachable = True
    # birder always publishes the first suffix, and sometimes the second, too: in this order, the file stays the same
    # when a repository gains the second.
    for file in (name + suffix for suffix in _SUFFIXES):
        try:
            fetch_file = partial(hf_hub_download, repository, file, revision=revision, local_files_only=not reachable)
            return Path(in_time(fetch_file, _HUB_SECONDS))
        except LocalEntryNotFoundError:
            reachable = False
        except EntryNotFoundError:
            continue
    if not reachable:
        raise CheckpointError(f"{repository}: not in the hub's cache, and the hub is out of reach: go online once")
    raise CheckpointError(f"{repository}: has neither {name}.pt nor {name}.safetensors: give hf://{repository}/FILE")
