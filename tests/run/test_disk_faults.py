"""OUTPUT is a disk that fills up, or that is read-only."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.archives import write_tiny_checkpoint
from tests.support.nights import Night

# A disk of so many bytes, in a mount of its own that only the command and what it starts can see; COPY shows it to us.
_ON_SMALL_DISK = """
mkdir -p "$OUTPUT" && mount -t tmpfs -o size=$BYTES,$OPTIONS none "$OUTPUT" || exit 99
"$@"
code=$?
cp -r "$OUTPUT" "$COPY"
exit $code
"""


def can_mount() -> bool:
    command = ["unshare", "--mount", "--map-root-user", "mount", "-t", "tmpfs", "none", "/mnt"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_mount(), reason="needs a mount of its own, which this machine does not allow"),
]


class SmallDisk(Night):
    """A night whose OUTPUT lies on a disk of its own; what is on it in the end is copied to `copy`."""

    @property
    def copy(self) -> Path:
        return Path(f"{self.output}-copy")

    def run(self, size: int, options: str = "rw") -> subprocess.CompletedProcess[str]:
        places = {"OUTPUT": self.output, "COPY": str(self.copy), "BYTES": str(size), "OPTIONS": options}
        assignments = [f"{name}={value}" for name, value in places.items()]
        command = ["unshare", "--mount", "--map-root-user", "env", *assignments, "sh", "-c", _ON_SMALL_DISK, "sh"]
        with self.running(prefix=command) as run:
            code = run.wait()
        return subprocess.CompletedProcess(command, code, run.said)


def test_a_full_disk_ends_the_run_and_says_so_and_what_is_whole_stays(tmp_path: Path) -> None:
    # Results of 20 rows and 1,000 classes take some 110 KB each.
    night = SmallDisk.make(tmp_path, write_tiny_checkpoint(tmp_path / "model", classes=1000), shards=12)
    ended = night.run(700_000)
    assert ended.returncode == 2
    assert "No space left on device" in ended.stdout
    kept = Night(night.archive, str(night.copy), night.model)
    assert 0 < len(kept.results) < 12
    assert kept.count() == (20 * len(kept.results),) * 2
    assert not list(night.copy.rglob("*.partial"))
    assert [manifest["status"] for manifest in kept.manifests()] in (["aborted"], ["running"])
    # With more room, the same command goes on.
    kept.finish()
    assert kept.verify() == 240


def test_an_output_that_nobody_may_write_to_is_said_at_once(tmp_path: Path, tiny_model: Path) -> None:
    night = SmallDisk.make(tmp_path, tiny_model, shards=1)
    ended = night.run(700_000, "ro")
    assert ended.returncode == 2
    assert "Read-only file system" in ended.stdout
    assert ended.stdout.count("\n") == 1
