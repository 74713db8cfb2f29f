"""Files are written beside the flow: each is accounted for, and a store that takes none ends the run."""

from pathlib import Path

import pytest

from tests.support.progress import account
from tests.support.rows import COLUMNS, chunk, shard
from trapline.errors import StorageError
from trapline.run.progress import Account
from trapline.run.writer import Writer


def write(night: Account, output: Path, *names: str, interrupted: bool = False) -> None:
    with Writer(COLUMNS, night) as writer:
        for name in names:
            writer.write([chunk(shard(str(output), name))])
            writer.settle()
        if interrupted:
            raise KeyboardInterrupt


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "blocked").write_text("a file, where a folder is to be")
    return tmp_path


def test_what_was_begun_is_written_and_accounted_for_whatever_ends_it(output: Path) -> None:
    night = account()
    names = [f"{number}.tar" for number in range(6)]
    with pytest.raises(KeyboardInterrupt):
        write(night, output, *names, interrupted=True)
    assert night.committed == {f"s3://archive/{name}" for name in names}
    assert sorted(path.name for path in output.glob("*.parquet")) == [f"{name}.parquet" for name in names]


def test_a_file_that_is_refused_fails_alone(output: Path) -> None:
    night = account()
    write(night, output, "blocked/1.tar", "sound.tar", "blocked/2.tar")
    assert night.committed == {"s3://archive/sound.tar"}
    assert sorted(night.failures) == ["s3://archive/blocked/1.tar", "s3://archive/blocked/2.tar"]


def test_three_refusals_and_nothing_accepted_end_it(output: Path) -> None:
    with pytest.raises(StorageError, match="blocked"):
        write(account(), output, *(f"blocked/{number}.tar" for number in range(3)))
