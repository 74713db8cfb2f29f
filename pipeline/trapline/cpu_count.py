"""How many processors this process may use: what the machine has, as far as affinity and control groups allow.

`os.cpu_count` is the machine's. A container of a Kubernetes node with 64 cores and a limit of 4 would start 64 decode
workers on it, and each would be throttled to a sixteenth.
"""

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path, PurePosixPath

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cpus(cgroups: Path = _CGROUPS, own_cgroup: Path = _OWN_CGROUP) -> int:
    """Return the number of processors that this process may use, at least 1; parts of one count as one.

    Args:
        cgroups: where control groups are mounted, of version 2 or 1.
        own_cgroup: file that names the control groups of this process.
    """
    # Not on macOS.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *map(ceil, _quotas(cgroups, own_cgroup))]))


def _quotas(cgroups: Path, own_cgroup: Path) -> Iterator[float]:
    """Yield the limits, in processors, of the control groups that this process is in, and of those around them."""
    for line in _read(own_cgroup).splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        # In a container the path may be the host's, where the group itself is mounted as the root: look at both.
        groups = [path, *map(str, PurePosixPath(path).parents)]
        if not controllers:  # version 2
            for group in groups:
                yield from _quota(_read(cgroups / group.lstrip("/") / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for group in groups:
                folder = cgroups / "cpu" / group.lstrip("/")
                yield from _quota([_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")])


def _quota(values: list[str]) -> Iterator[float]:
    """Yield quota / period, both in microseconds; nothing where the quota is `max` or -1, which means no limit."""
    if len(values) == 2 and all(value.isdecimal() and int(value) for value in values):
        yield int(values[0]) / int(values[1])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # there is none here, or this process may not read it
        return ""
