"""Time zones of cameras' clocks: check what a user writes, and convert it to DuckDB's names."""

from datetime import UTC, date, datetime, timedelta

import duckdb

# DuckDB takes abbreviations as Java 1.0 did: BST for Bangladesh, IST for India, AST for Alaska, CST for Chicago.
_UNAMBIGUOUS = frozenset({"UTC", "UCT", "GMT", "CET", "EET", "WET"})
_ABBREVIATION_LENGTH = 3
# From the westernmost zone to the easternmost: a `+20:00` is a slip for `+02:00`.
_WEST, _EAST = timedelta(hours=-12), timedelta(hours=14)
_NOON = datetime(2024, 1, 1, 12)


def duckdb_name(timezone: str) -> str:
    """Return the name of a time zone in DuckDB: `Europe/Berlin` as it is, and of an offset `+01:00` `GMT+01:00`."""
    return f"GMT{timezone}" if timezone[:1] in ("+", "-") else timezone


def require_known(connection: duckdb.DuckDBPyConnection, timezone: str) -> None:
    """Raise ValueError if a text is no time zone, or an abbreviation that stands for several.

    Args:
        connection: any, of DuckDB.
        timezone: a name (`Europe/Berlin`) or an offset (`+01:00`).
    """
    advice = "give a name (Europe/Berlin) or, for clocks without summer time, an offset (+01:00)"
    if len(timezone) == _ABBREVIATION_LENGTH and timezone.isalpha() and timezone.upper() not in _UNAMBIGUOUS:
        raise ValueError(f"{timezone}: is an abbreviation, and may stand for several time zones; {advice}")
    try:
        question = "select timezone(?, timestamptz '2024-01-01 12:00:00+00')"
        found = connection.execute(question, [duckdb_name(timezone)]).fetchall()
    except duckdb.Error as error:
        raise ValueError(f"{timezone}: no time zone; {advice}") from error
    offset = found[0][0] - _NOON
    if not _WEST <= offset <= _EAST:
        raise ValueError(f"{timezone}: no clock differs so much from UTC; {advice}")


class CameraClocks:
    """Find what clocks show at a time; DuckDB is asked once for a day, for 200,000 questions took it four minutes."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._known: set[str] = set()
        self._offsets: dict[tuple[str, date], tuple[int, int]] = {}

    def show(self, timezone: str, moment: datetime) -> datetime:
        """Return the time, without an offset, that a clock of a time zone shows at a moment with one.

        Raises:
            ValueError: as `require_known` does, or the clock would show a year before 1 or after 9999.
        """
        if timezone not in self._known:
            require_known(self._connection, timezone)
            self._known.add(timezone)
        try:
            utc = moment.astimezone(UTC).replace(tzinfo=None)
            at_midnight, a_day_later = self._of_day(timezone, utc.date())
            seconds = at_midnight if at_midnight == a_day_later else self._ask(timezone, utc)[0]
            return utc + timedelta(seconds=seconds)
        except OverflowError as error:
            raise ValueError(f"{moment.isoformat()} lies outside of the years 1 to 9999 in {timezone}") from error

    def _of_day(self, timezone: str, day: date) -> tuple[int, int]:
        key = timezone, day
        if key not in self._offsets:
            self._offsets[key] = self._ask(timezone, datetime(day.year, day.month, day.day))
        return self._offsets[key]

    def _ask(self, timezone: str, utc: datetime) -> tuple[int, int]:
        """Return the offsets from UTC, in seconds, at a time and a day later."""
        question = """
            select datediff('second', utc, timezone($1, timezone('UTC', utc)))
            from (select unnest([$2::timestamp, $2::timestamp + interval 1 day]) as utc)"""
        (at_once,), (later,) = self._connection.execute(question, [duckdb_name(timezone), utc]).fetchall()
        return at_once, later
