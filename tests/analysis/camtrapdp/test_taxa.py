import unicodedata
from pathlib import Path

import duckdb
import pytest

from trapline.analysis.camtrapdp import taxa
from trapline.errors import UsageError

TABLE = "class,scientificName,observationType,taxonID,taxonRank\nfox,Vulpes vulpes,,5F,Species\nperson,Homo sapiens,human,,\nnone,,blank,,\n"
CLASSES = ["fox", "person", "none"]


def load(folder: Path, table: str = TABLE) -> list[tuple[str | None, ...]]:
    (folder / "taxa.csv").write_text(table)
    connection = duckdb.connect()
    taxa.load(connection, f"{folder}/taxa.csv", CLASSES)
    return connection.sql("select class, scientificName, observationType, taxonID, taxonRank from taxa").fetchall()


def test_a_table_names_classes_and_their_rank(tmp_path: Path) -> None:
    expected = [
        ("fox", "Vulpes vulpes", "animal", "5F", "species"),
        ("person", "Homo sapiens", "human", None, None),
        ("none", None, "blank", None, None),
    ]
    assert load(tmp_path) == expected
    assert load(tmp_path, TABLE + "heron,Ardea,,,\n") == expected  # of another model


def test_unicode_forms_of_a_class_are_one_name(tmp_path: Path) -> None:
    one, two = (unicodedata.normalize(form, "Bär") for form in ("NFC", "NFD"))
    (tmp_path / "taxa.csv").write_text(f"class,scientificName\n{one},Ursus arctos\n")
    connection = duckdb.connect()
    taxa.load(connection, f"{tmp_path}/taxa.csv", [two])
    assert connection.sql("select class, scientificName from taxa").fetchall() == [(two, "Ursus arctos")]


def test_without_a_table_classes_are_scientific_names(tmp_path: Path) -> None:
    connection = duckdb.connect()
    taxa.load(connection, None, ["Ardea"])
    assert connection.sql("from taxa").fetchall() == [("Ardea", "Ardea", "animal", None, None)]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("fox,", "wolf,", "lacks the class fox"),
        ("none,,blank", "fox,Vulpes vulpes,animal", r"lacks the class none|names twice the class fox"),
        ("human", "bird", "observationType is none of animal, human, vehicle, blank, of the class person"),
        ("Vulpes vulpes", "", "says no scientificName of the class fox"),
        ("Species", "kind", "taxonRank is none of kingdom, .*, of the class fox"),
        ("scientificName", "name", "has no column 'scientificName'"),
    ],
)
def test_what_the_standard_does_not_allow_is_refused_with_the_class(
    old: str, new: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=rf"taxa\.csv: ({words})"):
        load(tmp_path, TABLE.replace(old, new, 1))
