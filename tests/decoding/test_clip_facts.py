from datetime import datetime
from pathlib import Path

import pytest

from tests.support.clips import clip, decoded
from trapline.decoding.clip_facts import read


class TestTags:
    def test_the_time_is_the_cameras_with_its_zone_where_it_wrote_one(self, tmp_path: Path) -> None:
        tags = {
            "creation_time": "2024-05-01T12:00:00Z",
            "com.apple.quicktime.creationdate": "2024-05-01T14:00:00+0200",
            "com.apple.quicktime.make": "Apple",
            "com.apple.quicktime.location.ISO6709": "+48.1000-011.5000+520.0/",
        }
        data = clip(muxer="mov", tags=tags, options={"movflags": "use_metadata_tags"})
        _, facts = decoded(data, tmp_path)
        assert facts.captured_at == datetime(2024, 5, 1, 14)
        assert (facts.captured_at_offset, facts.captured_at_tag) == ("+02:00", "com.apple.quicktime.creationdate")
        assert (facts.camera_make, facts.latitude, facts.longitude) == ("Apple", 48.1, -11.5)

    def test_what_the_specification_calls_utc_is_utc(self, tmp_path: Path) -> None:
        for muxer, tag in (("mp4", "mvhd"), ("matroska", "DateUTC")):
            _, facts = decoded(clip(muxer=muxer, tags={"creation_time": "2024-05-01T12:00:00Z"}), tmp_path)
            found = (facts.captured_at, facts.captured_at_offset, facts.captured_at_tag)
            assert found == (datetime(2024, 5, 1, 12), "+00:00", tag)

    def test_no_time_is_invented(self, tmp_path: Path) -> None:
        for tags in ({}, {"creation_time": "1904-01-01T00:00:00Z"}, {"creation_time": "1970-01-01T00:00:00Z"}):
            _, facts = decoded(clip(tags=tags), tmp_path)
            assert (facts.captured_at, facts.captured_at_tag, facts.captured_at_offset) == (None, None, None)

    @pytest.mark.parametrize(
        ("tags", "expected"),
        [
            ({"creation_time": "2024-05-01 12:00:00"}, (datetime(2024, 5, 1, 12), "IDIT", None)),
            ({"date": "2024-05-01 12:00:00"}, (datetime(2024, 5, 1, 12), "ICRD", None)),
            ({"date": "2024-05-01"}, (None, None, None)),  # a day is no moment
            ({"date": "2024-13-01 12:00:00"}, (None, None, None)),
            ({"creation_time": "2001-01-01T00:00:00Z"}, (None, None, None)),
            ({"creation_time": "1980-01-01T00:00:05Z"}, (None, None, None)),
        ],
        ids=str,
    )
    def test_what_containers_write(self, tags: dict[str, str], expected: tuple[object, ...]) -> None:
        found = read(tags, "avi")
        assert (found.captured_at, found.captured_at_tag, found.captured_at_offset) == expected

    def test_a_place_may_have_a_name(self) -> None:
        found = read({"location": "+48.1000-011.5000/Isarauen"}, "3gp")
        assert (found.latitude, found.longitude) == (48.1, -11.5)

    def test_places_that_are_none(self) -> None:
        for text in ("", "+00.0000+000.0000/", "+95.0+010.0/", "north of the fen"):
            found = read({"location": text}, "mp4")
            assert (found.latitude, found.longitude) == (None, None)
