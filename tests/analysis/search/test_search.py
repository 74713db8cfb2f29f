"""`trapline search` and `trapline duplicates` as a person runs them."""

import json
from pathlib import Path

import duckdb
import pytest

from tests.analysis.search.test_duplicates import image
from tests.support.result_files import Planted, columns, write_result
from trapline.cli import duplicates, search
from trapline.storage import store

COLUMNS = columns(["owl", "robin"], 2)


@pytest.fixture
def output(tmp_path: Path) -> str:
    images = [image("a"), image("b", angle=3), image("c", angle=80, data=b"y")]
    write_result(str(tmp_path / "out"), "s3://in/[b]1.tar", "1.tar", images, COLUMNS)
    return str(tmp_path / "out")


def test_the_nearest_are_printed_and_written_in_each_format(
    output: str, tmp_path: Path, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"csv": f"{tmp_path}/a b's.csv", "json": f"{tmp_path}/a.json", "parquet": f"{bucket}/a.parquet"}
    options = [word for name, url in files.items() for word in (f"--{name}", url)]
    assert search.main([output, "--like", "s3://in/[b]1.tar#a", "-k", "1", *options]) == 0
    assert "1  0.9986  owl" in capsys.readouterr().out
    expected = ("s3://in/[b]1.tar#b", 1)
    (row,) = json.loads(Path(files["json"]).read_text())
    assert (row["image_uri"], row["rank"]) == expected
    local = tmp_path / "a.parquet"
    local.write_bytes(store.read_many([files["parquet"]])[0])
    for path in (files["csv"], str(local)):
        quoted = path.replace("'", "''")
        assert duckdb.sql(f"SELECT image_uri, rank FROM '{quoted}'").fetchall() == [expected]


def test_duplicates_are_counted_and_listed(output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert duplicates.main([output]) == 0
    assert "2 images share their bytes with another, in 1 group." in capsys.readouterr().out
    assert duplicates.main([output, "--near", "--threshold", "0.99", "--csv", f"{tmp_path}/near.csv"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "3 images compared; with a cosine of 0.99 or more, of one camera and within 60 s: 1 pair." in said
    assert len((tmp_path / "near.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--like", "s3://in/[b]1.tar#z"], "is no image_uri of"),
        (["--like", "s3://in/[b]1.tar#a", "--where", "colour"], "--where colour: Binder Error"),
        (["--like", "s3://in/[b]1.tar#a", "--where", "key::INT = 1"], "Conversion Error"),
        (["--like", "s3://in/[b]1.tar#a", "--csv", "/dev/null/all.csv"], "/dev/null/all.csv: "),
        (["--like", "s3://in/[b]1.tar#a", "-k", "0"], "Must be >= 1"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    output: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search.main([output, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("trapline: ")
    assert said in line


def test_a_search_without_an_answer_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(str(tmp_path), "s3://in/1.tar", "1.tar", [Planted("a", (1, 0), (1, 0))], COLUMNS)
    assert search.main([str(tmp_path), "--like", "s3://in/1.tar#a"]) == 0
    assert "No other image has an embedding." in capsys.readouterr().out
