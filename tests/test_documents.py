"""The commands of the documents are run as they stand there, on a small archive; not those for clusters and GPUs."""

import json
import os
import re
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from PIL import Image

from tests.support.archives import jpeg, write_tar
from tests.support.checkout import ROOT
from tests.support.servers import RAY_ENV

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# These lines are what runs the tests, or installs what they run with.
_SET_UP = ("make ", "pip install ", ".venv/bin/")
_MODEL = "birder-project/hiera_abswin_base_mim-intermediate-eu-common"
_PROJECT = """
title: Fen 2024
contributors: [{title: Ada, role: contact}]
licenses: [{name: CC0-1.0, scope: data}, {name: CC-BY-4.0, scope: media}]
project:
  title: Fens
  samplingDesign: targeted
  captureMethod: [activityDetection]
  individualAnimals: false
"""


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page that are marked with exactly this."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def lines(page: Path, language: str = "sh") -> list[str]:
    return [line.partition("  #")[0].strip() for block in blocks(page, language) for line in block.splitlines()]


def picture(seed: int, when: datetime) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = f"{when:%Y:%m:%d %H:%M:%S}"
    return jpeg(seed, exif=exif.tobytes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """What the commands take: an archive, a model, and the files that an ecologist has."""
    here = tmp_path_factory.mktemp("documents")
    start = datetime(2024, 6, 1, 4, 30)
    for number, camera in enumerate(("site=fen/cam1", "site=fen/cam2", "site=heath/cam3")):
        members = {f"DCIM/{n}.jpg": picture(10 * number + n, start + timedelta(minutes=n * n)) for n in range(5)}
        write_tar(here / f"archive/{camera}/0001.tar", members)
    (here / "model.pt").write_bytes(tiny_model.read_bytes())
    box = {"category": "1", "conf": 0.9, "bbox": [0.1, 0.1, 0.5, 0.5]}
    images = [{"file": "site=fen/cam1/0001.tar/DCIM/0.jpg", "detections": [box]}]
    found = {"images": images, "detection_categories": {"1": "animal"}, "info": {"format_version": "1.3"}}
    (here / "md.json").write_text(json.dumps(found))
    (here / "project.yaml").write_text(_PROJECT)
    (here / "species.csv").write_text("species\nspecies 0\nspecies 1\nspecies 2\n")
    rows = "".join(
        f"{site},5.1,51.2,2024-05-01T00:00:00Z,2024-07-01T00:00:00Z\n"
        for site in ("fen/cam1", "fen/cam2", "heath/cam3")
    )
    (here / "deployments.csv").write_text(f"deploymentID,longitude,latitude,deploymentStart,deploymentEnd\n{rows}")
    return here


def test_the_pages_link_to_what_is_there() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_is_short_and_begins_with_commands() -> None:
    text = (ROOT / "README.md").read_text().splitlines()
    assert len(text) <= 130
    assert "```sh" in text[:40]


def test_the_set_up_lines_name_targets_that_the_makefile_has() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    used = [line.split()[1] for page in PAGES for line in lines(page) if line.startswith("make ")]
    assert {"demo", "test", "test-slow"} <= {*used} <= {*targets}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_commands_run_as_they_stand(folder: Path) -> None:
    """README first: its `classify` writes the results that the other pages' commands read."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | RAY_ENV | {"PATH": path, "PYTHONPATH": str(ROOT / "pipeline")}
    ran = []
    for page in PAGES:
        for line in lines(page):
            if not line or line.startswith(_SET_UP):
                continue
            command = line.replace(_MODEL, "model.pt").replace(
                "IMAGE_URI", f"{folder}/archive/site=fen/cam1/0001.tar#DCIM/0.jpg"
            )
            done = subprocess.run(
                ["bash", "-euc", command], cwd=folder, env=env, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{page.name}: {line}\n{done.stdout}\n{done.stderr}"
            ran.append(line.split()[1])
    assert {"classify", "events", "rescore", "report", "export-camtrapdp", "search", "duplicates"} <= {*ran}
    assert (folder / "report.html").exists()
    assert (folder / "package/datapackage.json").exists()
