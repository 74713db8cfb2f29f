"""A package that is compiled in each process is noticed: on packages that are written here, by processes of their own."""

import compileall
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trapline.bytecode import bytecode_warning


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "site/heavy"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    return folder


def warning(package: Path, **environment: str) -> str:
    code = f"from trapline.bytecode import bytecode_warning; print(bytecode_warning({package.name!r}))"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | environment
    env["PYTHONPATH"] = os.pathsep.join([str(package.parent), *sys.path])
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_what_python_may_keep_is_no_matter(package: Path) -> None:
    assert warning(package) == "None"


def test_what_is_compiled_is_no_matter(package: Path) -> None:
    assert compileall.compile_dir(package, quiet=1)
    assert warning(package, PYTHONDONTWRITEBYTECODE="1") == "None"


def test_what_python_must_not_keep_is_said_with_a_command_that_mends_it(package: Path) -> None:
    said = warning(package, PYTHONDONTWRITEBYTECODE="1")
    assert said.startswith("heavy is not compiled, and PYTHONDONTWRITEBYTECODE is set: ")
    subprocess.run(said.rpartition(": ")[2].split(), check=True)
    assert warning(package, PYTHONDONTWRITEBYTECODE="1") == "None"


def test_what_python_cannot_keep_is_said(package: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where the folder of compiled modules would be")
    said = warning(package, PYTHONPYCACHEPREFIX=str(tmp_path / "file"))
    assert f"heavy is not compiled, and {tmp_path}/file cannot be written: " in said


def test_a_package_that_is_not_there_is_no_matter() -> None:
    assert bytecode_warning("no_such_package") is None
