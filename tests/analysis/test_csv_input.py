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
        ("", "has no column 'species', only nothing"),
        ("image_uri;species\n", "has no column 'species', only image_uri;species; add it"),
        ("species\n", "holds no row below its header"),
        ("species,Species\na,b\n", "has two columns 'species'"),
        ("species,site\na\n", "no CSV"),
    ],
)
def test_says_what_is_wrong_with_a_file(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"a\.csv: {complaint}"):
        csv_input.read(write(tmp_path, text), ["species"], ["site"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"b\.csv: not found"):
        csv_input.read(str(tmp_path / "b.csv"), ["species"])
