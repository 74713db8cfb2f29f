"""Retry what a pause may mend, and translate what clients of stores raise into Trapline's errors."""

import errno
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from botocore.exceptions import NoCredentialsError, ParamValidationError, PartialCredentialsError, ProfileNotFound

from trapline.errors import StorageError, TransientError, TraplineError, in_one_line
from trapline.storage.deadlines import BUDGET

T = TypeVar("T")

# Seconds between tries, on average: six tries in all.
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)

# Errors of the operating system that a pause does not mend.
_PERMANENT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENAMETOOLONG, errno.ELOOP}


def with_retries(url: str, action: Callable[[], T]) -> T:
    """Return what `action` returns; repeat it after transient errors, with growing pauses and jitter.

    No try begins later than `BUDGET` seconds after the first.

    Raises:
        StorageError: the store refuses.
        TransientError: the last try failed too.
    """
    latest = time.monotonic() + BUDGET
    for pause in _PAUSES:
        try:
            with translated_errors(url):
                return action()
        except TransientError:
            pause *= random.uniform(0.5, 1.5)
            if time.monotonic() + pause > latest:
                raise
            time.sleep(pause)
    with translated_errors(url):
        return action()


@contextmanager
def translated_errors(url: str) -> Iterator[None]:
    """Raise Trapline's errors in place of those of a store's client: one line, with the store's own words."""
    try:
        yield
    except TraplineError:
        raise
    except FileNotFoundError as error:
        raise StorageError(f"{url}: not found ({in_one_line(error)}); check the bucket and the path") from error
    except PermissionError as error:
        if "InvalidObjectState" in repr(error.__cause__):  # s3fs keeps the code of S3 in the cause alone
            raise StorageError(
                f"{url}: archived in Glacier ({in_one_line(error)}); restore it first, then run again"
            ) from error
        raise StorageError(f"{url}: access denied ({in_one_line(error)}); check credentials and permissions") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise StorageError(
            f"{url}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the "
            "machine a role; for a public bucket set TRAPLINE_S3_ANONYMOUS=1"
        ) from error
    except (ParamValidationError, ProfileNotFound) as error:
        raise StorageError(f"{url}: {in_one_line(error)}; check the URL and AWS_PROFILE") from error
    except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        raise StorageError(f"{url}: {in_one_line(error)}; choose another path") from error
    # Each store's client brings exceptions of its own (aiohttp's, botocore's, gcsfs's, Azure's); many are no OSError.
    except Exception as error:
        if getattr(error, "errno", None) in _PERMANENT:
            raise StorageError(f"{url}: {in_one_line(error)}") from error
        raise TransientError(f"{url}: {in_one_line(error)}") from error
