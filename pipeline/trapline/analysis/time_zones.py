"""Time zones of cameras' clocks: check what a user writes, and convert it to DuckDB's names."""

from datetime import datetime, timedelta

import duckdb

# DuckDB takes abbreviations as Java 1.0 did: BST for Bangladesh, IST for India, AST for Alaska, CST for Chicago.
_UNAMBIGUOUS = frozenset({"UTC", "UCT", "GMT"})
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
        raise ValueError(f"{timezone}: stands for different time zones in different countries; {advice}")
    try:
        question = "select timezone(?, timestamptz '2024-01-01 12:00:00+00')"
        found = connection.execute(question, [duckdb_name(timezone)]).fetchall()
    except duckdb.Error as error:
        raise ValueError(f"{timezone}: no time zone; {advice}") from error
    offset = found[0][0] - _NOON
    if not _WEST <= offset <= _EAST:
        raise ValueError(f"{timezone}: no clock differs so much from UTC; {advice}")
