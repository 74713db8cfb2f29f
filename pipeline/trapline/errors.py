"""Everything that can go wrong, by what should happen next.

    TraplineError
    ├── TransientError          try again: the store was busy, the connection broke, the input changed as we read it
    ├── PermanentError          will fail however often it is tried; costs one image or one shard, never the run
    │   ├── ImageError          one picture cannot be used: it becomes a `failed` row that carries `kind` and message
    │   └── ShardBroken         a shard breaks off: what came before the break is kept, the break is a `failed` row
    └── FatalError              the run cannot go on; the message says what to do; exit code 2
        ├── UsageError          the invocation or the configuration is wrong
        ├── StorageError        a store refuses us: wrong key, missing bucket, missing prefix, read-only
        ├── CheckpointError     the model file cannot be used
        ├── OutputConflict      OUTPUT holds rows that this run would not have written
        └── ClusterError        Ray cannot be started or joined, or has ended

Every message names the file, the cause and what to do, in one line.
"""

import re

# Both may hold secrets: a password or token before the host, a signature behind the path. What stands before the host
# of Azure's URLs is the container. Other stores than web servers have no query strings, but `?` in names.
_USERINFO = re.compile(r"\b(?!abfss?:|az:|wasbs?:)([a-z][a-z0-9+.-]*://)[^/?#\s]*@", re.IGNORECASE)
_QUERY = re.compile(r"\b(https?://[^?\s'\"<>]*)\?[^\s'\"<>]*?(?=[:;,.)]*(?:[\s'\"<>]|$))", re.IGNORECASE)

_OUT_OF_MEMORY = ("can't allocate memory", "Insufficient memory")


class TraplineError(Exception):
    """Base of all errors that Trapline raises on purpose; their text shows no secrets of URLs."""

    def __str__(self) -> str:
        return redacted(super().__str__())


class TransientError(TraplineError):
    """Worth another try, after a pause."""


class PermanentError(TraplineError):
    """Trying again cannot help, and the run goes on without it."""


class ImageError(PermanentError):
    """One picture cannot be used.

    Args:
        kind: one word for histograms, from a small fixed set (see `decode.py` and `records.py`), e.g. `empty`.
        message: what a person needs to know, in one line.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        return redacted(f"{self.kind}: {self.message}")


class ShardBroken(PermanentError):
    """A shard cannot be read any further; records that were read before it stand."""


class FatalError(TraplineError):
    """The run cannot go on until a person acts."""


class UsageError(FatalError):
    """The invocation or the configuration is wrong."""


class StorageError(FatalError):
    """A store refuses us, and will refuse us again."""


class CheckpointError(FatalError):
    """The model file cannot be used."""


class OutputConflict(FatalError):
    """OUTPUT holds rows that this run would not have written."""


class ClusterError(FatalError):
    """Ray cannot be started or joined, or has ended."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; torch and libjpeg have no exception of their own for it on a CPU."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


def redacted(text: str) -> str:
    """Return a text without the user names, passwords and query strings of the URLs in it."""
    return _QUERY.sub(r"\1?…", _USERINFO.sub(r"\1", text))


def in_one_line(error: BaseException) -> str:
    """Return what an error says, for messages of one line: at most 300 characters, no secrets of URLs."""
    text = redacted(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
