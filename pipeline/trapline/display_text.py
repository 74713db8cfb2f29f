"""Text of others (names of files, cameras, species) as it is printed or drawn: no character of it may do harm there."""

import re
import unicodedata
from typing import Any

# Control characters, of which ESC begins a command to the terminal; and marks that turn the order of what follows.
_STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Of these, what only joins letters and emoji.
_HARMLESS = {"\u200c", "\u200d"}
# XML has no such characters; what draws SVG ends the whole process where it meets one.
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def display_text(text: str) -> str:
    """Return a text with the characters that would steer a terminal as escapes, such as `\\x1b`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def drawable(value: Any) -> Any:
    """Return a structure of JSON in which characters that no SVG can have are escapes."""
    if isinstance(value, str):
        return _NOT_IN_XML.sub(lambda found: found[0].encode("unicode_escape").decode(), value)
    if isinstance(value, dict):
        return {drawable(key): drawable(each) for key, each in value.items()}
    return [drawable(each) for each in value] if isinstance(value, list) else value


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _STEERING or character in _HARMLESS:
        return character
    return character.encode("unicode_escape").decode()
