"""The files that a user writes for an archive: where each camera stood, who made the study, and which birds occur."""

import csv
from pathlib import Path

from jobs.demo.archive import CAMERAS
from jobs.demo.drawing.birds import SPECIES

DEPLOYMENTS, PROJECT, SPECIES_LIST = "deployments.csv", "project.yaml", "species.csv"
# The archive is of one spring in one place.
TIMEZONE = "Europe/London"

_START, _MOVED, _END = "2024-05-06T00:00:00", "2024-05-20T12:00:00", "2024-06-03T12:00:00"
# By camera the period and place of each of its deployments; cam5 was moved. Most cameras do not write where they are.
_STANDS = {
    "cam1": [(_START, _END, 50.5712, -3.9168)],
    "cam2": [(_START, _END, 50.5790, -3.9021)],
    "cam3": [(_START, _END, 50.5547, -3.8702)],
    "cam4": [(_START, _END, 50.5561, -3.8644)],
    "cam5": [(_START, _MOVED, 50.6012, -3.8890), (_MOVED, _END, 50.6080, -3.8951)],
    "cam6": [(_START, _END, 50.6033, -3.8815)],
}

_PROJECT = """\
# What the pictures cannot tell, in the words of https://camtrap-dp.tdwg.org/metadata
title: Birds that do not exist
version: "1.0"
contributors:
  - title: Ada Example
    email: ada@example.org
    role: contact
licenses:
  - name: CC0-1.0
    scope: data
  - name: CC-BY-4.0
    scope: media
project:
  title: Birds that do not exist
  samplingDesign: opportunistic
  captureMethod: [activityDetection]
  individualAnimals: false
"""


def write(folder: Path) -> None:
    """Write the deployments, the project and the species list into a folder; existing files are kept."""
    columns = ("deploymentID", "locationName", "cameraID", "cameraModel", "latitude", "longitude")
    periods = ("deploymentStart", "deploymentEnd")
    rows = [
        (f"{camera.name}-{number}", camera.site, camera.name, f"{camera.make}-{camera.model}", *place, start, end)
        for camera in CAMERAS
        for number, (start, end, *place) in enumerate(_STANDS[camera.name], 1)
    ]
    _write_csv(folder / DEPLOYMENTS, [(*columns, *periods), *rows])
    homes = [(species.name, f"site={site}") for species in SPECIES for site in species.habitats]
    _write_csv(folder / SPECIES_LIST, [("species", "deployment"), *homes])
    if not (folder / PROJECT).exists():
        (folder / PROJECT).write_text(_PROJECT)


def _write_csv(path: Path, rows: list[tuple[object, ...]]) -> None:
    if not path.exists():
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows(rows)
