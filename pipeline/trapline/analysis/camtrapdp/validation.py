"""Check tables against the table schemas of Camtrap DP, cell by cell, in DuckDB.

The schemas are those of Camtrap DP 1.0.2 (https://camtrap-dp.tdwg.org/data), in `schemas/`. Checked are required,
type, format, enum, pattern, minimum, maximum, unique and foreign keys, and that no value is one that the standard
reads as missing.
"""

import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

import duckdb

from trapline.analysis.sql import literal
from trapline.errors import UsageError

SQL_TYPES = {"number": "double", "integer": "bigint", "boolean": "boolean", "datetime": "timestamptz"}
DESIGNATOR = r"(Z|[+-]\d\d:?\d\d)$"

_NOUNS = {"deployments": "deployment", "media": "media file", "observations": "observation"}
_BOOLEANS = ("true", "True", "TRUE", "1", "false", "False", "FALSE", "0")
# The standard's patterns in RE2, which looks neither ahead nor behind.
_PATTERNS = {
    r"^(?=^[^./~])(^((?!\.{2}).)*$).*$": r"[^./~\n](?:\.?[^.\n])*\.?",
    r"^(image|video|audio)/.*$": r"(?:image|video|audio)/[^\n]*",
}


def schema(table: str) -> dict[str, Any]:
    """Return the standard's schema of `deployments`, `media` or `observations`."""
    text = files("trapline.analysis.camtrapdp").joinpath(f"schemas/{table}.json").read_text("utf-8")
    plain: dict[str, Any] = json.loads(text)
    return plain


def check(connection: duckdb.DuckDBPyConnection, table: str, relations: Mapping[str, str], place: str) -> None:
    """Raise UsageError with the first cell that the standard does not allow.

    Args:
        connection: to the tables.
        table: which of the three is to be checked.
        relations: SQL of each table, or of those at least to which foreign keys of this one refer.
        place: of the table, for the message.
    """
    standard = schema(table)
    key = standard["primaryKey"]
    relation = relations[table]
    rules = [
        (field["name"], *rule) for field in standard["fields"] for rule in _rules(field, standard["missingValues"])
    ]
    counts = [f"count(*) filter ({wrong})" for _, wrong, _ in rules]
    # Of the first bad row in the table's order: DuckDB's `first` of a filter keeps it.
    examples = [f"""first(["{key}"::varchar, "{name}"::varchar]) filter ({wrong})""" for name, wrong, _ in rules]
    row = connection.sql(f"select {', '.join(counts + examples)} from {relation}").fetchall()[0]
    problems = [
        (count, example[0], name, f"{example[1] or ''} {problem}".strip())
        for (name, _, problem), count, example in zip(rules, row[: len(rules)], row[len(rules) :], strict=True)
        if count
    ]
    problems += _repeated(connection, relation, key) + _dangling(connection, table, relations)
    if problems:
        _, row_key, name, problem = problems[0]
        rest = sum(count for count, *_ in problems) - 1
        more = f" (and {rest:,} more)" if rest else ""
        raise UsageError(f"{place}: {_NOUNS[table]} {row_key}: {name} {problem}{more}")


def _rules(field: dict[str, Any], missing: list[str]) -> Iterator[tuple[str, str]]:
    """Yield what the schema does not allow a cell to be, in SQL and in words."""
    name, limits = f'"{field["name"]}"::varchar', field["constraints"]
    kind = SQL_TYPES.get(field["type"])
    if limits["required"]:
        yield f"{name} is null", "is empty"
    lost = ", ".join(map(literal, missing))
    yield f"{name} in ({lost})", "is read as a missing value by the standard; use another name"
    if field["type"] == "number":
        yield (
            f"not regexp_full_match({name}, '[+-]?([0-9]+\\.?[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?')",
            "is no number, as 52.5163 is",
        )
    if kind == "bigint":
        yield f"not regexp_full_match({name}, '[+-]?[0-9]+')", "is no integer"
    if kind == "boolean":
        yield f"{name} not in {_BOOLEANS}", "is no boolean"
    if kind == "timestamptz":
        shape = f"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T[0-9:]{{8}}{DESIGNATOR}"
        yield (
            f"not regexp_matches({name}, '{shape}') or {name} is not null and try_cast({name} as timestamptz) is null",
            "is no datetime, as 2024-05-01T12:00:00 is",
        )
    if "minimum" in limits:
        yield f"try_cast({name} as double) < {limits['minimum']}", f"is below {limits['minimum']}"
    if "maximum" in limits:
        yield f"try_cast({name} as double) > {limits['maximum']}", f"is above {limits['maximum']}"
    if "enum" in limits:
        yield f"{name} not in ({', '.join(map(literal, limits['enum']))})", f"is none of {', '.join(limits['enum'])}"
    if "pattern" in limits:
        pattern = literal(_PATTERNS[limits["pattern"]])
        yield f"not regexp_full_match({name}, {pattern})", f"does not match {limits['pattern']}"


def _repeated(connection: duckdb.DuckDBPyConnection, relation: str, key: str) -> list[tuple[int, str, str, str]]:
    found = connection.sql(f"""
        select count(*), min("{key}") from
        (select "{key}" from {relation} where "{key}" is not null group by "{key}" having count(*) > 1)""").fetchall()
    return [(count, example, key, "stands there twice") for count, example in found if count]


def _dangling(
    connection: duckdb.DuckDBPyConnection, table: str, relations: Mapping[str, str]
) -> list[tuple[int, str, str, str]]:
    problems = []
    standard = schema(table)
    for each in standard.get("foreignKeys", []):
        name, other = each["fields"], each["reference"]
        found = connection.sql(f"""
            select count(*), min(child."{standard["primaryKey"]}"), min(child."{name}") from {relations[table]} as child
            anti join {relations[other["resource"]]} as parent on child."{name}" = parent."{other["fields"]}"
            where child."{name}" is not null""").fetchall()
        problems += [
            (count, example, name, f"{value} is in no row of {other['resource']}")
            for count, example, value in found
            if count
        ]
    return problems
