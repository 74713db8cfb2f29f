"""Make text from outside (names of files, cameras, species) safe to print on a terminal and to draw in a chart."""

import re
import unicodedata
from typing import Any

# Unicode categories of control characters (ESC begins a terminal command) and of marks that reverse the text direction.
_STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# The two of these that only join letters and emoji.
_HARMLESS = {"\u200c", "\u200d"}
# Characters that XML cannot contain; the SVG renderer aborts the process when it meets one.
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def display_text(text: str) -> str:
    """Return a text with the characters that would steer a terminal as escapes, such as `\\x1b`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def drawable(value: Any) -> Any:
    """Return a JSON structure with the characters that SVG cannot contain as escapes."""
    if isinstance(value, str):
        return _NOT_IN_XML.sub(lambda found: found[0].encode("unicode_escape").decode(), value)
    if isinstance(value, dict):
        return {drawable(key): drawable(each) for key, each in value.items()}
    return [drawable(each) for each in value] if isinstance(value, list) else value


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _STEERING or character in _HARMLESS:
        return character
    return character.encode("unicode_escape").decode()
