"""S3: s3fs's filesystem, with a deadline for each request, a check of each answer, and no retries of its own.

Keys, profiles and roles are found as all AWS tools find them. With TRAPLINE_S3_ANONYMOUS=1 in the environment of each
node, public buckets are read without keys; with the keys of any account, public buckets need no setting.
"""

import os
from collections.abc import AsyncIterator
from typing import Any

from pydantic import TypeAdapter, ValidationError
from s3fs import S3FileSystem

from trapline.storage.answers import as_asked, without_repetition
from trapline.storage.deadlines import with_deadline

# `storage/retry.py` does the retries; the one left to botocore hides a single lost connection.
OPTIONS: dict[str, Any] = {
    "config_kwargs": {
        "retries": {"mode": "standard", "total_max_attempts": 2},
        "max_pool_connections": 64,
        "connect_timeout": 5,
        "read_timeout": 15,
    },
    "use_listings_cache": False,
}

_ANONYMOUS = "TRAPLINE_S3_ANONYMOUS"


def s3_files() -> "S3Files":
    """Return the filesystem for the environment as it is now.

    Raises:
        ValueError: TRAPLINE_S3_ANONYMOUS is neither yes nor no.
    """
    try:
        anonymous = TypeAdapter(bool).validate_python(os.environ.get(_ANONYMOUS) or "0")
    except ValidationError as error:
        raise ValueError(f"{_ANONYMOUS}={os.environ[_ANONYMOUS]}: set it to 1 or 0") from error
    return S3Files(anon=anonymous, **OPTIONS)


class S3Files(S3FileSystem):  # type: ignore[misc]
    """s3fs with deadlines and checked answers; `retries = 1` because s3fs would nest five tries in five others."""

    retries = 1

    def split_path(self, path: str) -> tuple[str, str, str | None]:
        """Split a path into bucket and key, where s3fs would take `?versionId=` and the rest off the key."""
        before, mark, rest = path.partition("?versionId=")
        bucket, key, version = super().split_path(before)
        return bucket, f"{key}{mark}{rest}", version

    async def set_session(self, refresh: bool = False, kwargs: Any = None) -> Any:
        """Return the client, with a deadline for each of its requests."""
        client = await super().set_session(refresh)
        if not hasattr(client, "has_deadlines"):
            client._make_api_call = with_deadline(as_asked(client._make_api_call))
            client.has_deadlines = True
        return client

    async def _iterdir(self, *args: Any, **options: Any) -> AsyncIterator[dict[str, Any]]:
        async for entry in without_repetition(super()._iterdir(*args, **options)):
            yield entry
