"""The deployments table that a person keeps: read, held to the standard's table schema, with a time zone for each row.

Camtrap DP 1.0.2 (https://camtrap-dp.tdwg.org/data); its table schemas lie in `schemas/`.
"""

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import duckdb

from trapline.analysis import csv_input
from trapline.analysis.sql import literal
from trapline.errors import UsageError

_SQL_TYPES = {"number": "double", "integer": "bigint", "boolean": "boolean", "datetime": "timestamptz"}
_DESIGNATOR = r"(Z|[+-]\d\d:?\d\d)$"

# The moment of a camera's clock in a zone, as the standard writes it: with the offset that held there then.
_MACROS = """
create or replace macro offset_text(minutes) as
    (case when minutes < 0 then '-' else '+' end)
    || lpad((abs(minutes) // 60)::varchar, 2, '0') || ':' || lpad((abs(minutes) % 60)::varchar, 2, '0');
create or replace macro stamp(local, zone) as
    strftime(local, '%Y-%m-%dT%H:%M:%S')
    || offset_text(datediff('minute', timezone('UTC', timezone(zone, local)), local));
"""


def schema(table: str) -> dict[str, Any]:
    """The standard's schema of `deployments`, `media` or `observations`."""
    plain: dict[str, Any] = json.loads(
        files("trapline.analysis.camtrapdp").joinpath(f"schemas/{table}.json").read_text("utf-8")
    )
    return plain


def load(connection: duckdb.DuckDBPyConnection, url: str, timezone: str | None) -> None:
    """Makes `deployments` a table: the standard's columns as text, and `zone`; and `stamp(local, zone)` a macro.

    Args:
        connection: that reads the store of `url`.
        url: a CSV with columns of the standard, in any order, and perhaps `timezone`; others are passed over.
        timezone: of the cameras' clocks where the table has none: a name (`Europe/Berlin`) or an offset (`+01:00`).

    Raises:
        UsageError: it cannot be read, lacks a zone, or says what the standard does not allow.
    """
    connection.execute(_MACROS)
    of_standard = schema("deployments")["fields"]
    names = {required: [each["name"] for each in of_standard if each["constraints"]["required"] is required]
             for required in (True, False)}  # fmt: skip
    table = csv_input.read(url, names[True], [*names[False], "timezone"])
    connection.register("given", table)
    present = table.column_names
    zone = f"coalesce({_cell('timezone') if 'timezone' in present else 'null'}, {literal(timezone or '')})"
    connection.execute(f"""
        create or replace temp table zoned as select *,
            regexp_replace({zone}, '^([+-]\\d\\d:\\d\\d)$', 'GMT\\1') as zone from given""")
    _check_zones(connection, url)
    columns = [_column(each, each["name"] in present) for each in of_standard]
    connection.execute(f"create or replace temp table deployments as select {', '.join(columns)}, zone from zoned")
    _check(connection, url, of_standard)


def _cell(name: str) -> str:
    return f'"{name}"'


def _column(field: dict[str, Any], present: bool) -> str:
    name = field["name"]
    if not present:
        return f'null::varchar as "{name}"'
    value = _cell(name)
    if field["type"] == "datetime":
        local = f"try_cast({value} as timestamp)"
        value = (
            f"case when regexp_matches({value}, '{_DESIGNATOR}') then replace({value}, ' ', 'T') "
            f"else coalesce(stamp({local}, zone), {value}) end"
        )
    return f'{value} as "{name}"'


def _check_zones(connection: duckdb.DuckDBPyConnection, url: str) -> None:
    for zone, deployment in connection.sql("select zone, min(deploymentID) from zoned group by zone").fetchall():
        if not zone:
            raise UsageError(
                f"{url}: no time zone for the camera of deployment {deployment}; "
                "give --timezone (Europe/Berlin, +01:00), or a column timezone"
            )
        try:
            connection.execute("select timezone(?, timestamp '2024-01-01')::varchar", [zone]).fetchall()
        except duckdb.Error as error:
            raise UsageError(
                f"{url}: {zone}: no time zone; give a name (Europe/Berlin) or an offset (+01:00)"
            ) from error


def _check(connection: duckdb.DuckDBPyConnection, url: str, fields: list[dict[str, Any]]) -> None:
    """Raises UsageError with the first cell that the standard does not allow."""
    twice = "select deploymentID from deployments group by deploymentID having count(*) > 1"
    checks = [f"select deploymentID, 'deploymentID', 'stands there twice' from ({twice})"]
    for field in fields:
        for wrong, problem in _rules(field):
            told = literal(f" {problem}")
            cell = f"coalesce(\"{field['name']}\", '')"
            checks.append(f"select deploymentID, '{field['name']}', {cell} || {told} from deployments where {wrong}")
    found = connection.sql(" union all ".join(checks)).fetchall()
    if found:
        deployment, name, problem = found[0]
        more = f" (and {len(found) - 1:,} more)" if len(found) > 1 else ""
        raise UsageError(f"{url}: deployment {deployment}: {name} {problem.strip()}{more}")


def _rules(field: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What the schema does not allow a cell to be, in SQL and in words."""
    name, limits = f'"{field["name"]}"', field["constraints"]
    kind = _SQL_TYPES.get(field["type"])
    if limits["required"]:
        yield f"{name} is null", "is empty"
    if kind:
        yield f"{name} is not null and try_cast({name} as {kind}) is null", f"is no {field['type']}"
    if kind == "bigint":
        yield f"not regexp_full_match({name}, '[+-]?[0-9]+')", "is no integer"
    if kind == "boolean":
        yield f"{name} not in ('true', 'True', 'TRUE', '1', 'false', 'False', 'FALSE', '0')", "is no boolean"
    if kind == "timestamptz":
        yield f"not regexp_matches({name}, '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T[0-9:]{{8}}{_DESIGNATOR}')", "is no time"
    if "minimum" in limits:
        yield f"try_cast({name} as double) < {limits['minimum']}", f"is below {limits['minimum']}"
    if "maximum" in limits:
        yield f"try_cast({name} as double) > {limits['maximum']}", f"is above {limits['maximum']}"
    if "enum" in limits:
        yield f"{name} not in ({', '.join(map(literal, limits['enum']))})", f"is none of {', '.join(limits['enum'])}"
