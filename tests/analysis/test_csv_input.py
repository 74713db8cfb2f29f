import gzip
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from trapline.analysis import csv_input
from trapline.errors import StorageError, UsageError
from trapline.storage import store


def write(folder: Path, text: str) -> str:
    (folder / "a.csv").write_text(text)
    return str(folder / "a.csv")


def test_reads_named_columns_as_text_whatever_their_case_and_order(tmp_path: Path) -> None:
    url = write(tmp_path, '\ufeffNote, Species ,SITE\nx,"owl, barn",007\ny, robin ,\n')
    table = csv_input.read(url, ["species"], ["site", "camera"])
    assert table.to_pydict() == {"species": ["owl, barn", "robin"], "site": ["007", None]}


def test_reads_from_a_store(bucket: str) -> None:
    store.put(f"{bucket}/a.csv", b"species\nowl\n")
    assert csv_input.read(f"{bucket}/a.csv", ["species"]).to_pydict() == {"species": ["owl"]}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has no column 'species', only nothing; add it"),
        ("image_uri;name\n", "has no column 'species', only image_uri;name; add it"),
        ("species\n", "holds no row below its header"),
        ("species,Species\na,b\n", "has two columns 'species'"),
        ("species,site\n\na\n", r"no CSV \(line 3 has 1 cells, and the header 2\); correct it"),
        ("species,site\na,b,c\n", r"no CSV \(line 2 has 3 cells, and the header 2\)"),
        ('species,site\n"a,b\n', r"no CSV \(unexpected end of data\)"),
    ],
)
def test_says_what_is_wrong_with_a_file(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"a\.csv: {complaint}"):
        csv_input.read(write(tmp_path, text), ["species"], ["site"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"b\.csv: not found"):
        csv_input.read(str(tmp_path / "b.csv"), ["species"])


WORDS = [("Bäume", "kauz"), ("owl, barn", "2"), ("a;b", "3")]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("declared", ["", "sep={}\r\n", '"sep={}"\n'])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_reads_what_spreadsheets_write(separator: str, declared: str, encoding: str, tmp_path: Path) -> None:
    lines = [separator.join(f'"{cell}"' for cell in row) for row in [("Species", "Site"), *WORDS]]
    data = (declared.format(separator) + "\r\n".join(lines)).encode(encoding)
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    (tmp_path / "a.csv").write_bytes(mark + data)
    table = csv_input.read(str(tmp_path / "a.csv"), ["species"], ["site"])
    assert list(zip(*table.to_pydict().values(), strict=True)) == WORDS
    assert csv_input.line(table, 1) == 3 + bool(declared)


def test_cells_may_have_several_lines_and_rows_without_text_are_none(tmp_path: Path) -> None:
    rows = ['"Notes,\nin two lines",SPECIES', '"a ""b""\n\nc",owl', "", ",", '"x\r\ny",robin,,', " , ", "z,NA", ""]
    table = csv_input.read(write(tmp_path, "\n".join(rows)), ["species"])
    assert table.to_pydict() == {"species": ["owl", "robin", None]}
    assert [csv_input.line(table, position) for position in range(3)] == [3, 8, 11]


def test_a_single_column_is_separated_by_nothing(tmp_path: Path) -> None:
    assert csv_input.read(write(tmp_path, "species\nowl\n"), ["species"], ["site"]).num_columns == 1


@pytest.mark.parametrize("cell", ["", " ", "NA", "NaN", "nan", '"NA"', " NA "])
def test_missing_is_what_r_and_pandas_write(cell: str, tmp_path: Path) -> None:
    table = csv_input.read(write(tmp_path, f"species,site\n{cell},x\nNAN,y\n"), ["species"], ["site"])
    assert table.column("species").to_pylist() == [None, "NAN"]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ("species\nBäume\n".encode("latin-1"), r"byte 9 is not UTF-8, but perhaps Latin-1 .*; save it as `CSV UTF-8`"),
        (b"\xff\xfes", r"byte 2 is not UTF-16, .*; save it as `CSV UTF-8`"),
        ("species\nowl\n".encode("utf-16-le"), r"holds NUL characters, .*; save it as `CSV UTF-8`"),
    ],
)
def test_says_which_encoding_helps(data: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(UsageError, match=rf"^\S+a\.csv: {complaint}$"):
        csv_input.read(str(tmp_path / "a.csv"), ["species"])


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"PK\x03\x04\x14\0\x08", r"is a workbook \(.xlsx, .ods\), or another zip, and no CSV; save the table as"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", r"is a workbook \(.xls\), and no CSV"),
        (b"PAR1\x15\x04", "is a Parquet file, and no CSV"),
        (gzip.compress(b"PK\x03\x04\x14"), "is a workbook"),
        (gzip.compress(b"species\nowl\n" * 99)[:-9], r"damaged gzip \(.+\); give the CSV itself"),
    ],
)
def test_what_is_no_text_is_named(data: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(UsageError, match=rf"^\S+a\.csv: {complaint}"):
        csv_input.read(str(tmp_path / "a.csv"), ["species"])


def test_a_table_may_be_packed_by_gzip(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress("\ufeffspecies\nBäume\n".encode()))
    assert csv_input.read(str(tmp_path / "a.csv.gz"), ["species"]).to_pydict() == {"species": ["Bäume"]}


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=rf"^{tmp_path}: .*folder"):
        csv_input.read(str(tmp_path), ["species"])


def test_columns_are_named_as_they_are_asked_for(tmp_path: Path) -> None:
    table = csv_input.read(write(tmp_path, "DEPLOYMENTID\nd1\n"), ["deploymentID"])
    assert table.to_pydict() == {"deploymentID": ["d1"]}


@pytest.mark.parametrize("above", ["\n", "\r\n;;\r\n", "sep=;\n\n", ' ;"";\n'])
def test_rows_without_text_above_the_header_are_none(above: str, tmp_path: Path) -> None:
    table = csv_input.read(write(tmp_path, f"{above}site;n\nfen;1\n"), ["site"])
    assert table.to_pydict() == {"site": ["fen"]}
    assert csv_input.line(table, 0) == above.count("\n") + 2


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("2024-05-01", datetime(2024, 5, 1)),
        ("2024/5/1", datetime(2024, 5, 1)),
        ("2024/05/01 8:00", datetime(2024, 5, 1, 8)),
        ("2024-5-1 8:00:30", datetime(2024, 5, 1, 8, 0, 30)),
        ("2024-05-01T08:00:30.5", datetime(2024, 5, 1, 8, 0, 30, 500000)),
        ("20240501T080030", datetime(2024, 5, 1, 8, 0, 30)),
        ("2024-05-01t08:00Z", datetime(2024, 5, 1, 8, tzinfo=UTC)),
        ("2024-05-01 08:00:00+02", datetime(2024, 5, 1, 8, tzinfo=timezone(timedelta(hours=2)))),
    ],
)
def test_a_time_is_read_with_the_year_first(text: str, want: datetime) -> None:
    assert csv_input.moment(text) == want
    assert csv_input.moment(text).tzinfo == want.tzinfo
    assert csv_input.is_day(text) == (len(text) <= 10)


@pytest.mark.parametrize(
    "text",
    ["01.05.2024", "5/1/2024 8:00", "2024-05/01", "2024-05-01 8:00 PM", "2024-05-01 08:00:00 UTC", "2024-02-30",
     "2024-05-01+02:00", "2024-05-01-08", "2024-05-01_08:00", "２０２４-05-01", "45413", "epoch", "infinity", "1 May 2024", "2024年5月1日", "2024-05-01 24:00"],
)  # fmt: skip
def test_what_could_be_another_time_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        csv_input.moment(text)
