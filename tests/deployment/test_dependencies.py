"""What the package imports is what it declares, and the oldest versions that it admits do."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.support.servers import SCRIPTS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ANALYSIS = PROJECT["optional-dependencies"]["analysis"]
ICEBERG = [each for each in PROJECT["optional-dependencies"]["iceberg"] if not each.startswith("trapline")]
# torch is too large to install for a test (4 GB with CUDA), and torchcodec is built for one torch: those that are here.
LARGE = {"torch", "torchcodec"}
# Not imported, but needed: fsspec opens s3:// URLs with the one, cyclopts YAML files with the other.
USED_BY_NAME = {"s3fs", "pyyaml"}
# Imported where torch brings it: its builds for GPUs do.
WITH_TORCH = {"triton"}
SUBSET = [
    "tests/test_config.py",
    "tests/results/test_parquet.py",
    "tests/decoding/test_exif.py",
    "tests/decoding/test_decode.py",
    "tests/cli/test_app.py",
    "tests/cli/test_classify.py::TestTheCommandLine::test_a_good_run_ends_with_0_and_a_summary",
    "tests/analysis/search/test_search.py",
]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


def imported(paths: list[Path]) -> set[str]:
    """The distributions that modules import anywhere, without the standard library."""
    modules = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.partition(".")[0])
    distributions = packages_distributions()
    outside = modules - {*sys.stdlib_module_names, *WITH_TORCH, "trapline"}
    return {distributions[module][0].lower().replace("_", "-") for module in outside}


def test_what_is_imported_is_declared_and_what_is_declared_is_needed() -> None:
    package = ROOT / "pipeline" / "trapline"
    analysis = list((package / "analysis").rglob("*.py"))
    core = [path for path in package.rglob("*.py") if path not in analysis]
    assert imported(core) | USED_BY_NAME == names(PROJECT["dependencies"])
    assert imported(analysis) - names(PROJECT["dependencies"]) == names(ANALYSIS + ICEBERG)


def test_the_constraints_name_a_version_of_everything_that_is_declared() -> None:
    pinned = names([line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line])
    assert names(PROJECT["dependencies"] + ANALYSIS + ICEBERG) <= pinned


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_oldest_versions_that_are_admitted_do(tmp_path: Path) -> None:
    wanted = [each for each in (*PROJECT["dependencies"], *ANALYSIS) if not names([each]) & LARGE]
    (tmp_path / "oldest.txt").write_text("\n".join(wanted))
    folder = tmp_path / "oldest"
    install = [SCRIPTS / "uv", "pip", "install", "--resolution", "lowest-direct", "--python", sys.executable]
    done = subprocess.run(
        [*install, "--target", folder, "--requirement", tmp_path / "oldest.txt"],
        env=os.environ | {"UV_HTTP_TIMEOUT": "20"},
        capture_output=True,
        text=True,
        check=False,
    )
    if re.search("error sending request|dns error|Failed to fetch|timed out|Network", done.stderr):
        pytest.skip("no package registry can be reached")
    if re.search("not found in the package registry|there (is|are) no versions? of", done.stderr):
        pytest.skip(f"the package registry does not have all of them: {done.stderr}")
    assert done.returncode == 0, done.stderr
    # These come first, the rest (torch, pytest) from this environment.
    paths = os.pathsep.join(map(str, (folder, ROOT / "pipeline")))
    tests = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-m", "not slow", "-p", "no:cacheprovider", *SUBSET]
    done = subprocess.run(
        tests, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
