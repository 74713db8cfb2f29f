import json
from collections import Counter

import duckdb
import pytest

from trapline.sources.file_types import UNMATCHED_SIDECAR
from trapline.sources.sidecars import NOT_JSON, SidecarIndex, json_text, webdataset_key

TEXT = '{ "k": "ä€😀", "n": [1, 2.50, 1e400, null] }'


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_json_is_read_in_every_unicode_encoding_and_stays_verbatim(encoding: str) -> None:
    ignored: Counter[str] = Counter()
    assert json_text(TEXT.encode(encoding), ignored) == TEXT
    assert not ignored


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not json",
        b"{'k': 1}",
        b"\xff\xfe\xfd",
        b'{"k": "\xe4"}',
        b'{"k": 1} {"k": 2}',
        b"[" * 100_000,
        b"\x00" * 9,
    ],
)
def test_what_is_no_json_is_null_and_counted(data: bytes) -> None:
    ignored: Counter[str] = Counter()
    assert json_text(data, ignored) is None
    assert ignored == {NOT_JSON: 1}


def test_numbers_that_json_does_not_have_become_null() -> None:
    text = json_text(b'{"a": NaN, "b": [Infinity, {"c": -Infinity}], "d": 1.5, "e": "NaN"}', Counter())
    assert text is not None
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [None, {"c": None}], "d": 1.5, "e": "NaN"}


def test_a_number_of_many_digits_is_json() -> None:
    text = f'{{"k": {"7" * 9000}}}'
    assert json_text(text.encode(), Counter()) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (rb'{"k": "\ud800"}', '{"k": "\ufffd"}'),
        (rb'{"\uDFFF": ["a\udc00b"]}', '{"\ufffd": ["a\ufffdb"]}'),
        (rb'{"k": "\ud83d\ude00"}', rb'{"k": "\ud83d\ude00"}'.decode()),
        (rb'{"k": "\\ud800"}', rb'{"k": "\\ud800"}'.decode()),
        (rb'{"k": NaN, "u": "\ud800", "e": "\ud83d\ude00"}', '{"k": null, "u": "\ufffd", "e": "\U0001f600"}'),
        (b'{"k": NaN, "n": ' + b"7" * 9000 + b"}", '{"k": null, "n": null}'),
    ],
)
def test_half_a_surrogate_pair_is_replaced_as_databases_refuse_it(data: bytes, text: str) -> None:
    ignored: Counter[str] = Counter()
    found = json_text(data, ignored)
    assert found == text
    assert duckdb.execute("SELECT json_valid(?)", [found]).fetchall() == [(True,)]
    assert not ignored


def index(*names: str, convention: bool = False) -> SidecarIndex[str]:
    sidecars = SidecarIndex[str](convention)
    for name in names:
        sidecars.add(name, name)
    return sidecars


@pytest.mark.parametrize(
    ("names", "image", "found"),
    [
        (["a.json"], "a.jpg", "a.json"),
        (["a.jpg.json"], "a.jpg", "a.jpg.json"),
        (["a.json", "a.jpg.json"], "a.jpg", "a.jpg.json"),
        (["a.jpg.json", "a.png.json"], "a.jpg", "a.jpg.json"),
        (["a.jpg.json", "a.png.json"], "a.png", "a.png.json"),
        (["a.jpg.JSON"], "a.JPG", "a.jpg.JSON"),
        (["x/a.json"], "y/a.jpg", None),
        (["2023.json"], "2023.05.01_a.jpg", None),
    ],
)
def test_the_sidecar_of_an_image_is_the_nearest_by_name(names: list[str], image: str, found: str | None) -> None:
    assert index(*names).find(image) == found


def test_names_are_compared_up_to_their_first_dot_by_convention_and_last() -> None:
    assert index("0.json", convention=True).find("0.input.jpg") == "0.json"
    assert index("0.json", "0.input.json", convention=True).find("0.input.jpg") == "0.input.json"
    assert index("0.json").find("0.input.jpg") is None
    assert webdataset_key("a.b/0.input.jpg") == "a.b/0"


def test_sidecars_that_no_image_has_are_counted() -> None:
    sidecars = index("a.json", "b.json", "b.jpg.json", "c.json")
    for image in ("a.jpg", "a.png", "b.jpg"):
        sidecars.find(image)
    ignored: Counter[str] = Counter()
    sidecars.count_unmatched(ignored)
    assert ignored == {UNMATCHED_SIDECAR: 2}
    assert len(list(sidecars)) == 4
