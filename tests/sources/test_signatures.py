import gzip
import io

import pytest
from PIL import Image

from tests.support.reading import tar_bytes, zip_bytes
from trapline.sources.signatures import describe, looks_like_image

TAR = tar_bytes({"a.jpg": b"a"})


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (zip_bytes({"a.jpg": b"a"}), "a zip archive"),
        (zip_bytes({}), "a zip archive without members"),
        (b"BZh91AY", "compressed by bzip2"),
        (b"\x04\x22\x4d\x18\x64\x40", "compressed by LZ4"),
        (b"\x1f\x9d\x90", "compressed by compress (.Z)"),
        (TAR, "a tar archive"),
        (gzip.compress(TAR, mtime=0), "compressed by gzip, and inside a tar archive"),
        (gzip.compress(b"<html>", mtime=0), "compressed by gzip, and inside a web page"),
        (gzip.compress(b"?", mtime=0)[:-9], "compressed by gzip"),
        (b"\n<!DOCTYPE html><html><title>404", "a web page"),
        (b"\xef\xbb\xbf<HTML>", "a web page"),
        (b'<?xml version="1.0"?><Error><Code>NoSuchKey', "an XML document, such as a store's error message"),
        (b'{"error": 404}', "a JSON document"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer to a file in Git LFS"),
        (b"", "empty"),
        (bytes(512), "nothing but zeros"),
        (b"anything else", None),
    ],
)
def test_a_file_is_described_by_its_first_bytes(head: bytes, words: str | None) -> None:
    assert describe(head[:1024]) == words


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_images_look_like_images(kind: str) -> None:
    sink = io.BytesIO()
    Image.new("RGB", (8, 8)).save(sink, kind)
    assert looks_like_image(sink.getvalue()[:16])


@pytest.mark.parametrize("head", [b"RIFF0000AVI ", b"\0\0\0\x18ftypmp42", b"\x1a\x45\xdf\xa3"])
def test_clips_do_so_too(head: bytes) -> None:
    assert looks_like_image(head)


@pytest.mark.parametrize("head", [b"", b"\1" * 32, b"PK\3\4", b"RIFF0000WAVE"])
def test_other_bytes_do_not(head: bytes) -> None:
    assert not looks_like_image(head)
