import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trapline.analysis.rescoring import taxonomy
from trapline.analysis.rescoring.taxonomy import RANKS, RollUp, Taxonomy
from trapline.errors import UsageError

CLASSES = ("tawny owl", "ural owl", "barn owl", "robin", "mystery")
TREE = Taxonomy(
    "taxonomy.csv",
    {
        "tawny owl": ("Strix", "Strigidae", "Aves"),
        "ural owl": ("Strix", "Strigidae", "Aves"),
        "barn owl": ("Tyto", "Tytonidae", "Aves"),
        "robin": ("Erithacus", "Muscicapidae", "Aves"),
        "red fox": ("Vulpes", "Canidae", "Mammalia"),
    },
)


def rolled(probabilities: list[float], threshold: float = 0.8) -> tuple[str | None, str | None, float | None]:
    values = np.array([probabilities], np.float32)
    taxon, rank, probability = RollUp.of(TREE, CLASSES)(values, [CLASSES[values[0].argmax()]], threshold)
    return taxon[0].as_py(), rank[0].as_py(), probability[0].as_py()


def test_a_species_that_is_probable_enough_stands() -> None:
    assert rolled([0.9, 0.1, 0, 0, 0]) == ("tawny owl", "species", pytest.approx(0.9))


def test_two_species_that_share_the_mass_become_their_genus() -> None:
    assert rolled([0.5, 0.45, 0.05, 0, 0]) == ("Strix", "genus", pytest.approx(0.95))


def test_mass_that_is_spread_further_becomes_a_class() -> None:
    assert rolled([0.4, 0, 0.3, 0.3, 0]) == ("Aves", "class", pytest.approx(1))


def test_mass_outside_of_the_taxonomy_belongs_to_no_taxon() -> None:
    assert rolled([0.4, 0, 0.3, 0, 0.3]) == (None, None, None)
    assert rolled([0, 0.1, 0, 0, 0.9]) == ("mystery", "species", pytest.approx(0.9))


def test_a_sum_that_reaches_the_threshold_on_paper_reaches_it() -> None:
    assert float(np.float32(0.2) + np.float32(0.5)) < 0.7
    assert rolled([0.2, 0.5, 0.2, 0.1, 0], threshold=0.7)[:2] == ("Strix", "genus")


@given(arrays(np.float32, (7, 5), elements=st.floats(0.0009765625, 1, width=32)), st.floats(0.1, 1))
def test_the_rank_is_the_lowest_whose_best_taxon_reaches_the_threshold(masses: np.ndarray, threshold: float) -> None:
    probabilities = masses / masses.sum(axis=1, keepdims=True)
    species = [CLASSES[best] for best in probabilities.argmax(axis=1)]
    taxa = zip(
        *(column.to_pylist() for column in RollUp.of(TREE, CLASSES)(probabilities, species, threshold)), strict=True
    )
    for row, best, (taxon, rank, probability) in zip(probabilities, species, taxa, strict=True):
        expected: tuple[str | None, str | None, float | None] = (None, None, None)
        for level, name in enumerate(("species", *RANKS)):
            sums: dict[str, float] = {}
            for species_name, mass in zip(CLASSES, row, strict=True):
                place = species_name if level == 0 else TREE.above.get(species_name, (None,) * 3)[level - 1]
                if place:
                    sums[place] = sums.get(place, 0.0) + float(mass)
            top = best if level == 0 else max(sums, key=lambda place: sums[place])
            if abs(sums[top] - threshold) < 3e-6:
                break  # too close to call
            if sums[top] > threshold:
                expected = (top, name, pytest.approx(sums[top], abs=1e-5))
                break
        else:
            assert (taxon, rank, probability) == (None, None, None)
            continue
        if expected[0]:
            assert (rank, probability) == expected[1:]
            assert taxon == expected[0] or probability < 0.5 + 1e-6  # a tie


def write(folder: Path, text: str) -> str:
    (folder / "t.csv").write_text(text)
    return str(folder / "t.csv")


def test_reads_the_ranks_that_a_file_has(tmp_path: Path) -> None:
    read = taxonomy.read(write(tmp_path, "class,species,genus\nAves,robin,Erithacus\nAves,mystery,\n"))
    assert read.above == {"robin": ("Erithacus", None, "Aves"), "mystery": (None, None, "Aves")}
    again = taxonomy.read(write(tmp_path, "species,class,genus\nmystery,Aves,\nrobin,Aves,Erithacus\n"))
    assert again.digest == read.digest
    other = taxonomy.read(write(tmp_path, "species,class,genus\nmystery,Aves,\nrobin,Aves,Luscinia\n"))
    assert other.digest != read.digest


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("species,order\nrobin,x\n", "has none of the columns genus, family, class"),
        ("species,genus\nrobin,A\n,B\n", "line 3: names no species"),
        ("species,genus\nrobin,A\nrobin,A\n", "line 3: names 'robin' a second time"),
        ("species,genus,family\na,G,F1\nb,G,F2\n", "puts genus 'G' under both 'F1' and 'F2'"),
        ("species,genus,class\na,G,C1\nb,G,C2\n", "puts genus 'G' under both 'C1' and 'C2'"),
    ],
)
def test_says_what_is_wrong_with_a_file(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"t\.csv.*{complaint}"):
        taxonomy.read(write(tmp_path, text))


def test_a_taxonomy_in_another_language_is_refused() -> None:
    with pytest.raises(UsageError, match="places none of the 1 species of the model, such as 'Rotkehlchen'"):
        RollUp.of(TREE, ["Rotkehlchen"])
    assert TREE.unplaced(CLASSES) == ["mystery"]


def test_unicode_forms_of_a_name_are_one_name() -> None:
    one, two = (unicodedata.normalize(form, "Bläuling") for form in ("NFC", "NFD"))
    tree = Taxonomy("t.csv", {one: ("Lycaena", None, None)})
    assert tree.unplaced([two, "owl"]) == ["owl"]
    assert RollUp.of(tree, [two, "owl"]).taxa == (("Lycaena",), (), ())
