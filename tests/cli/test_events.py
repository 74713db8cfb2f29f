"""The command: what it prints, and how it refuses."""

from datetime import datetime
from pathlib import Path

import pytest

from tests.support.events import PATTERN, at, table, write
from tests.support.servers import S3Server
from trapline.analysis.events import sessions
from trapline.cli import app
from trapline.cli import events as job


def test_it_builds_events_and_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [at(0, facts={"camera_serial": "H1"}), at(20), at(None, key="x.jpg")]
    write(f"{tmp_path}/results", "site=a/c1/1.tar", images)
    arguments = [f"{tmp_path}/results", f"{tmp_path}/events", "--gap", "10", "--deployment-from", "site=9/{x}"]
    assert "events" in app.COMMANDS
    assert job.main([*arguments, "--deployment-from", "serial"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said == (
        "deployments 1 (0 unchanged, 0 removed) events 1 of 1 images "
        "in no event 2 images 1 with no deployment 1 with no time and no deployment"
    )
    assert table(str(tmp_path), select="camera") == [("H1",)]
    assert job.main([*arguments[:3], "-1"]) == 2
    assert job.main([*arguments[:3], "9", "--deployment-from", "serial"]) == 2
    assert "--replace" in capsys.readouterr().err


def test_it_says_what_it_wants(capsys: pytest.CaptureFixture[str]) -> None:
    assert job.main(["--help"]) == 0
    assert "--deployment-from" in capsys.readouterr().out
    assert job.main(["somewhere"]) == 2


def test_each_reason_for_which_an_image_is_in_no_event_is_said_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [at(0, facts={"captured_at": datetime(2000, 1, 1)}), at(None, key="x.jpg"), at(5, key="y.jpg"), at(6)]
    write(f"{tmp_path}/results", "site=a/c1/1.tar", images)
    assert job.main([f"{tmp_path}/results", f"{tmp_path}/events", "--deployment-from", PATTERN[0]]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said == (
        "deployments 1 (0 unchanged, 0 removed) events 1 of 2 images in no event 2 images "
        "1 with an impossible time (correct the clock with --corrections) 1 with no time"
    )
    assert job._REASONS.keys() == {
        sessions.NO_TIME,
        sessions.IMPLAUSIBLE_TIME,
        sessions.NO_DEPLOYMENT,
        sessions.NOT_IN_TABLE,
        sessions.OUTSIDE,
    }


def test_a_second_run_leaves_what_is_unchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(f"{tmp_path}/results", "site=a/c1/1.tar", [at(0)])
    arguments = [f"{tmp_path}/results", f"{tmp_path}/events", "--deployment-from", PATTERN[0]]
    assert [job.main(arguments), job.main(arguments)] == [0, 0]
    assert "1 (1 unchanged, 0 removed)" in capsys.readouterr().out


def test_a_missing_bucket_is_said_in_one_line(s3: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(f"{tmp_path}/results", "site=a/c1/1.tar", [at(0)])
    assert job.main([f"{tmp_path}/results", "s3://nowhere-1/x", "--deployment-from", PATTERN[0]]) == 2
    assert capsys.readouterr().err.count("\n") == 1
