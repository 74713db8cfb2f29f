"""The demo's archive: photographs and two clips of six cameras at three sites, with the flaws of real archives.

Paths are Hive partitions, as in `site=heath/cam1/0001.tar`. Beside the archive lies `truth.csv`: which species is on
which picture.
"""

import csv
import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import ExifTags, Image, ImageDraw, ImageFont

from jobs.demo import clips
from jobs.demo.drawing.birds import SPECIES, Species
from jobs.demo.drawing.habitats import HABITATS, Colour
from jobs.demo.drawing.scenes import Size, draw_scene

FRAME = (640, 480)  # width and height of the photographs
_QUALITY = 85
_FIRST_DAY = datetime(2024, 5, 6)
_DAYS = 28


@dataclass(frozen=True)
class Camera:
    """A camera at its place, and the shards with its pictures.

    Attributes:
        site: the name of a habitat.
        name: no two cameras have the same.
        make: as EXIF has it and as the info strip shows it, on a `badge` of this colour.
        model: as EXIF has it.
        serial: as EXIF has it.
        gps: latitude and longitude in degrees.
        files: of its shards, of the formats that they end in; a name that ends in none is a folder.
    """

    site: str
    name: str
    make: str
    model: str
    serial: str
    badge: Colour
    gps: tuple[float, float] | None
    files: tuple[str, ...]

    @property
    def shards(self) -> list[str]:
        """Return the paths below the archive."""
        return [f"site={self.site}/{self.name}/{file}" for file in self.files]


_GREEN, _ORANGE = (34, 104, 62), (196, 92, 28)
CAMERAS = (
    Camera("heath", "cam1", "FERNSIGHT", "FS-4 Pro", "FS4-20931", _GREEN, (50.5712, -3.9168), ("0001.tar", "0002.tar")),
    Camera("heath", "cam2", "DUSKER", "NightOwl 2", "DN2-00417", _ORANGE, (50.5790, -3.9021), ("0001.parquet",)),
    # A camera whose owner never set its position: it writes 0, 0.
    Camera("marsh", "cam3", "DUSKER", "NightOwl 2", "DN2-00533", _ORANGE, (0.0, 0.0), ("card-a.zip", "card-b.zip")),
    Camera("marsh", "cam4", "FERNSIGHT", "FS-4", "FS4-18802", _GREEN, None, ("0001.tar",)),
    Camera("wood", "cam5", "DUSKER", "NightOwl", "DN1-11276", _ORANGE, None, ("visit-1", "visit-2")),
    Camera("wood", "cam6", "FERNSIGHT", "FS-4 Pro", "FS4-21044", _GREEN, (50.6033, -3.8815), ("0001.tar",)),
)


@dataclass(frozen=True)
class Photograph:
    """The truth about a picture. Names do not repeat within an archive."""

    name: str
    shard: str
    species: str
    night: bool
    captured_at: datetime


@dataclass(frozen=True)
class _File:
    name: str
    data: bytes
    written_at: datetime


# Files that pretend to be photographs: images all the same, that become `failed` rows.
BROKEN = (("IMG_9001.JPG", b""), ("IMG_9002.JPG", b"Card error. Reformat the card.\r\n"))
# The card was pulled out while its last picture was being written.
TRUNCATED = "site=marsh/cam3/card-b.zip"
_DS_STORE = b"\0\0\0\1Bud1"
_LEFT_BEHIND = {
    "site=marsh/cam3/card-a.zip": (("DCIM/.DS_Store", _DS_STORE), ("__MACOSX/._IMG_0001.JPG", b"\0\5\x16\7")),
    "site=wood/cam5/visit-1": (*BROKEN, (".DS_Store", _DS_STORE), ("Thumbs.db", b"\xd0\xcf\x11\xe0")),
}


# A trail camera films besides; these are no part of what `build_archive` returns.
CLIPS = (
    Photograph("CLIP_0001.AVI", "site=marsh/cam3/card-a.zip", SPECIES[0].name, False, datetime(2024, 5, 11, 7, 31, 5)),
    Photograph("CLIP_0002.AVI", "site=wood/cam5/visit-2", SPECIES[1].name, False, datetime(2024, 5, 25, 18, 2, 40)),
)


def build_archive(folder: Path, seed: int, images: int) -> list[Photograph]:
    """Draw an archive of `images` photographs into a folder, and write `truth.csv` beside it.

    The same seed gives the same bytes. The last picture of `TRUNCATED` breaks off; `BROKEN` ones and junk are extra.

    Returns:
        The truth, in the order of the pictures' names.
    """
    truth = list(_plan(seed, images))
    for camera in CAMERAS:
        for shard in camera.shards:
            taken = [each for each in truth if each.shard == shard]
            files = [_shot(camera, each, seed) for each in taken]
            if shard == TRUNCATED:
                files[-1] = replace(files[-1], data=files[-1].data[: len(files[-1].data) * 2 // 3])
            filmed = [each for each in CLIPS if each.shard == shard]
            files += [_filmed(camera, each, seed) for each in filmed]
            files += [_File(name, data, _FIRST_DAY) for name, data in _LEFT_BEHIND.get(shard, ())]
            _write(folder / shard, files, camera, {each.name: each.species for each in taken})
    with (folder.parent / "truth.csv").open("w", newline="") as stream:
        rows = csv.DictWriter(stream, [field.name for field in fields(Photograph)])
        rows.writeheader()
        rows.writerows(asdict(each) for each in truth)
    return truth


def photograph(
    rng: np.random.Generator, species: Species, night: bool, camera: Camera, moment: datetime, size: Size
) -> Image.Image:
    """Return a camera's photograph of a bird, RGB, with the info strip that it burns into the lower edge."""
    habitat = next(habitat for habitat in HABITATS if habitat.name == camera.site)
    image = draw_scene(rng, species, night, size, habitat)
    _burn_in(image, camera, moment, int(rng.integers(-2, 12) + 8 * (not night)))
    return image


def cameras_of(species: Species) -> list[Camera]:
    """Return the cameras that may see a bird."""
    return [camera for camera in CAMERAS if camera.site in species.habitats]


def _plan(seed: int, images: int) -> Iterator[Photograph]:
    """Plan which bird comes where and when; pictures are numbered by camera and time."""
    rng = np.random.default_rng(seed)
    homes = [(camera.site, shard) for camera in CAMERAS for shard in camera.shards]
    number = 1
    for place, (site, shard) in enumerate(homes):
        guests = [species for species in SPECIES if site in species.habitats]
        # A species is as likely everywhere together as any other.
        odds = np.array([1 / len(cameras_of(species)) for species in guests])
        visits = []
        for _ in range(place, images, len(homes)):
            species = guests[rng.choice(len(guests), p=odds / odds.sum())]
            night = bool(rng.random() < species.night_share)
            hour = rng.uniform(21.5, 28) if night else rng.uniform(5.5, 20)
            visits.append((_FIRST_DAY + timedelta(int(rng.integers(_DAYS)), round(hour * 3600)), species, night))
        for moment, species, night in sorted(visits, key=lambda visit: visit[0]):
            yield Photograph(f"IMG_{number:04}.JPG", shard, species.name, night, moment)
            number += 1


def _shot(camera: Camera, truth: Photograph, seed: int) -> _File:
    rng = np.random.default_rng([seed, int(truth.name[4:8])])
    species = next(species for species in SPECIES if species.name == truth.species)
    image = photograph(rng, species, truth.night, camera, truth.captured_at, FRAME)
    stream = io.BytesIO()
    exif = _exif(camera, truth.captured_at, int(rng.integers(1000)))
    image.save(stream, "JPEG", quality=_QUALITY, exif=exif)
    return _File(truth.name, stream.getvalue(), truth.captured_at)


def _filmed(camera: Camera, truth: Photograph, seed: int) -> _File:
    rng = np.random.default_rng([seed, int(truth.name[5:9]), 1])
    species = next(species for species in SPECIES if species.name == truth.species)
    habitat = next(habitat for habitat in HABITATS if habitat.name == camera.site)
    scene = draw_scene(rng, species, truth.night, clips.SCENE, habitat)
    data = clips.film(scene, truth.captured_at, lambda image, moment: _burn_in(image, camera, moment, 11))
    return _File(truth.name, data, truth.captured_at)


def _exif(camera: Camera, moment: datetime, milliseconds: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = camera.make
    exif[ExifTags.Base.Model] = camera.model
    shot = exif.get_ifd(ExifTags.IFD.Exif)
    shot[ExifTags.Base.DateTimeOriginal] = f"{moment:%Y:%m:%d %H:%M:%S}"
    shot[ExifTags.Base.SubsecTimeOriginal] = f"{milliseconds:03}"
    shot[ExifTags.Base.BodySerialNumber] = camera.serial
    if camera.gps:
        latitude, longitude = camera.gps
        position = exif.get_ifd(ExifTags.IFD.GPSInfo)
        position[ExifTags.GPS.GPSLatitudeRef] = "N" if latitude >= 0 else "S"
        position[ExifTags.GPS.GPSLatitude] = _degrees(latitude)
        position[ExifTags.GPS.GPSLongitudeRef] = "E" if longitude >= 0 else "W"
        position[ExifTags.GPS.GPSLongitude] = _degrees(longitude)
    return exif


def _degrees(angle: float) -> tuple[float, float, float]:
    """Return degrees, minutes and seconds."""
    minutes, seconds = divmod(round(abs(angle) * 3600, 2), 60)
    return float(minutes // 60), float(minutes % 60), seconds


def _burn_in(image: Image.Image, camera: Camera, moment: datetime, celsius: int) -> None:
    """Draw maker, moon, temperature, station and time in a black strip over the lower edge."""
    width, height = image.size
    tall = max(4, round(height * 0.055))
    middle, font, pen = height - tall / 2, _font(tall * 0.62), ImageDraw.Draw(image)
    pen.rectangle((0, height - tall, width, height), "black")
    end = tall * 0.7 + font.getlength(camera.make)
    pen.rounded_rectangle((tall * 0.2, height - tall * 0.86, end, height - tall * 0.14), tall * 0.3, camera.badge)
    pen.text((tall * 0.45, middle), camera.make, "white", font, anchor="lm")
    pen.text((end + tall * 1.4, middle), f"{celsius}°C", "white", font, anchor="lm")
    stamp = f"{camera.site} {camera.name}   {moment:%Y-%m-%d  %H:%M:%S}"
    pen.text((width - tall * 0.4, middle), stamp, "white", font, anchor="rm")
    # The moon as cameras compute it: days since a new moon, over the length of a month. Its shadow moves over the disc.
    phase = (moment - datetime(2000, 1, 6)).days / 29.53 % 1
    x, radius = end + tall * 0.8, tall * 0.28
    pen.circle((x, middle), radius, "white")
    pen.circle((x - 4 * radius * (phase if phase < 0.5 else phase - 1), middle), radius, "black")
    pen.circle((x, middle), radius, outline="white")


@cache
def _font(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # the bitmap font is for builds of Pillow without FreeType
    return font


def _write(path: Path, files: list[_File], camera: Camera, species: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        _write_zip(path, files)
    elif path.suffix == ".parquet":
        images = [{"bytes": file.data, "path": file.name} for file in files]
        pq.write_table(pa.table({"image": images}), path)
    elif path.suffix == ".tar":
        _write_tar(path, _with_sidecars(files, camera, species))
    else:
        path.mkdir()
        for file in files:
            (path / file.name).write_bytes(file.data)


def _with_sidecars(files: Iterable[_File], camera: Camera, species: dict[str, str]) -> Iterator[_File]:
    """Yield files as WebDataset orders them: each picture, then its JSON sidecar under the same name."""
    for file in files:
        known = {"site": camera.site, "camera": camera.name, "species": species[file.name]}
        yield file
        yield _File(f"{Path(file.name).stem}.json", json.dumps(known).encode(), file.written_at)


def _write_tar(path: Path, files: Iterable[_File]) -> None:
    with tarfile.open(path, "w") as tar:
        for file in files:
            member = tarfile.TarInfo(file.name)
            member.size, member.mtime = len(file.data), int(file.written_at.timestamp())
            tar.addfile(member, io.BytesIO(file.data))


def _write_zip(path: Path, files: Iterable[_File]) -> None:
    """Write a zip as an SD card is zipped up: pictures below DCIM."""
    with zipfile.ZipFile(path, "w") as card:
        for file in files:
            name = file.name if "/" in file.name else f"DCIM/100TRAIL/{file.name}"
            card.writestr(zipfile.ZipInfo(name, file.written_at.timetuple()[:6]), file.data)
