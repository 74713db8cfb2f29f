"""A run is watched to its end, however it ends: the command of --notify hears of it."""

import json
from pathlib import Path

import pytest

from tests.support.archives import pictures, write_tar
from tests.support.progress import Silent
from tests.support.runs import Run
from trapline.config import RunConfig
from trapline.errors import CheckpointError, OutputConflict
from trapline.monitoring.monitored_run import classify_monitored
from trapline.run.progress import Progress

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path) -> Run:
    return Run(tmp_path, tiny_model)


def test_a_command_is_told_how_the_run_ended(run: Run, tmp_path: Path) -> None:
    write_tar(run.archive / "a.tar", pictures(2))
    told = tmp_path / "told"
    options = {"notify": f'cat > {told}; printf "\\n$TRAPLINE_STATUS $TRAPLINE_MANIFEST" >> {told}'}
    run(dry_run=True, **options)
    assert not told.exists()
    manifest = run(**options)
    text, line = told.read_text().splitlines()[:-1], told.read_text().splitlines()[-1]
    status, url = line.split()
    assert status == "complete"
    assert json.loads("".join(text)) == json.loads(Path(url).read_text())
    assert Path(url).stem == manifest.run_id
    with pytest.raises(CheckpointError):
        run(model="nothing.pt", **options)
    assert told.read_text().endswith("\naborted ")


def test_a_command_is_told_of_an_interruption_too(run: Run, tmp_path: Path) -> None:
    class Interrupting(Silent):
        def __call__(self, progress: Progress) -> None:
            raise KeyboardInterrupt

    write_tar(run.archive / "a.tar", pictures(2))
    told = tmp_path / "told"
    config = RunConfig(inputs=(str(run.archive),), output=str(run.output), model=str(run.model), notify=f"cat > {told}")
    with pytest.raises(KeyboardInterrupt):
        classify_monitored(config, Interrupting())
    assert json.loads(told.read_text())["status"] == "interrupted"


def test_a_run_that_is_refused_because_of_another_says_so_to_the_command(run: Run, tmp_path: Path) -> None:
    write_tar(run.archive / "a.tar", pictures(2))
    first = run()
    path = run.output / f"_trapline/runs/{first.run_id}.json"
    path.write_text(path.read_text().replace('"complete"', '"running"'))
    told = tmp_path / "told"
    with pytest.raises(OutputConflict, match="is writing there"):
        run(top_k=2, replace=True, notify=f"cat > {told}")
    assert json.loads(told.read_text())["status"] == "aborted"
    assert "is writing there" in json.loads(told.read_text())["ended_by"]
