import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from trapline.moments import coming, past

NOW = datetime(2026, 11, 24, 21, 30, tzinfo=UTC)  # half past ten in Berlin


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90m", "2026-11-24T20:00Z"),
        ("36h", "2026-11-23T09:30Z"),
        ("7d", "2026-11-17T21:30Z"),
        ("2w", "2026-11-10T21:30Z"),
        ("2026-11-01", "2026-10-31T23:00Z"),  # midnight, there
        ("2026-07-01T06:00", "2026-07-01T04:00Z"),  # in summer
        ("2026-11-01T06:00Z", "2026-11-01T06:00Z"),
        ("2026-11-01 06:00:30+05:30", "2026-11-01T00:30:30Z"),
    ],
)
def test_since_when(text: str, moment: str) -> None:
    assert past(text, NOW) == datetime.fromisoformat(moment)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("06:00", "2026-11-25T05:00Z"),
        ("6:00", "2026-11-25T05:00Z"),
        ("22:31", "2026-11-24T21:31Z"),
        ("22:30", "2026-11-25T21:30Z"),  # now is over
        ("00:00", "2026-11-24T23:00Z"),
        ("2026-11-25T06:00", "2026-11-25T05:00Z"),
        ("2026-11-25T06:00-08:00", "2026-11-25T14:00Z"),
        ("2026-11-01T06:00", "2026-11-01T05:00Z"),  # over, which is for the caller to mind
    ],
)
def test_until_when(text: str, moment: str) -> None:
    assert coming(text, NOW) == datetime.fromisoformat(moment)


@pytest.mark.parametrize(
    ("now", "moment"),
    [
        # At 3 on the last Sunday of October it is 2 again; at 2 on that of March, 3.
        ("2026-10-24T21:00Z", "2026-10-25T05:00Z"),
        ("2026-03-28T21:00Z", "2026-03-29T04:00Z"),
    ],
)
def test_six_in_the_morning_is_six_also_when_the_clocks_change(now: str, moment: str) -> None:
    assert coming("06:00", datetime.fromisoformat(now)) == datetime.fromisoformat(moment)


@pytest.mark.parametrize("text", ["", "7", "7y", "-7d", "yesterday", "999999w", "2026-13-01"])
def test_what_is_no_past_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither a date"):
        past(text, NOW)


@pytest.mark.parametrize("text", ["", "6", "24:00", "06:60", "1350", "7d", "tomorrow"])
def test_what_is_no_future_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither a time"):
        coming(text, NOW)
