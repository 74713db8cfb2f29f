"""Find the `.json` sidecar of an image, and return it as strict JSON for the metadata column."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from math import isinf
from typing import Any, Generic, TypeVar

from trapline.sources.file_types import UNMATCHED_SIDECAR, count_ignored, is_media, sample_stem

T = TypeVar("T")

NOT_JSON = "(sidecar that is no JSON)"
UNREADABLE = "(sidecar that cannot be read)"
# As `loose_images.UNAVAILABLE`.
UNAVAILABLE_SIDECAR = "(sidecar that is unavailable)"

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class SidecarIndex(Generic[T]):
    """The sidecars of a shard, or of a part of it.

    The sidecar of `a.jpg` is `a.jpg.json`, else `a.json`, else one that names another suffix (`a.JPG.json`).
    """

    def __init__(self, convention: bool = False) -> None:
        """Start empty; with `convention`, WebDataset's comparison of names up to the first dot is the last resort."""
        self._convention = convention
        self._exact: dict[str, tuple[str, T]] = {}
        self._loose: dict[str, tuple[str, T]] = {}
        self._count = 0
        self._used: set[str] = set()

    def add(self, name: str, sidecar: T) -> None:
        """Add a sidecar by its file name."""
        self._count += 1
        described = name[: -len(".json")]
        self._exact[described] = name, sidecar
        if is_media(described):
            self._loose[sample_stem(described)] = name, sidecar

    def find(self, image: str) -> T | None:
        """Return the sidecar of an image."""
        stem = sample_stem(image)
        found = self._exact.get(image) or self._exact.get(stem) or self._loose.get(stem)
        if found is None and self._convention:
            found = self._exact.get(webdataset_key(image))
        if found is None:
            return None
        self._used.add(found[0])
        return found[1]

    def count_unmatched(self, ignored: Counter[str]) -> None:
        """Count the sidecars that `find` has not returned."""
        unmatched = self._count - len(self._used)
        if unmatched > 0:
            count_ignored(ignored, UNMATCHED_SIDECAR, unmatched)

    def __iter__(self) -> Iterator[T]:
        """Iterate over the sidecars."""
        return (sidecar for _, sidecar in self._exact.values())


def webdataset_key(name: str) -> str:
    """Return WebDataset's name of a sample: the path up to the first dot of the file name."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}"


def json_text(data: bytes, ignored: Counter[str]) -> str | None:
    """Return JSON verbatim, from any Unicode encoding; None if it is no JSON, which is counted.

    Values that databases refuse are replaced, because one of them makes a query over the whole column fail: NaN and
    infinities, which JSON does not have, become null, and half a surrogate pair becomes U+FFFD.
    """
    try:
        text = data.decode(json.detect_encoding(data)).removeprefix("\ufeff")
    except UnicodeDecodeError:
        text = ""
    if is_json(text):
        return text
    try:
        return json.dumps(strict_value(json.loads(text, parse_int=_integer)), ensure_ascii=False)
    except (ValueError, RecursionError):
        count_ignored(ignored, NOT_JSON)
        return None


def is_json(text: str) -> bool:
    """Return whether a text is JSON in the strict sense, of valid Unicode."""
    try:
        text.encode()
        # Numbers stay text: they are not needed, and Python refuses one of 5,000 digits.
        value = json.loads(text, parse_constant=_refuse_constant, parse_int=str, parse_float=str)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _integer(number: str) -> int | None:
    return None if isinf(float(number)) else int(number)


def strict_value(value: Any) -> Any:
    """Return a nested value with NaN and infinities as None, and halves of surrogate pairs as U+FFFD."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {strict_value(name): strict_value(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [strict_value(part) for part in value]
    return value
