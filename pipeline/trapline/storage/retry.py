"""Retry what may succeed after a pause, and translate what clients of stores raise into Trapline's errors."""

import errno
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from botocore.exceptions import NoCredentialsError, ParamValidationError, PartialCredentialsError, ProfileNotFound

from trapline.errors import StorageError, TransientError, TraplineError, in_one_line
from trapline.storage.deadlines import BUDGET, DeadlineError
from trapline.storage.watched_loop import transfer

T = TypeVar("T")

# Seconds between tries, on average: six tries in all.
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)

# Errors of the operating system that another try does not cure.
_PERMANENT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENAMETOOLONG, errno.ELOOP}

# S3's error codes for a refusal that is no question of permissions: what it is, and what to do.
_DENIALS = {
    "InvalidObjectState": ("archived in Glacier", "restore it first, then run again"),
    "RequestTimeTooSkewed": ("access denied", "set the clock of this machine"),
    "ExpiredToken": ("access denied", "get new credentials, and run again"),
}

# HTTP statuses that another try does not change: what to do.
_REFUSALS = {
    401: "check credentials and permissions",
    403: "check credentials and permissions",
    404: "check the URL",
    410: "check the URL",
}


def with_retries(url: str, action: Callable[[], T], *, sent: int = 0, received: int | None = 0) -> T:
    """Return what `action` returns; repeat it after transient errors, with growing pauses and jitter.

    No try begins later than `BUDGET` seconds after the first.

    Args:
        url: the file or folder, for messages.
        action: what to try.
        sent: bytes that the action sends; the more bytes, the longer each try may take.
        received: bytes that it receives; None if that is not known beforehand.

    Raises:
        StorageError: the store refuses.
        TransientError: the last try failed too.
    """
    latest = time.monotonic() + BUDGET
    for pause in _PAUSES:
        try:
            with translated_errors(url), transfer(sent, received):
                return action()
        except TransientError:
            pause *= random.uniform(0.5, 1.5)
            if time.monotonic() + pause > latest:
                raise
            time.sleep(pause)
    with translated_errors(url), transfer(sent, received):
        return action()


@contextmanager
def translated_errors(url: str) -> Iterator[None]:
    """Raise Trapline's errors in place of those of a store's client: one line, with the store's own words."""
    try:
        yield
    except TraplineError:
        raise
    except FileNotFoundError as error:
        if isinstance(error.__cause__, (_of_aiohttp("ClientError"), OSError, TimeoutError)):
            with translated_errors(url):  # fsspec reports every failure of a web server as "not found"
                raise error.__cause__  # noqa: B904
        raise StorageError(f"{url}: not found ({in_one_line(error)}); check the bucket and the path") from error
    except PermissionError as error:
        # s3fs keeps the code of S3 in the cause alone.
        code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
        what, remedy = _DENIALS.get(code, ("access denied", "check credentials and permissions"))
        raise StorageError(f"{url}: {what} ({in_one_line(error)}); {remedy}") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise StorageError(
            f"{url}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the "
            "machine a role; for a public bucket set TRAPLINE_S3_ANONYMOUS=1"
        ) from error
    except (ParamValidationError, ProfileNotFound) as error:
        raise StorageError(f"{url}: {in_one_line(error)}; check the URL and AWS_PROFILE") from error
    except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        raise StorageError(f"{url}: {in_one_line(error)}; choose another path") from error
    except _of_aiohttp("ClientResponseError") as error:
        text = f"{url}: {error.status} {' '.join(error.message.split())}"  # the status is 400 for a malformed answer
        if error.status in _REFUSALS:
            raise StorageError(f"{text}; {_REFUSALS[error.status]}") from error
        raise TransientError(text) from error
    # Each store's client has exceptions of its own (aiohttp, botocore, gcsfs, Azure); many are not OSErrors.
    except Exception as error:
        if getattr(error, "errno", None) in _PERMANENT:
            raise StorageError(f"{url}: {in_one_line(error)}") from error
        refusal = next((status for each in _causes(error) if (status := _status(each)) in _REFUSALS), None)
        if refusal:
            raise StorageError(f"{url}: {in_one_line(error)}; {_REFUSALS[refusal]}") from error
        raise TransientError(f"{url}: {in_one_line(_deadline_behind(error) or error)}") from error


def _of_aiohttp(name: str) -> Any:
    """Return a class of aiohttp's errors; no class while nothing has imported aiohttp, which takes 0.1 s."""
    return getattr(sys.modules.get("aiohttp"), name, ())


def _status(error: BaseException) -> int | None:
    """Return the HTTP status in an error of Azure's client or of gcsfs; None if there is none.

    The errors of s3fs and aiohttp are known by their class.
    """
    if isinstance(error, OSError) and str(error).startswith("Forbidden: "):
        return 403  # gcsfs gives this one only in words
    said = next((getattr(error, name) for name in ("status_code", "status", "code") if hasattr(error, name)), None)
    return said if isinstance(said, int) else None


def _deadline_behind(error: BaseException) -> DeadlineError | None:
    """Return the DeadlineError that made a client raise an error of its own; None if it was not a deadline."""
    return next((each for each in _causes(error) if isinstance(each, DeadlineError)), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that caused it."""
    seen = set()  # errors that are raised again may be each other's cause
    while error and error not in seen:
        yield error
        seen.add(error)
        error = error.__cause__ or error.__context__
