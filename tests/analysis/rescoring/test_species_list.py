import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trapline.analysis.rescoring import species_list
from trapline.analysis.rescoring.species_list import Prior, SpeciesList, condition
from trapline.errors import UsageError

SHARD = "s3://in/site=12/cam3/card-a.zip"
KEY = "DCIM/owl/IMG_1.jpg"
CLASSES = ("owl", "robin", "wren")


def allowed(lists: dict[str, set[str]], shard: str = SHARD, key: str = KEY) -> set[str]:
    prior = Prior.of(SpeciesList("l.csv", {pattern: frozenset(names) for pattern, names in lists.items()}), CLASSES)
    (row,) = prior.allowed(pa.array([shard]), pa.array([key]))
    return {name for name, can in zip(CLASSES, row, strict=True) if can}


@pytest.mark.parametrize(
    "pattern", ["site=12", "site=12/cam3", "cam*", "cam3/card-a.zip", "card-a.zip/DCIM", "site=12/*/DCIM", "in"]
)
def test_a_pattern_means_whole_segments_of_the_uri(pattern: str) -> None:
    assert allowed({pattern: {"owl"}}) == {"owl"}


@pytest.mark.parametrize("pattern", ["site=1", "am3", "cam", "IMG_1.jpg", "site=12/card-a.zip", "CAM3"])
def test_and_no_part_of_one_nor_the_picture_itself(pattern: str) -> None:
    assert allowed({pattern: {"owl"}}) == set(CLASSES)


@pytest.mark.parametrize(
    ("pattern", "shard"),
    [
        ("card[1]", "/in/card[1]/1.tar"),
        ("a?", "/in/a?/1.tar"),
        ("card[1]/*", "/in/card[1]/x/1.tar"),
        ("a.b", "/in/a.b"),
    ],
)
def test_only_a_star_stands_for_other_letters(pattern: str, shard: str) -> None:
    assert allowed({pattern: {"owl"}}, shard, "x.jpg") == {"owl"}
    for other in ("/in/card1/x/1.tar", "/in/ab/1.tar", "/in/axb"):
        assert allowed({pattern: {"owl"}}, other, "x.jpg") == set(CLASSES)


def test_unicode_forms_of_a_name_are_one_name() -> None:
    one, two = (unicodedata.normalize(form, "Müritz é") for form in ("NFC", "NFD"))
    assert allowed({one: {"owl"}}, f"/in/{two}/1.tar") == allowed({two: {"owl"}}, f"/in/{one}/1.tar") == {"owl"}
    listed = SpeciesList("l.csv", {"": frozenset({one})})
    assert listed.unknown([two, "owl"]) == []
    assert Prior.of(listed, [two, "owl"]).masks[""].tolist() == [True, False]
    assert listed.unknown([one, two]) == []
    assert Prior.of(listed, [one, two]).masks[""].tolist() == [True, False]


def test_a_hash_in_a_name_is_a_letter() -> None:
    lists = {"Camera #1": {"owl"}, "a#b": {"wren"}}
    assert allowed(lists, "/in/Camera #1", "1.jpg") == {"owl"}
    assert allowed(lists, "/in/Camera #2", "1.jpg") == set(CLASSES)
    assert allowed(lists, "/in/c.zip", "a#b/1#2.jpg") == {"wren"}


def test_lines_without_a_deployment_hold_everywhere_beside_the_others() -> None:
    lists = {"": {"owl"}, "cam3": {"robin"}, "cam4": {"wren"}}
    assert allowed(lists) == {"owl", "robin"}
    assert allowed(lists, "s3://in/cam5/1.tar", "a.jpg") == {"owl"}


def test_each_row_has_the_list_of_its_own_place() -> None:
    prior = Prior.of(SpeciesList("l.csv", {"a": frozenset({"owl"}), "b": frozenset({"wren"})}), CLASSES)
    keys = pa.array(["1.jpg", "1.jpg", "2.jpg", "1.jpg"])
    rows = prior.allowed(pa.array(["/in/b", "/in/a", "/in/b", "/in/c"]), keys)
    assert rows.astype(int).tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 1], [1, 1, 1]]
    assert prior.allowed(pa.array([], pa.string()), pa.array([], pa.string())).shape == (0, 3)


def test_mass_moves_exactly_to_what_can_occur() -> None:
    probabilities = np.array([[0.5, 0.375, 0.125], [0.25, 0.5, 0.25]], np.float32)
    moved, mass = condition(probabilities, np.array([[False, True, True], [True, True, True]]))
    assert moved.tolist() == [[0, 0.75, 0.25], [0.25, 0.5, 0.25]]
    assert mass.tolist() == [0.5, 1]


def test_where_nothing_that_can_occur_has_mass_all_of_it_is_as_probable() -> None:
    moved, mass = condition(np.array([[1, 0, 0]], np.float32), np.array([[False, True, True]]))
    assert (moved.tolist(), mass.tolist()) == ([[0, 0.5, 0.5]], [0])


@given(
    arrays(np.float32, (4, 6), elements=st.floats(0, 1, width=32)),
    arrays(bool, (4, 6)).filter(lambda mask: bool(mask.any(axis=1).all())),
)
def test_conditioning_keeps_ratios_and_sums_to_one(masses: np.ndarray, mask: np.ndarray) -> None:
    masses[:, 0] += 0.5
    probabilities = masses / masses.sum(axis=1, keepdims=True)
    moved, mass = condition(probabilities, mask)
    assert np.allclose(moved.sum(axis=1), 1, atol=1e-5)
    assert not moved[~mask].any()
    there = mass > 0
    expected = np.where(mask, probabilities, 0)[there] / mass[there, None]
    assert np.allclose(moved[there], expected, rtol=1e-5)


def test_reads_lists_with_and_without_deployments(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("species\nowl\nowl\ndodo\n")
    plain = species_list.read(str(path))
    assert plain.species == {"": {"owl", "dodo"}}
    assert plain.unknown(CLASSES) == ["dodo"]
    path.write_text("site,species\ncam3/,owl\n,robin\n")
    by_site = species_list.read(str(path))
    assert by_site.species == {"cam3": {"owl"}, "": {"robin"}}
    path.write_text("species,deployment\nrobin,\nowl,cam3\n")
    assert species_list.read(str(path)).digest == by_site.digest != plain.digest


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("species,site\n,cam3\n", "line 2: names no species"),
        ("species,site,deployment\na,b,c\n", "has both a column 'deployment' and a column 'site'"),
        ("species\ndodo\n", r"lists no species that is one of the model's 3, such as 'owl'"),
        ("species,site\nowl,cam1\ndodo,cam2\n", "lists no species for 'cam2' that is one of the model's 3"),
    ],
)
def test_says_what_is_wrong_with_a_list(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(UsageError, match=complaint):
        Prior.of(species_list.read(str(tmp_path / "l.csv")), CLASSES)
