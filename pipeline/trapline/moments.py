"""Points in time as people write them: `2026-11-01`, `7d`, `06:00`; without an offset, by the clock on this machine."""

import re
from datetime import datetime, time, timedelta

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def past(text: str, now: datetime) -> datetime:
    """Since when: a date, a date and time (ISO 8601), or how long ago (`90m`, `36h`, `7d`, `2w`).

    Raises:
        ValueError: it is none of these.
    """
    ago = re.fullmatch(r"(\d+)([mhdw])", text)
    try:
        if ago:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise ValueError("neither a date such as 2026-11-01 nor a duration such as 36h or 7d") from None


def coming(text: str, now: datetime) -> datetime:
    """Until when: a time of day, of which the next is meant, or a date and time (ISO 8601), which may be over.

    Raises:
        ValueError: it is neither.
    """
    try:
        clock = re.fullmatch(r"(\d{1,2}):(\d\d)", text)
        if not clock:
            return datetime.fromisoformat(text).astimezone()
        at = time(int(clock[1]), int(clock[2]))
    except (ValueError, OverflowError):
        raise ValueError("neither a time such as 06:00 nor 2026-11-01T06:00; in YAML, put it in quotes") from None
    today = now.astimezone().date()
    # By the calendar and not by 24 hours: one night of the year has 23, another one 25.
    days = (datetime.combine(today + timedelta(days=days), at).astimezone() for days in (0, 1))
    return next(moment for moment in days if moment > now)
