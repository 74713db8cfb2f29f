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


class AzureError(Exception):
    """As azure.core.exceptions.HttpResponseError."""

    def __init__(self, status: int) -> None:
        super().__init__("This request is not authorized.\nErrorCode:AuthorizationFailure")
        self.status_code = status


class GoogleError(Exception):
    """As gcsfs.retry.HttpError."""

    def __init__(self, status: int) -> None:
        super().__init__(f"Anonymous caller does not have access, {status}")
        self.code = status


@pytest.mark.parametrize(
    ("refusal", "remedy"),
    [
        (AzureError(403), "credentials"),
        (AzureError(401), "credentials"),
        (AzureError(404), "check the URL"),
        (GoogleError(401), "credentials"),
        (OSError("Forbidden: b/o/x\nno access"), "credentials"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_refusal_of_any_store_is_one(refusal: Exception, remedy: str, wrapped: bool) -> None:
    tries = []

    def action() -> None:
        tries.append(1)
        if wrapped:
            raise RuntimeError("Failed to upload block") from refusal
        raise refusal

    with pytest.raises(StorageError, match=f"abfs://a/b: .*{remedy}") as caught:
        with_retries("abfs://a/b", action)
    one_line(caught.value)
    assert len(tries) == 1


@pytest.mark.parametrize("trouble", [AzureError(503), GoogleError(429)])
def test_a_store_that_is_busy_refuses_nothing(trouble: Exception, no_pauses: None) -> None:
    def action() -> None:
        raise trouble

    with pytest.raises(TransientError, match="abfs://a/b"):
        with_retries("abfs://a/b", action)


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
