"""Imports without garbage collection."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import in this context without collecting garbage.

    Modules create hundreds of thousands of objects, and all stay. Looking for garbage among them, again and again as
    they become more, takes a part of the time: 0.36 of a driver's 2.65 s of a core, 0.11 of a worker's 1.82 s.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # Without `gc.freeze`: what is frozen is never deleted, of which nanobind's modules complain at the end.
        if enabled:
            gc.enable()
