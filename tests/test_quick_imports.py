"""No garbage is collected while modules are imported, and afterwards as before."""

import gc
from collections.abc import Iterator
from contextlib import suppress

import pytest

from trapline.quick_imports import quick_imports


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What a test does to the collector is undone."""
    enabled = gc.isenabled()
    yield
    gc.enable() if enabled else gc.disable()


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_no_garbage_is_collected_meanwhile_and_afterwards_as_before(enabled: bool, fails: bool) -> None:
    gc.enable() if enabled else gc.disable()
    with suppress(ImportError), quick_imports():
        assert not gc.isenabled()
        if fails:
            raise ImportError
    assert gc.isenabled() == enabled
