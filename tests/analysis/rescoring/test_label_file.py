import unicodedata
from pathlib import Path

import pyarrow as pa
import pytest

from trapline.analysis.rescoring import label_file
from trapline.analysis.rescoring.label_file import ENDING, RESPELLED, WHOLE

ROWS = ["/in/fen/cam 1/a.tar#DCIM/IMG_1.JPG", "/in/fen/cam 1/a.tar#DCIM/IMG_2.JPG",
        unicodedata.normalize("NFD", "/in/Müritz#é.jpg"), "/in/fen#100%25.jpg"]  # fmt: skip


def matches(folder: Path, *keys: str) -> list[tuple[int, int, int]]:
    """Row, label and grade of each match."""
    (folder / "l.csv").write_text("\n".join(["file,species", *(f'"{key}",owl' for key in keys)]))
    found = label_file.read(str(folder / "l.csv")).matches(pa.array(ROWS))
    return sorted({(row["row"], row["label"], row["grade"]) for row in found.to_pylist()})


@pytest.mark.parametrize(
    ("key", "row", "grade"),
    [
        (ROWS[0], 0, WHOLE),
        ("IMG_1.JPG", 0, ENDING),
        ("img_1.jpg", 0, RESPELLED),
        ("Cam 1\\A.tar\\dcim\\img_1.jpg", 0, RESPELLED),
        ("cam%201/a.tar/DCIM/IMG_1.JPG", 0, RESPELLED),
        ("cam%201%2Fa.tar%2FDCIM%2FIMG_1.JPG", 0, RESPELLED),
        ("Müritz/é.jpg", 2, RESPELLED),
        ("M%C3%BCritz/%C3%A9.JPG", 2, RESPELLED),
        ("100%25.jpg", 3, ENDING),
        ("100%2525.jpg", 3, RESPELLED),
    ],
)
def test_a_label_names_an_image_in_any_spelling(key: str, row: int, grade: int, tmp_path: Path) -> None:
    found = matches(tmp_path, key)
    assert min(found, key=lambda each: each[2]) == (row, 0, grade)
    assert {place for place, _, _ in found} == {row}


@pytest.mark.parametrize("key", ["MG_1.JPG", "cam1/a.tar/DCIM/IMG_1.JPG", "IMG_3.JPG", "E.JPG", "100%.jpg"])
def test_another_name_is_none(key: str, tmp_path: Path) -> None:
    assert matches(tmp_path, key) == []


def test_labels_that_differ_in_spelling_alone_stand_for_no_third_one(tmp_path: Path) -> None:
    assert matches(tmp_path, "img_1.jpg", "Img_1.jpg") == []
    assert matches(tmp_path, "IMG_1.JPG", "Img_1.jpg") == [(0, 0, ENDING)]
