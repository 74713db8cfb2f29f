from pathlib import Path

from rich.console import Console

from trapline.analysis import csv_input, sql
from trapline.analysis.search import listing

ROWS = """SELECT * FROM (VALUES
    ('=HYPERLINK("http://x")', -1.5), ('+1', 2), ('-2', 3), ('@a', 4), ('a=b', 5), (E'\\x1b[2J', 6)) AS rows(name, number)"""


def test_a_spreadsheet_takes_no_name_for_a_formula(tmp_path: Path) -> None:
    connection = sql.connect()
    files = {kind: str(tmp_path / kind) for kind in ("csv", "json", "parquet")}
    listing.save(connection, ROWS, files)
    names = csv_input.read(files["csv"], ["name", "number"]).to_pydict()
    assert names["name"][:5] == ['\'=HYPERLINK("http://x")', "'+1", "'-2", "'@a", "a=b"]
    assert names["number"][0] == "-1.5"
    # What programs read stays as it is.
    for query in (f"FROM read_json('{files['json']}')", f"FROM read_parquet('{files['parquet']}')"):
        assert connection.sql(f"SELECT name FROM ({query})").fetchall()[:2] == [('=HYPERLINK("http://x")',), ("+1",)]


def test_a_name_does_not_steer_the_terminal() -> None:
    console = Console(record=True, width=80)
    listing.show(console, sql.connect(), ROWS, 10)
    text = console.export_text()
    assert "\x1b" not in text
    assert r"\x1b[2J" in text
