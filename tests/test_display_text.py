import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.display_text import display_text, drawable


@pytest.mark.parametrize("text", ["", "site=3/IMG_1.jpg", "Bäume (1+2)", "漢字 🦉", "👩\u200d🔬", r"a\\b"])
def test_names_stay_as_they_are(text: str) -> None:
    assert display_text(text) == text


def test_commands_to_the_terminal_are_shown_and_not_obeyed() -> None:
    assert display_text("\x1b[2J\x07a\r\nb\u202ec") == r"\x1b[2J\x07a\r\nb\u202ec"


@given(st.text())
def test_nothing_that_is_printed_steers(text: str) -> None:
    assert not {*map(ord, display_text(text))} & {*range(32), *range(127, 160), 0x202E, 0x2028}


def test_what_is_drawn_has_no_character_that_xml_has_not() -> None:
    drawn = drawable({"a\x08": ["x\x1b\uffff", 1, None, {"b": "\t\n ä🦉"}]})
    assert drawn == {"a\\x08": ["x\\x1b\\uffff", 1, None, {"b": "\t\n ä🦉"}]}
