"""Recognise by its bytes what a file is: one of the formats that Trapline reads, or something else, which is named."""

import re
from typing import Final

from trapline.decoding import tiff
from trapline.errors import ImageError

PILLOW_NAMES: Final = {name: name for name in ("jpeg", "png", "webp", "tiff", "gif", "bmp", "avif")} | {"heic": "heif"}
"""Formats that are read -> names of Pillow's plugins. Only the named plugin sees the bytes."""

_SIGNATURE = re.compile(
    rb"(?P<jpeg>\xff\xd8\xff)"
    rb"|(?P<png>\x89PNG\r\n\x1a\n)"
    rb"|(?P<webp>RIFF.{4}WEBP)"
    rb"|(?P<tiff>II\*\0|MM\0\*|II\+\0|MM\0\+)"
    rb"|(?P<gif>GIF8[79]a)"
    rb"|(?P<bmp>BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0)",  # with the header's size: two letters are no signature
    re.DOTALL,
)
# Brands of ISO base media files: the main one, then those that the file is compatible with.
_AVIF, _HEIC = {b"avif", b"avis"}, {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_RAW_BRANDS = {b"crx "}

_CONVERT = "convert it to JPEG"
_OTHERS: Final = [
    (rb"\xff\x0a|\0{3}\x0cJXL \r\n\x87\n", "jpeg_xl", f"a JPEG XL image; {_CONVERT}"),
    (rb"\0{3}\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "jpeg_2000", f"a JPEG 2000 image; {_CONVERT}"),
    (
        rb"IIRO|IIRS|MMOR|IIU\0|FUJIFILMCCD-RAW|FOVb|\0MRM|HEAPCCDR|ARRI|.{6}HEAPCCDR",
        "raw_photo",
        f"a camera's RAW file; {_CONVERT}",
    ),
    (rb"8BPS", "photoshop", f"a Photoshop document; {_CONVERT}"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "postscript", f"a PostScript drawing; {_CONVERT}"),
    (rb"%PDF-", "pdf", "a PDF document; extract its pictures"),
    (rb"\x00\x00[\x01\x02]\x00[^\x00]", "icon", f"a Windows icon; {_CONVERT}"),
    (
        rb"version https://(?:git-lfs|hawser)\.github\.com/",
        "lfs_pointer",
        "a Git LFS pointer; fetch it by `git lfs pull`",
    ),
    (
        rb"(?:\.\./)*(?:\.git)?/annex/objects/",
        "annex_pointer",
        "a git-annex pointer; fetch it by `git annex get`",
    ),
    (
        rb"L\0\0\0\x01\x14\x02\0|(?i:\[InternetShortcut\])|book\0\0\0\0mark\0\0\0\0",
        "shortcut",
        "a shortcut to a file elsewhere; copy that file",
    ),
    (rb"/9j/[A-Za-z0-9+/]|iVBORw0KGgo|data:image/", "base64", "a picture as text in Base64; decode it first"),
    (
        rb"RIFF.{4}AVI |\x1a\x45\xdf\xa3|.{4}(?:moov|mdat|wide|free|skip)|\x00\x00\x01[\xb3\xba]"
        rb"|0&\xb2\x75\x8e\x66\xcf\x11|FLV\x01|G.{187}G|OggS",
        "video",
        "a video; extract its frames",
    ),
    (rb"RIFF.{4}WAVE|ID3|fLaC|\xff[\xfb\xf3\xf2]", "audio", "a sound recording"),
    (
        rb"PK\x03\x04|PK\x05\x06|\x1f\x8b|BZh[1-9]|\xfd7zXZ\0|\x28\xb5\x2f\xfd|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|.{257}ustar",
        "archive",
        "an archive; unpack it",
    ),
    (
        rb"\x00\x05\x16[\x00\x07]\x00",
        "resource_fork",
        "a resource fork of macOS; the picture is beside it",
    ),
    (
        rb"\s*(?:<\?xml.{0,300}?\?>\s*)?(?:<!--.{0,1000}?-->\s*)?<(?i:!doctype html|"
        rb"(?:html|head|body|script|meta|title|style|link|center|div|p|pre|h[1-6]|table|noscript|iframe)\b)",
        "html_page",
        "a web page, perhaps an error message that was saved as a picture; download it again",
    ),
    (
        rb"\s*(?:<\?xml.{0,300}?\?>\s*)?(?:<!--.{0,1000}?-->\s*)?<(?:!DOCTYPE svg|svg)",
        "svg",
        f"an SVG drawing; {_CONVERT}",
    ),
    (
        rb"\s*<(?:\?xml|Error>)",
        "xml",
        "an XML document, perhaps a store's error message; download it again",
    ),
    (rb"\s*[{\[]\s*[\"{\[\]}]", "json", "a JSON document, perhaps a server's error message; download it again"),
    (rb"\0+\Z", "zeros", "nothing but zeros; the card or the disk lost its content"),
]
_OTHER = [(re.compile(pattern, re.DOTALL), kind, message) for pattern, kind, message in _OTHERS]
OTHER_KINDS: Final = frozenset(kind for _, kind, _ in _OTHERS)
"""Kinds of errors that name what a file is, if Trapline does not read it."""

# How much of a text to look at.
_TEXT_BYTES = 4096

_RAW_MAKERS = {"Canon": "CR2", "NIKON": "NEF", "SONY": "ARW", "PENTAX": "PEF", "SAMSUNG": "SRW", "Hasselblad": "3FR"}


def of(data: bytes) -> str | None:
    """Return the name of the file's format, a key of `PILLOW_NAMES`; None if Trapline does not read it."""
    if data[4:8] == b"ftyp":
        brands = _brands(data)
        if brands & _AVIF:
            return "avif"
        return "heic" if brands & _HEIC else None
    signature = _SIGNATURE.match(data)
    return signature.lastgroup if signature else None


def name(data: bytes) -> str:
    """Return the name of the file's format.

    Raises:
        ImageError: Trapline does not read it; the kind says what it is, `not_an_image` if that is unknown.
    """
    if not data:
        raise ImageError("empty", "the file has no bytes")
    found = of(data)
    if found == "tiff" and tiff.is_raw(data):
        make = tiff.maker(data)
        kind = next((kind for maker, kind in _RAW_MAKERS.items() if make.upper().startswith(maker.upper())), "DNG")
        raise ImageError("raw_photo", f"a camera's RAW file ({kind}); {_CONVERT}")
    if found:
        return found
    if data[4:8] == b"ftyp":
        if _brands(data) & _RAW_BRANDS:
            raise ImageError("raw_photo", f"a camera's RAW file (CR3); {_CONVERT}")
        raise ImageError("video", "a video; extract its frames")
    beginning = _utf8(data)
    for pattern, kind, message in _OTHER:
        if pattern.match(beginning):
            raise ImageError(kind, message)
    raise ImageError("not_an_image", "the file is no JPEG, PNG, WebP, TIFF, GIF, BMP, AVIF or HEIC")


def _utf8(data: bytes) -> bytes:
    """Return the data; if it is text with a byte order mark, its beginning in UTF-8, without the mark."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data[:_TEXT_BYTES].decode("utf-16", "replace").encode()
    return data.removeprefix(b"\xef\xbb\xbf")


def _brands(data: bytes) -> set[bytes]:
    end = min(int.from_bytes(data[:4], "big"), len(data), 512)
    return {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}
