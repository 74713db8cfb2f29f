import unicodedata

from trapline.analysis.spelling import respelled

ONE, TWO = (unicodedata.normalize(form, "Müritz") for form in ("NFC", "NFD"))


def test_a_name_is_spelled_as_the_only_known_one_that_looks_like_it() -> None:
    assert ONE != TWO
    assert respelled([ONE, "fen"], [TWO, "fen", "moor"]) == {ONE: TWO}
    assert respelled([TWO], [ONE]) == {TWO: ONE}


def test_names_that_look_alike_are_not_merged() -> None:
    assert respelled([ONE], [ONE, TWO]) == {}
    assert respelled([ONE, TWO], [ONE]) == {}
    assert respelled([ONE, TWO], [ONE, TWO]) == {}
    # A + U+030A, U+00C5 and U+212B all look like an angstrom.
    assert respelled(["\u212b"], ["A\u030a", "\u00c5"]) == {}
