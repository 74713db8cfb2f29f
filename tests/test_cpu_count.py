"""The processors that a process may use, by real affinity and by control groups that are written here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trapline.cpu_count import usable_cpus

FREE = len(os.sched_getaffinity(0))


def groups(folder: Path, own: str, limits: dict[str, str]) -> tuple[Path, Path]:
    """Write `/proc/self/cgroup` and files below `/sys/fs/cgroup`; return where both are."""
    for name, text in limits.items():
        path = folder / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    (folder / "own").write_text(own)
    return folder / "fs", folder / "own"


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("0::/\n", {"cpu.max": "100000 100000"}, 1),
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("0::/\n", {"cpu.max": "max 100000"}, FREE),
        ("0::/\n", {"cpu.max": "99900000 100000"}, FREE),
        ("0::/pod/main\n", {"pod/main/cpu.max": "max 100000", "pod/cpu.max": "100000 100000"}, 1),
        ("0::/pod/main\n", {"cpu.max": "100000 100000"}, 1),  # the host's path, in a container
        ("4:memory:/m\n3:cpu,cpuacct:/docker/1\n0::/\n", {"cpu/docker/1/cpu.cfs_quota_us": "100000",
            "cpu/docker/1/cpu.cfs_period_us": "100000"}, 1),
        ("3:cpu,cpuacct:/docker/1\n", {"cpu/cpu.cfs_quota_us": "70000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, FREE),
        ("3:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "70000", "cpu/cpu.cfs_period_us": "100000"}, FREE),
        ("0::/\n", {"cpu.max": "what is this"}, FREE),
        ("", {}, FREE),
    ],
)  # fmt: skip
def test_control_groups_limit_it(own: str, limits: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert usable_cpus(*groups(tmp_path, own, limits)) == expected


@pytest.mark.parametrize(("quota", "expected"), [("100001", 2), ("150000", 2), ("200000", 2), ("310000", 4)])
def test_a_part_of_a_processor_counts_as_one(quota: str, expected: int, tmp_path: Path) -> None:
    assert usable_cpus(*groups(tmp_path, "0::/\n", {"cpu.max": f"{quota} 100000"})) == min(FREE, expected)


def test_affinity_limits_it() -> None:
    one = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, [{one}]); from trapline.cpu_count import usable_cpus; print(usable_cpus())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"
