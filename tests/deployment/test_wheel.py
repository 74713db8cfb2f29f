"""The wheel, and a checkout in its place: in folders that have a `pipeline/` and `jobs/` of their own, and on clusters."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import duckdb
import pytest

from tests.support.archives import pictures, write_tar
from tests.support.checkout import ROOT
from tests.support.servers import RAY_ENV, SCRIPTS, ray_head

PACKAGES = Path(pytest.__file__).parents[1]
# In a process of its own, because it builds in the folder where it stands.
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | RAY_ENV


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the wheel is built from, and of the entry points: building leaves folders behind."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in ("pipeline", "jobs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = [sys.executable, "-c", BUILD, str(folder)]
    subprocess.run(built, cwd=checkout, env=CLEAN, capture_output=True, text=True, check=True)
    (path,) = folder.glob("*.whl")
    return path


def environment(folder: Path) -> Path:
    """An environment with all packages of this one but Trapline; the result is its interpreter."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for entry in PACKAGES.iterdir():
        if "trapline" not in entry.name and entry.name != "__pycache__":
            (packages / entry.name).symlink_to(entry)
    python = folder / "bin" / "python"
    found = subprocess.run(
        [python, "-c", "import ray, trapline"], env=CLEAN, capture_output=True, text=True, check=False
    )
    assert "No module named 'trapline'" in found.stderr
    return python


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    python = environment(tmp_path_factory.mktemp("installed"))
    install = [SCRIPTS / "uv", "pip", "install", "--offline", "--no-deps", "--python", python, wheel]
    subprocess.run(install, env=CLEAN, capture_output=True, text=True, check=True)
    return python


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Iterator[Path]:
    """A folder of somebody else's project, whose names are those of our folders, with an archive and a model in it."""
    folder = tmp_path / "project"
    for name in ("pipeline", "jobs"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise ImportError('this is another project')\n")
    write_tar(folder / "archive/cam1/0001.tar", pictures(4))
    shutil.copy(tiny_model, folder / "model.pt")
    return folder


def test_the_package_is_all_that_the_wheel_holds(wheel: Path) -> None:
    source = {
        str(path.relative_to(ROOT / "pipeline"))
        for path in (ROOT / "pipeline/trapline").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        described = message_from_bytes(archive.read(metadata))
    assert {name for name in names if not name.startswith(metadata.partition("/")[0])} == source
    assert {"trapline/py.typed", "trapline/analysis/report/page.html"} < source
    assert described["Author"]
    assert described["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in described.get_all("Classifier", [])


def test_nothing_is_in_the_way_of_a_project_with_folders_of_the_same_names(installed: Path, project: Path) -> None:
    command = [installed.parent / "trapline", "classify", "--help"]
    done = subprocess.run(command, cwd=project, env=CLEAN, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: trapline classify")


def rows(output: Path) -> int:
    ((count,),) = duckdb.sql(f"select count(*) from read_parquet('{output}/**/*.parquet')").fetchall()
    return int(count)


@pytest.mark.slow
def test_the_installed_command_runs_as_a_job_from_such_a_project(
    installed: Path, project: Path, tmp_path: Path
) -> None:
    arguments = [str(project / "archive"), str(tmp_path / "output"), "--model", str(project / "model.pt")]
    with ray_head(tmp_path, python=installed) as head:
        done = head.submit("trapline", "classify", *arguments, working_dir=project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows(tmp_path / "output") == 4


@pytest.mark.slow
def test_a_checkout_runs_as_a_job_on_a_cluster_that_has_the_dependencies_alone(
    bare: Path, checkout: Path, project: Path, tmp_path: Path
) -> None:
    arguments = [str(project / "archive"), str(tmp_path / "output"), "--model", str(project / "model.pt")]
    with ray_head(tmp_path, python=bare) as head:
        done = head.submit("python", "-m", "jobs.classify", *arguments, working_dir=checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows(tmp_path / "output") == 4
