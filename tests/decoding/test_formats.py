"""A file is read by its first bytes, or named for what it is."""

import gzip
import io
import struct
import zipfile
import zlib
from base64 import b64encode, b85decode
from datetime import datetime

import numpy as np
import pi_heif
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from tests.support.archives import jpeg
from tests.support.pictures import encoded, soft, tiff
from trapline.decoding import formats
from trapline.decoding.decode import decode
from trapline.errors import ImageError

SIZE = (96, 64)


def ftyp(*brands: bytes) -> bytes:
    body = brands[0] + bytes(4) + b"".join(brands[1:])
    return struct.pack(">I", 8 + len(body)) + b"ftyp" + body + struct.pack(">I", 16) + b"mdat" + bytes(8)


def zipped() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a.jpg", jpeg(0))
    return sink.getvalue()


def kind(data: bytes) -> str:
    with pytest.raises(ImageError) as error:
        formats.name(data)
    assert error.value.message
    pixels, facts = decode(data, SIZE)
    assert pixels is None
    assert facts.error == str(error.value)
    return error.value.kind


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xff\x0a\xfa\x1f\x01\x91\x08\x06" + bytes(40), "jpeg_xl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl " + bytes(40), "jpeg_xl"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "jpeg_2000"),
        (ftyp(b"crx ", b"crx ", b"isom"), "raw_photo"),
        (b"IIRO\x08\0\0\0" + bytes(40), "raw_photo"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(40), "raw_photo"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(40), "raw_photo"),
        (tiff(soft(), t50706=[0x01040000]), "raw_photo"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "lfs_pointer"),
        (b"version https://hawser.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "lfs_pointer"),
        (b"/annex/objects/SHA256E-s12345--4d7a.jpg\n", "annex_pointer"),
        (b"../../.git/annex/objects/aa/bb/SHA256E-s1--4d.jpg/SHA256E-s1--4d.jpg", "annex_pointer"),
        (b"L\0\0\0\x01\x14\x02\0\0\0\0\0\xc0\0\0\0", "shortcut"),
        (b"[InternetShortcut]\r\nURL=http://localhost/1.jpg\r\n", "shortcut"),
        (b64encode(jpeg(1)), "base64"),
        (b"data:image/png;base64,iVBORw0KGgo", "base64"),
        (b"<meta charset=utf-8><title>Error 404</title>", "html_page"),
        (b"<h1>Not Found</h1>", "html_page"),
        (b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN">', "html_page"),
        ("<html><body>Bad Gateway</body></html>".encode("utf-16"), "html_page"),
        (b'\xef\xbb\xbf{"error": "expired"}', "json"),
        (b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>", "html_page"),
        (b"\xef\xbb\xbf\r\n  <HTML>\n<BODY>Sign in</BODY></HTML>", "html_page"),
        (b"<!-- saved from a portal -->\n<html lang='en'>", "html_page"),
        (b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>', "xml"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "svg"),
        (b'{"error": "not found"}', "json"),
        (ftyp(b"isom", b"mp42"), "video"),
        (ftyp(b"qt  "), "video"),
        (b"RIFF\x10\0\0\0AVI LIST" + bytes(100), "video"),
        (b"\x1a\x45\xdf\xa3" + bytes(40), "video"),
        (b"RIFF\x10\0\0\0WAVEfmt " + bytes(100), "audio"),
        (b"%PDF-1.7\n" + bytes(40), "pdf"),
        (zipped(), "archive"),
        (gzip.compress(b"a" * 100, mtime=0), "archive"),
        (encoded(Image.new("RGB", (8, 8)), "EPS"), "postscript"),
        (encoded(Image.new("RGB", (8, 8)), "ICO"), "icon"),
        (b"8BPS\0\1" + bytes(40), "photoshop"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X        ", "resource_fork"),
        (bytes(1000), "zeros"),
        (b"This is not a picture.\n" * 50, "not_an_image"),
        (b"BMW drove past at 3 am, see the next picture.", "not_an_image"),
        (b"", "empty"),
    ],
)
def test_what_is_not_read_is_named(data: bytes, expected: str) -> None:
    assert kind(data) == expected


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("photometric", [32803, 34892])
def test_the_thumbnail_of_a_raw_photograph_is_not_taken_for_the_photograph(order: str, photometric: int) -> None:
    """NEF, ARW and DNG are TIFFs whose first page is a thumbnail, and whose sub-directory holds the sensor's values."""
    whole = tiff(soft(), order)
    end = "<" if order == "II" else ">"
    sub = struct.pack(f"{end}HHHIII", 1, 262, 4, 1, photometric, 0)
    data = tiff(soft(), order, t330=[len(tiff(soft(), order, t330=[0]))]) + sub
    assert decode(whole, SIZE)[1].status == "ok"
    assert kind(data) == "raw_photo"


def test_pages_that_point_in_circles_end() -> None:
    data = tiff(soft(), t330=[0])
    directory = struct.unpack_from("<I", data, 4)[0]
    assert decode(tiff(soft(), t330=[directory]), SIZE)[1].status == "ok"


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("lzw", [False, True])
def test_tiffs_of_every_layout_are_read(order: str, tiled: bool, lzw: bool) -> None:
    picture = soft(1, (150, 90))
    for big in (False, True):
        pixels, facts = decode(tiff(picture, order, big, tiled, lzw), (90, 150))
        if big and order == "MM":
            assert str(facts.error).startswith("unsupported: a BigTIFF in big-endian order")
        else:
            assert (facts.status, facts.format) == ("ok", "tiff")
            assert pixels is not None
            assert torch.equal(pixels, pil_to_tensor(picture))


def test_avif_is_read() -> None:
    data = encoded(soft(1, (150, 90)), "AVIF", quality=95)
    pixels, facts = decode(data, (90, 150))
    assert (facts.status, facts.format, facts.width, facts.height) == ("ok", "avif", 150, 90)
    assert pixels is not None
    assert torch.equal(pixels, pil_to_tensor(Image.open(io.BytesIO(data)).convert("RGB")))


# Of 64 x 48 pixels, blue to the left and red to the right, with EXIF; nothing that the tests install encodes HEVC.
HEIC = (
    "c-mc2J4*vW5T3mw#}yg{BSaBNKqLf<OYlXi;G<9o_y<JK%^kORmn=yL5t{@Au@ehRvC-C6Eqs8#!A3+7D;sSLK@!f{%_)-MX6Ku4zTMfI1%NTT"
    "vcnyVQ9$#Uof6n%rVT)DJgZ_t*WymzEd>}jqZR0}Y33H?Axl|MfCxlhyAf>yIW$H4V^-1U87tT_6V+i%EGa{cQ>7{RM-m}ft}!VOb5`*nP(p|C"
    "636(=I4xqV;@(A~3hGdb#y_FmX|(_b)J@zG&5}Oi`$C`!g(|-BYb9%9F}XlUPvtb$2pzw_onKw*juAsj6$`|-P_8YJ`|{lZHW{Ktw^X2R4cUIs"
    ">PSUcnOni{W&=-9*W>{fmp6hahv57EXE2OG&T34Ms;=u8qKtdLZ$W^B8j2d)Lp;h#mL2e6nlDp1d~ssc%bVhrVhM6FQvX;vyY*i-9(KQ;zPIDG"
    "_2z#2a_*#gH2WwzYTe1^a*)JK2ZapCTWIK$BrS0SeM+=hbBYBE(nfkZW6WfXRLq#o7;_n89)18MF>LY"
)


def test_heic_is_read() -> None:
    pixels, facts = decode(zlib.decompress(b85decode(HEIC)), (48, 64))
    assert (facts.status, facts.format, facts.width, facts.height) == ("ok", "heic", 64, 48)
    assert (facts.captured_at, facts.captured_at_tag, facts.camera_make) == (
        datetime(2024, 5, 1, 6, 7, 8),
        "DateTime",
        "Phone",
    )
    assert pixels is not None
    for half, colour in ((pixels[:, :, :24], (40, 80, 200)), (pixels[:, :, 40:], (200, 60, 40))):
        assert (half.float().mean(dim=(1, 2)) - torch.tensor(colour)).abs().max() < 8


def test_a_heic_cut_short_is_truncated() -> None:
    data = zlib.decompress(b85decode(HEIC))
    for end in (40, 300, len(data) - 1):
        assert str(decode(data[:end], SIZE)[1].error).startswith("truncated: ")


def test_the_brand_tells_avif_and_heic_apart() -> None:
    assert formats.of(ftyp(b"mif1", b"mif1", b"avif")) == "avif"
    assert formats.of(ftyp(b"mif1", b"mif1", b"heic")) == "heic"
    assert formats.of(ftyp(b"heic", b"mif1")) == "heic"
    assert formats.of(ftyp(b"mp42", b"isom")) is None


def test_every_format_that_is_read_has_a_decoder() -> None:
    pi_heif.register_heif_opener()
    Image.init()
    assert {name.upper() for name in formats.PILLOW_NAMES.values()} <= {*Image.OPEN}


def test_a_heic_that_is_damaged_is_one_line() -> None:
    data = ftyp(b"heic", b"mif1", b"heic") + np.random.default_rng(0).bytes(500)
    pixels, facts = decode(data, SIZE)
    assert (pixels, facts.status, facts.format) == (None, "failed", "heic")
    assert "\n" not in str(facts.error)
