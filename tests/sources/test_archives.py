import io
from collections import Counter
from collections.abc import Callable

import pytest

from tests.support.reading import tar_bytes, zip_bytes
from trapline.errors import ImageError
from trapline.sources import limits
from trapline.sources.archives import image_members, wanted
from trapline.sources.members import Member

MEMBERS = {"a.jpg": b"a", "a.json": b"{}", "card.zip": b"z", "@eaDir/a.jpg": b"x", "@eaDir/b.zip": b"", "x.txt": b"x"}


@pytest.mark.parametrize(("kind", "pack"), [("tar", tar_bytes), ("zip", zip_bytes)])
def test_both_formats_give_the_same_members(kind: str, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    members = image_members(io.BytesIO(pack(MEMBERS)), kind)
    first, nested = members
    assert (first.name, first.size, first.read()) == ("a.jpg", 1, b"a")
    assert (nested.name, nested.size) == ("card.zip", 0)
    with pytest.raises(ImageError, match="archive inside an archive"):
        nested.read()


def test_what_gives_no_row_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_SIDECAR_BYTES", 10)
    found = [
        Member("a.jpg", 1000, True, bytes),
        Member("link.jpg", 0, False, bytes),
        Member("a.json", 10, True, bytes),
        Member("b.json", 11, True, bytes),
        Member(".Trash-1000/a.jpg", 1, True, bytes),
        Member("clip.AVI", 1, True, bytes),
    ]
    ignored: Counter[str] = Counter()
    assert [member.name for member in wanted(found, ignored)] == ["a.jpg", "a.json", "clip.AVI"]
    assert ignored == {"(link or device)": 1, limits.SIDECAR_TOO_LARGE: 1, ".Trash-1000": 1}
    ignored.clear()
    assert [member.name for member in wanted(found, ignored, clips=False)] == ["a.jpg", "a.json"]
    assert ignored[".avi"] == 1
