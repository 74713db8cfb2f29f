"""JSON comes as UTF-8, whatever a tool wrote it in."""

import gzip
import io
import json

import pytest

from trapline.detections.json_stream import JsonStream

TEXT = '{"file": "Fr\u00fchling-NaN,1.jpg", "conf": NaN, "bbox": [-Infinity, 0, 1, 1]}'


def read(data: bytes, size: int) -> str:
    stream, parts = JsonStream(io.BytesIO(data)), []
    while part := stream.read(size):
        parts.append(part)
    return b"".join(parts).decode()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_every_encoding_becomes_utf_8_and_what_is_no_number_null(encoding: str, size: int) -> None:
    data = TEXT.encode(encoding)
    expected = {"file": "Fr\u00fchling-NaN,1.jpg", "conf": None, "bbox": [None, 0, 1, 1]}
    assert json.loads(read(data, 1000)) == expected
    assert json.loads(read(gzip.compress(data), 1000)) == expected
    if encoding.startswith("utf-8"):
        assert json.loads(read(data, max(size, 7))) == expected


def test_nothing_is_nothing() -> None:
    assert read(b"", 10) == ""


NAMES = ["a, NaN ,b.jpg", ": -Infinity]", 'q"[NaN]"', "back\\", "\\\\ NaN", "NaN", "Infinity", "-", "tail NaN"]


@pytest.mark.parametrize("size", [*range(1, 30), 1000])
def test_names_stay_as_they_are_wherever_a_block_ends(size: int) -> None:
    content = {name: [name, float("nan"), {"x": float("-inf"), name: float("inf")}] for name in NAMES}
    expected = {name: [name, None, {"x": None, name: None}] for name in NAMES}
    assert json.loads(read(json.dumps(content).encode(), size)) == expected
    plain = {name.replace("NaN", "N").replace("Infinity", "I"): [1.5, True, None] for name in NAMES}
    assert json.loads(read(json.dumps(plain).encode(), size)) == plain
    # Blocks with and without numbers follow each other.
    mixed = [plain, content, plain, content]
    assert json.loads(read(json.dumps(mixed).encode(), size)) == [plain, expected, plain, expected]
