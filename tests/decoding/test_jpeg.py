"""JPEGs: the decoders agree with Pillow, and what is damaged is seen, named, and kept as far as it goes."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from tests.support.archives import jpeg
from tests.support.pictures import encoded, soft, with_noise
from trapline.decoding.decode import Facts, decode
from trapline.decoding.jpeg import END_OF_IMAGE, breaks_off, decode_reduced, read_header, runs_on
from trapline.decoding.jpeg import decode as decode_exactly
from trapline.errors import ImageError

SIZE = (320, 240)
START_OF_SCAN = b"\xff\xda"


def photo(seed: int = 0, **options: object) -> bytes:
    """A picture with detail everywhere, so that its scan is long."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    return encoded(small.resize((640, 480)), "JPEG", quality=90, **options)


def full_size(data: bytes) -> tuple[torch.Tensor | None, Facts]:
    header = read_header(data)
    return decode(data, (header.height, header.width))


def same_rows(picture: torch.Tensor, whole: torch.Tensor) -> int:
    """Rows from the top that are equal."""
    equal = (picture == whole).all(dim=2).all(dim=0)
    return int(equal.int().cumprod(0).sum())


class TestTheHeader:
    def test_says_what_pillow_says(self) -> None:
        for image, options in ((soft(), {}), (soft().convert("L"), {}), (soft().convert("CMYK"), {}), (soft(), {"progressive": True})):  # fmt: skip
            header = read_header(encoded(image, "JPEG", **options))
            assert (header.width, header.height, header.components) == (*image.size, len(image.getbands()))
            assert header.progressive == bool(options)
            assert header.has_one_scan == (not options)
            assert not header.ended

    def test_never_raises_wherever_the_file_ends(self) -> None:
        data = jpeg(0, (32, 24))
        for end in range(3, len(data)):
            header = read_header(data[:end])
            assert breaks_off(data[:end], header)
            assert header.ended == (header.scan is None)

    @pytest.mark.parametrize(("marker", "message"), [(0xC3, "a lossless JPEG"), (0xC0, "a JPEG of 12 bits a sample")])
    def test_of_a_kind_that_no_decoder_here_reads_is_named(self, marker: int, message: str) -> None:
        data = bytearray(jpeg(0))
        frame = data.index(b"\xff\xc0")
        data[frame + 1] = marker
        data[frame + 4] = 12
        pixels, facts = full_size(bytes(data))
        assert pixels is None
        assert str(facts.error).startswith(f"unsupported: {message}")


def test_exif_that_only_the_decoder_believes_turns_nothing() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    data = encoded(soft(), "JPEG", exif=turned)
    assert torch.equal(decode_exactly(data, read_header(data)), pil_to_tensor(Image.open(io.BytesIO(data))))


def test_a_picture_shrunk_by_its_decoder_is_no_smaller_than_asked() -> None:
    data = jpeg(1, (1600, 1200))
    for at_least, expected in (((1200, 1600), (1200, 1600)), ((600, 500), (600, 800)), ((96, 64), (150, 200)), ((5000, 5000), (1200, 1600))):  # fmt: skip
        picture = decode_reduced(data, read_header(data), at_least)
        assert picture is not None
        assert tuple(picture.shape) == (3, *expected)


class TestDamage:
    @pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 8}, {"subsampling": "4:4:4"}])
    def test_inside_of_the_scan_is_salvaged_with_the_rows_before_it(self, options: dict[str, object]) -> None:
        for seed in range(12):
            whole = photo(seed, **options)
            scan = read_header(whole).scan
            assert scan
            at = scan + int(np.random.default_rng(seed).integers(1000, len(whole) - scan - 4098))
            picture, facts = full_size(with_noise(whole, at, 4096, seed))
            sound, _ = full_size(whole)
            assert picture is not None
            assert sound is not None
            assert facts.status == "salvaged"
            assert str(facts.error).startswith("corrupt: damaged (")
            # A row of blocks may be cut, and colours blend over its edge.
            assert same_rows(picture, sound) >= 480 * (at - scan) / (len(whole) - scan) - 40

    def test_of_a_progressive_picture_leaves_less_detail(self) -> None:
        for seed in range(8):
            whole = photo(seed, progressive=True)
            picture, facts = full_size(with_noise(whole, len(whole) * 3 // 4, 4096, seed))
            sound, _ = full_size(whole)
            assert picture is not None
            assert sound is not None
            assert facts.status == "salvaged"
            assert float((picture.float() - sound.float()).abs().mean()) < 25

    def test_of_which_the_decoder_only_warned_is_flagged(self) -> None:
        flagged = 0
        for seed in range(30):
            whole = bytearray(photo(seed))
            at = len(whole) // 2
            whole[at : at + 64] = bytes(np.random.default_rng(seed).integers(0, 255, 64, dtype=np.uint8))  # no marker
            picture, facts = full_size(bytes(whole))
            assert picture is not None
            flagged += facts.status == "salvaged"
        assert flagged >= 25  # the rest makes as many blocks of other colours, which no decoder notices

    def test_is_seen_by_the_faster_ways_too(self) -> None:
        whole = photo(3)
        damaged = with_noise(whole, len(whole) // 2, 512)
        exact, facts = decode(damaged, (64, 64))
        fast, fast_facts = decode(damaged, (64, 64), "fastest")
        assert facts == fast_facts
        assert facts.status == "salvaged"
        assert exact is not None
        assert fast is not None
        assert torch.equal(exact, fast)

    def test_that_is_another_file_is_where_the_picture_breaks_off(self) -> None:
        whole = photo(1)
        half = whole[: len(whole) // 2]
        joined = half + photo(2)
        assert runs_on(joined, read_header(joined))
        picture, facts = full_size(joined)
        cut, _ = full_size(half)
        assert picture is not None
        assert cut is not None
        assert facts.status == "salvaged"
        assert str(facts.error).startswith("truncated: the file breaks off, 2")
        assert torch.equal(picture, cut)


class TestHarmless:
    @pytest.mark.parametrize("padding", [b"\x01", bytes(20), b"\xff" * 30])
    def test_are_bytes_that_cameras_leave_before_the_end_marker(self, padding: bytes) -> None:
        whole = photo()
        picture, facts = full_size(whole.removesuffix(END_OF_IMAGE) + padding + END_OF_IMAGE)
        assert (facts.status, facts.error) == ("ok", None)
        assert picture is not None
        assert torch.equal(picture, pil_to_tensor(Image.open(io.BytesIO(whole))))

    def test_are_odd_versions_in_the_header(self, capfd: pytest.CaptureFixture[str]) -> None:
        whole = bytearray(photo())
        assert whole[6:11] == b"JFIF\0"
        whole[11] = 9
        for mode in ("exact", "fast"):
            assert decode(bytes(whole), (64, 64), mode)[1].error is None  # type: ignore[arg-type]
        assert capfd.readouterr().err == ""

    def test_is_what_other_code_writes_to_stderr(self) -> None:
        from trapline.decoding.jpeg import damage

        whole = photo()
        assert damage(whole, read_header(whole), "Corrupt JPEG data: says another thread of another picture") is None


def flat(colour: tuple[int, ...], mode: str = "RGB") -> bytes:
    return encoded(Image.new(mode, SIZE, colour), "JPEG")


class TestFlatContent:
    @pytest.mark.parametrize("data", [flat((0, 0, 0)), flat((128, 128, 128)), flat((255, 255, 255)), flat((1, 2, 3, 4), "CMYK"), flat((128,), "L")])  # fmt: skip
    def test_is_not_missing_where_only_the_end_marker_is(self, data: bytes) -> None:
        picture, facts = full_size(data.removesuffix(END_OF_IMAGE))
        sound, sound_facts = full_size(data)
        assert picture is not None
        assert sound is not None
        assert sound_facts.status == "ok"
        assert (facts.status, facts.error) == ("salvaged", "truncated: the file breaks off, 0 of 240 rows are missing")
        assert torch.equal(picture, sound)

    def test_is_kept_as_far_as_it_goes(self) -> None:
        black = flat((0, 0, 0))
        scan = read_header(black).scan
        assert scan
        picture, facts = full_size(black[: (scan + len(black)) // 2])
        assert facts.status == "salvaged"
        assert picture is not None
        assert 80 < int((picture == 0).all(dim=2).all(dim=0).sum()) < 160

    def test_of_which_nothing_is_there_is_failed(self) -> None:
        data = photo()
        scan = read_header(data).scan
        pixels, facts = full_size(data[:scan])
        assert pixels is None
        assert facts.error == "truncated: the file breaks off before its first row of pixels"


def test_the_decoders_agree_on_real_photographs(photographs: Path) -> None:
    for path in sorted(photographs.rglob("*.[jJ][pP][gG]"))[::7]:
        data = path.read_bytes()
        header = read_header(data)
        if header.components == 3 and not breaks_off(data, header):
            exact = decode_exactly(data, header)
            reduced = decode_reduced(data, header, (header.height, header.width))
            assert reduced is not None
            assert torch.equal(exact, reduced), path


def test_more_scans_than_an_encoder_writes_are_refused() -> None:
    from trapline.decoding.jpeg import refuse_endless_scans

    data = jpeg(0, progressive=True) + (START_OF_SCAN + bytes(10)) * 200
    with pytest.raises(ImageError, match="more than 100 scans"):
        refuse_endless_scans(data, read_header(data))


class TestZerosWithinTheScan:
    """What a card gives for a sector that it has lost."""

    @pytest.mark.parametrize("mode", ["exact", "close", "fast"])
    @pytest.mark.parametrize("place", [0.05, 0.3, 0.5, 0.8, 0.97])
    def test_are_damage(self, place: float, mode: str) -> None:
        data = photo()
        at = int(len(data) * place)
        _, facts = decode(data[:at] + bytes(512) + data[at + 512 :], (64, 64), mode=mode)
        assert (facts.status, (facts.error or "")[:16]) == ("salvaged", "corrupt: damaged")

    @pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}, {"subsampling": 0}])
    @pytest.mark.parametrize("image", [Image.new("RGB", (1600, 1200)), Image.new("L", (1600, 1200), 99)])
    def test_are_none_where_they_are_picture(self, image: Image.Image, options: dict[str, object]) -> None:
        _, facts = decode(encoded(image, "JPEG", **options), (64, 64))
        assert (facts.status, facts.error) == ("ok", None)

    def test_behind_the_picture_are_none(self) -> None:
        assert decode(photo() + bytes(5000), (64, 64))[1].status == "ok"
        assert bytes(64) in encoded(
            Image.new("L", (1600, 1200), 99), "JPEG", optimize=True
        )  # which the test above needs


def test_segments_without_number_cost_no_time() -> None:
    sound = jpeg(1)
    data = sound[:2] + b"\xff\xe1\0\2" * 300_000 + sound[2:]
    before, after = read_header(sound), read_header(data)
    assert len(after.applications) == 300_000  # which took hours where each made a longer tuple
    assert before.scan is not None
    assert after.scan == before.scan + 4 * 300_000


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (1, b"\xc5", "a hierarchical JPEG"),
        (1, b"\xce", "a hierarchical JPEG"),
        (9, b"\2", "a JPEG of 2 colour channels"),
        (9, b"\5", "a JPEG of 5 colour channels"),
        (5, b"\0\0", "a JPEG that does not state its height"),
    ],
)
def test_a_sound_jpeg_that_no_decoder_reads_is_not_called_damaged(place: int, value: bytes, message: str) -> None:
    data = photo()
    at = data.index(b"\xff\xc0") + place
    data = data[:at] + value + data[at + len(value) :]
    assert str(decode(data, SIZE)[1].error).startswith(f"unsupported: {message}")
