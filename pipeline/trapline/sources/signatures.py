"""Recognise what a file is by its first bytes, for messages about files that are not what their name says."""

import zlib

# How much of a file to read.
HEAD_BYTES = 1024

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"PK\3\4", "a zip archive"),
    (b"PK\5\6", "a zip archive without members"),
    (b"PK\7\x08", "the first part of a split zip archive"),
    (b"BZh", "compressed by bzip2"),
    (b"\xfd7zXZ\0", "compressed by xz"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard"),
    (b"\x04\x22\x4d\x18", "compressed by LZ4"),
    (b"\x1f\x9d", "compressed by compress (.Z)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"%PDF", "a PDF document"),
    (b"version https://git-lfs", "a pointer to a file in Git LFS"),
)

# What the first bytes of sound shards look like.
OF_FORMAT = {
    "tar": {"a tar archive", "compressed by gzip", "compressed by gzip, and inside a tar archive"},
    "zip": {"a zip archive", "a zip archive without members"},
    "parquet": {"a Parquet file"},
}

_PICTURES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),  # Matroska, ASF
)


def describe(head: bytes) -> str | None:
    """Return in words what a file is that begins with these bytes; None if unknown."""
    known = next((words for signature, words in _SIGNATURES if head.startswith(signature)), None)
    if known:
        return known
    if head.startswith(b"\x1f\x8b"):
        return _describe_gzip(head)
    if head[257:262] == b"ustar":
        return "a tar archive"
    if not head:
        return "empty"
    if not head.strip(b"\0"):
        return "nothing but zeros"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "a web page"
    if text.startswith((b"<?xml", b"<error")):
        return "an XML document, such as a store's error message"
    if text.startswith((b"{", b"[")) and text[1:2] in (b'"', b"{", b"[", b" ", b"\n", b"\r", b"}"):
        return "a JSON document"
    return None


def _describe_gzip(head: bytes) -> str:
    try:
        inner = describe(zlib.decompressobj(31).decompress(head, HEAD_BYTES))
    except zlib.error:
        inner = None
    return f"compressed by gzip, and inside {inner}" if inner else "compressed by gzip"


def looks_like_image(head: bytes) -> bool:
    """Return whether these are the first bytes of an image file or a clip."""
    return (
        head.startswith(_PICTURES)
        or (head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b"AVI "))
        or head[4:8] in (b"ftyp", b"moov", b"mdat")  # AVIF, HEIC, MP4, MOV
    )
