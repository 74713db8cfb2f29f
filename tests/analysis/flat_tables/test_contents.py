"""What a file of the flat tables says of itself."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from trapline.analysis import tables
from trapline.analysis.flat_tables import contents
from trapline.analysis.flat_tables.contents import Part, TableFile
from trapline.analysis.tables import Origin
from trapline.results.fingerprint import Fingerprint
from trapline.results.ledger import Result

SCHEMA = pa.schema([("a", pa.int32())])
ORIGIN = Origin(Fingerprint({"x": 1}), "ab")


def test_the_footer_names_the_parts(tmp_path: Path) -> None:
    parts = (Part("s3://in/ü.tar", "ü.tar.parquet", "1-e", 3), Part("s3://in/b c.tar", "b c.tar.parquet", "2-e", 0))
    url = f"{tmp_path}/t/images-00001.parquet"
    tables.publish(url, SCHEMA, [], ORIGIN, str(tmp_path), contents.to_metadata(parts))
    assert contents.survey(f"{tmp_path}/t") == {url: TableFile(url, ORIGIN, parts)}
    assert contents.survey(f"{tmp_path}/t")[url].images == 3  # type: ignore[union-attr]


def test_of_a_thousand_shards_is_short(tmp_path: Path) -> None:
    parts = [
        Part(f"s3://archive/site={n:03}/{n}.tar", f"site={n:03}/{n}.tar.parquet", f"{n}-e", n) for n in range(1000)
    ]
    assert sum(map(len, contents.to_metadata(parts).values())) < 30_000


def test_a_file_that_is_none_is_said_to_be_none(tmp_path: Path) -> None:
    tables.publish(f"{tmp_path}/t/events.parquet", SCHEMA, [], ORIGIN, str(tmp_path))
    odd = {"trapline.shards": "not base64"}
    tables.publish(f"{tmp_path}/t/odd.parquet", SCHEMA, [], ORIGIN, str(tmp_path), odd)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "t/foreign.parquet")
    found = contents.survey(f"{tmp_path}/t")
    assert {Path(url).stem: file for url, file in found.items()} == {"foreign": None, "events": None, "odd": None}


def test_a_part_is_what_the_ledger_says() -> None:
    result = Result("/out/site=1/a.tar.parquet", "9-e", "s3://in/a.tar", "1-e", "f", ok=2, salvaged=1, failed=4)
    assert Part.of(result, "/out") == Part("s3://in/a.tar", "site=1/a.tar.parquet", "9-e", 7)
