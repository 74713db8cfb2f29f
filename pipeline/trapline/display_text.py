"""Text of others (names of files, cameras, species) as it is printed: no character of it may steer the terminal."""

import unicodedata

# Control characters, of which ESC begins a command to the terminal; and marks that turn the order of what follows.
_STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Of these, what only joins letters and emoji.
_HARMLESS = {"\u200c", "\u200d"}


def display_text(text: str) -> str:
    """Return a text with the characters that would steer a terminal as escapes, such as `\\x1b`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _STEERING or character in _HARMLESS:
        return character
    return character.encode("unicode_escape").decode()
