"""The directories of TIFFs, in both byte orders and both sizes."""

import pytest

from tests.support.pictures import encoded, soft, tiff
from trapline.decoding.tiff import breaks_off, directories, is_raw, maker


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("big", [False, True])
def test_the_first_directory_has_the_pictures_size(order: str, big: bool) -> None:
    first = next(directories(tiff(soft(), order, big)))
    assert first.is_whole
    assert (first.numbers[256], first.numbers[257], first.numbers[258]) == ((67,), (49,), (8, 8, 8))


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("tiled", [False, True])
def test_a_tiff_is_whole_to_its_last_byte(order: str, big: bool, tiled: bool) -> None:
    data = tiff(soft(), order, big, tiled)
    assert not breaks_off(data)
    assert all(breaks_off(data[:end]) for end in range(16, len(data), 97))


def test_an_ordinary_tiff_is_no_raw_photograph() -> None:
    data = encoded(soft(), "TIFF", tiffinfo={271: "NIKON CORPORATION"})
    assert not is_raw(data)
    assert maker(data) == "NIKON CORPORATION"
