"""What a command that was given as --notify gets to see."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.support.progress import run_progress
from trapline.errors import StorageError
from trapline.monitoring import notify
from trapline.monitoring.notify import EndOfRunHook


@pytest.fixture
def told(tmp_path: Path) -> Path:
    return tmp_path / "told"


def command(told: Path) -> str:
    return f'cat >> {told}; printf \'\\n%s %s\' "$TRAPLINE_STATUS" "$TRAPLINE_MANIFEST" >> {told}'


def test_is_the_manifest_its_status_and_its_place(told: Path) -> None:
    notes: list[str] = []
    manifest = run_progress(todo=2, output="s3://b/Küste").manifest("complete")
    with EndOfRunHook(command(told), notes.append) as tell:
        tell(manifest, "s3://b/run.json")
    text, line = told.read_text().splitlines()
    assert json.loads(text) == json.loads(json.dumps(asdict(manifest)))
    assert line == "complete s3://b/run.json"
    assert notes == []


@pytest.mark.parametrize(
    ("error", "status", "why"),
    [
        (StorageError("s3://b: access denied"), "aborted", "s3://b: access denied"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
        (ZeroDivisionError("a bug"), "aborted", "a bug"),
    ],
)
def test_of_a_run_that_had_no_manifest_is_how_it_ended(told: Path, error: BaseException, status: str, why: str) -> None:
    with pytest.raises(type(error)), EndOfRunHook(command(told), pytest.fail):
        raise error
    text, line = told.read_text().splitlines()
    assert json.loads(text) == {"status": status, "ended_by": why}
    assert line == f"{status} "


def test_comes_once(told: Path) -> None:
    def run() -> None:
        with EndOfRunHook(command(told), pytest.fail) as tell:
            tell(run_progress().manifest("interrupted"), "url")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert told.read_text().count("interrupted url") == 1


def test_is_not_waited_for_by_a_command_that_does_not_listen() -> None:
    with EndOfRunHook("true", pytest.fail) as tell:
        tell(run_progress(todo=3000).manifest("complete"), "url")  # more than a pipe holds


@pytest.mark.parametrize(
    ("broken", "why"), [("exit 3", "exit status 3"), ("no-such-command", "exit status 127"), ("sleep 9", "timed out")]
)
def test_that_fails_is_a_warning(broken: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "_TIMEOUT", 0.5)
    notes: list[str] = []
    with EndOfRunHook(broken, notes.append) as tell:
        tell(run_progress().manifest("complete"), "url")
    assert [f"--notify {broken}: failed" in note and why in note for note in notes] == [True]


def test_is_nothing_where_nobody_asked() -> None:
    with EndOfRunHook(None, pytest.fail) as tell:
        tell(run_progress().manifest("complete"), "url")
