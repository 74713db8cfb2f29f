"""Find the names of a user's table in the results, even if they are spelled in another Unicode form.

macOS writes `é` in file names as two characters (NFD), and people type it as one (NFC). The names of files are never
changed: two folders whose names look the same stay two.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable


def composed(name: str) -> str:
    """Return a name in NFC."""
    return unicodedata.normalize("NFC", name)


def respelled(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Return, by each name that is none of the known ones but looks like a single one of them, that one.

    A known name that stands among the names itself is not given to another one, and of two names that look alike
    neither is respelled.
    """
    given, there = set(names), set(known)
    looking = defaultdict(list)
    for name in given - there:
        looking[composed(name)].append(name)
    free = defaultdict(list)
    for name in there - given:
        free[composed(name)].append(name)
    return {
        alike[0]: free[form][0] for form, alike in looking.items() if len(alike) == 1 and len(free.get(form, ())) == 1
    }
