import hashlib
from pathlib import Path

import pytest

from tests.support.clips import MODEL, as_png, clip, decoded, drawn
from trapline.decoding.media import decode_media


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"\1" * 9000, "not_a_video"),
        (b"<html><body>404", "html_page"),
        (bytes(100), "zeros"),
        (bytes(9000) + b"\1", "not_a_video"),
    ],
)
def test_what_is_no_clip_says_what_it_is(data: bytes, kind: str, tmp_path: Path) -> None:
    found, facts = decoded(data, tmp_path)
    assert (found, facts.status, facts.media_type) == (None, "failed", "video")
    assert facts.error.partition(":")[0] == kind
    assert facts.content_sha256 == hashlib.sha256(data).digest()


def test_a_picture_that_is_named_like_a_clip_is_a_picture(tmp_path: Path) -> None:
    found, facts = decoded(as_png(drawn(0)), tmp_path)
    assert found is not None
    assert (facts.status, facts.format, facts.media_type, found.shape) == ("ok", "png", "image", (3, *MODEL))


def test_bytes_are_an_images_and_those_of_a_clip_say_so() -> None:
    assert decode_media(as_png(drawn(0)), MODEL)[1].status == "ok"
    found, facts = decode_media(clip(), MODEL)
    assert (found, facts.error) == (None, "video: a video; extract its frames")
