import time

import pytest

from tests.support.store_files import one_line
from trapline.errors import StorageError, TransientError
from trapline.storage import retry
from trapline.storage.retry import with_retries


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_PAUSES", (0.0,) * 5)


class ClientOfSomeStoreError(Exception):
    """As gcsfs and Azure have: no OSError."""


@pytest.mark.parametrize(
    "trouble", [ConnectionResetError("reset"), TimeoutError(), ClientOfSomeStoreError("busy\nnow")]
)
def test_trouble_that_passes_costs_nothing_but_time(trouble: Exception, no_pauses: None) -> None:
    left = [trouble] * 5

    def action() -> str:
        if left:
            raise left.pop()
        return "done"

    assert with_retries("s3://a/b", action) == "done"


@pytest.mark.parametrize("trouble", [ConnectionResetError("reset"), ClientOfSomeStoreError("busy\nnow")])
def test_trouble_that_stays_is_named_after_six_tries(trouble: Exception, no_pauses: None) -> None:
    tries = []

    def action() -> None:
        tries.append(1)
        raise trouble

    with pytest.raises(TransientError, match=r"s3://a/b: (reset|busy now)") as caught:
        with_retries("s3://a/b", action)
    one_line(caught.value)
    assert len(tries) == 6


def test_trouble_that_no_pause_mends_is_not_tried_again() -> None:
    tries = []

    def action() -> None:
        tries.append(1)
        raise PermissionError("no")

    with pytest.raises(StorageError):
        with_retries("s3://a/b", action)
    assert len(tries) == 1


def test_no_try_begins_after_the_budget_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_PAUSES", (0.01,) * 5)
    monkeypatch.setattr(retry, "BUDGET", 0.5)
    tries = []

    def action() -> None:
        tries.append(1)
        time.sleep(0.3)
        raise ConnectionResetError("reset")

    with pytest.raises(TransientError, match="reset"):
        with_retries("s3://a/b", action)
    assert len(tries) == 2
