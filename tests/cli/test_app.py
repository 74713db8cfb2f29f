"""The front door: what `trapline` and `trapline COMMAND --help` say, how fast, and what a wrong invocation is told."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from trapline import __version__
from trapline.cli import classify
from trapline.cli.app import COMMANDS, main
from trapline.config import Options

HEAVY = ["torch", "ray", "duckdb", "PIL", "pyarrow", "pandas", "altair", "sklearn", "s3fs"]
NEED_THE_EXTRA = sorted(COMMANDS.keys() - {"classify", "verify"})


def words(text: str) -> str:
    """A help page as one line, without the frames of its panels."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([command, "--help"]) == 0
    return words(capsys.readouterr().out)


def in_a_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_the_commands_are_listed_with_a_line_each(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(arguments) == 0
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    listed = [line.split(maxsplit=1) for line in lines if line.split(" ")[0] in COMMANDS]
    assert [name for name, _ in listed] == list(COMMANDS)
    assert all(summary.endswith(".") for _, summary in listed), "a summary does not fit into a line"


def test_the_version() -> None:
    done = in_a_process("import sys; from trapline.cli.app import main; sys.exit(main(['--version']))")
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")


def test_help_and_a_misspelt_command_load_nothing_heavy() -> None:
    invocations = [[], ["clasify"], *([name, "--help"] for name in COMMANDS)]
    done = in_a_process(
        "import sys; from trapline.cli.app import main\n"
        f"print([main(arguments) for arguments in {invocations}], {{*{HEAVY}}} & {{*sys.modules}})"
    )
    assert done.stdout.splitlines()[-1] == f"{[0, 2, *[0] * len(COMMANDS)]} set()"


def test_a_misspelt_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clasify", "in", "out"]) == 2
    shown = capsys.readouterr()
    assert 'Unknown command "clasify". Did you mean "classify"?' in shown.err
    assert (shown.err.count("\n"), shown.out) == (1, "")


@pytest.mark.parametrize(
    ("command", "option"),
    [("events", "--gap"), ("events", "--max-frames"), ("report", "--independent-after"), ("report", "--silent-after"),
     ("report", "--new-within"), ("report", "--pictures"), ("duplicates", "--window"), ("duplicates", "-k"), ("search", "-k")],
)  # fmt: skip
@pytest.mark.parametrize("value", ["inf", "1e300", "nan", "99999999999999999999"])
def test_a_number_that_no_table_holds_is_refused(
    command: str, option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    like = ["--like", "x"] if command == "search" else []
    places = [str(tmp_path / "a"), *([str(tmp_path / "b")] if command in ("events", "report") else [])]
    assert main([command, *places, *like, option, value]) == 2
    said = capsys.readouterr().err
    assert "nvalid value" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_help_page_names_the_exit_codes_and_only_defaults_that_say_something(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = help_of(command, capsys)
    assert page.startswith(f"Usage: trapline {command} ")
    codes = [int(code) for code in re.findall(r"• (\d+):", page.partition("Exit codes:")[2])]
    expected = {"classify": [0, 2, 3, 4, 130], "verify": [0, 1, 2, 130], "rescore": [0, 2, 3, 130]}
    assert codes == expected.get(command, [0, 2, 130])
    for noise in (
        "[default: ]",
        "[default: ()]",
        "[default: None]",
        "[default: False]",
        "--empty-",
        "--RESULTS",
        "--no-",
    ):
        assert noise not in page.replace("--no-crop-square", "").replace("--no-holdout", "").replace("--no-video", "")


def test_the_exit_codes_of_a_run_are_those_that_the_help_names(capsys: pytest.CaptureFixture[str]) -> None:
    page = help_of("classify", capsys)
    assert all(f"• {code}:" in page for code in classify.EXIT_CODES.values())


def test_the_options_of_classify_stand_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Usage: trapline classify INPUT... OUTPUT --model MODEL [OPTIONS]\n")
    groups = ["Arguments", "Input", "Model", "Output", "Nightly runs", "Cluster", "Detections", "Video"]
    assert re.findall("╭─ (.+?) ─", shown) == groups
    for name in Options.model_fields:
        assert f" --{name.replace('_', '-')} " in shown


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["classify", "in", "out"], "--model is missing; see trapline classify --help"),
        (["events"], "RESULTS is missing; see trapline events --help"),
        (["rescore", "in"], "OUTPUT is missing; see trapline rescore --help"),
        (["search", "in"], "--like is missing; see trapline search --help"),
        (["classify", "in", "out", "--model"], "requires an argument"),
    ],
)
def test_what_is_missing_is_called_missing(
    arguments: list[str], missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert missing in capsys.readouterr().err


def test_without_the_extra_an_analysis_command_says_what_to_install() -> None:
    given = {
        "rescore": ["--temperature", "2"],
        "search": ["--like", "a"],
        "export-camtrapdp": ["c", "d", "--metadata", "m"],
    }
    places = {"schema": [], "search": ["a"], "duplicates": ["a"]}
    invocations = [[name, *places.get(name, ["a", "b"]), *given.get(name, [])] for name in NEED_THE_EXTRA]
    # As where it is not installed: importing it raises ModuleNotFoundError.
    done = in_a_process(
        "import sys; sys.modules['duckdb'] = None; from trapline.cli.app import main\n"
        f"print([main(arguments) for arguments in {invocations}])"
    )
    assert done.stdout.splitlines()[-1] == f"{[2] * len(NEED_THE_EXTRA)}", done.stdout + done.stderr
    line = "trapline: the Python package duckdb is not installed; run: pip install 'trapline[analysis]'"
    assert done.stderr.splitlines() == [line] * len(NEED_THE_EXTRA)


def test_every_command_has_an_entry_point_of_the_same_name_in_a_checkout() -> None:
    jobs = {path.stem.replace("_", "-") for path in (ROOT / "jobs").glob("*.py")} - {"--init--", "docs"}
    assert jobs == set(COMMANDS)
    for name in COMMANDS:
        module = name.replace("-", "_")
        assert f'run_process(["{name}", *sys.argv[1:]])' in (ROOT / f"jobs/{module}.py").read_text()
    arguments = ["verify", "--help"]
    shown = [
        subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for command in (["jobs.verify", "--help"], ["trapline.cli.app", *arguments])
    ]
    assert shown[0] == shown[1]


def test_tab_completion_completes_commands_and_options(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trapline.cli.app", "--install-completion", "--shell", "bash"]
    subprocess.run(command, env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, check=True)
    (script,) = tmp_path.rglob("completions/trapline")
    asked = 'complete() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _trapline; echo "${COMPREPLY[@]}"; }'
    typed = f"source {script}; {asked}; complete trapline exp; complete trapline classify --stop"
    done = subprocess.run(["bash", "-c", typed], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["export-camtrapdp", "export-megadetector", "--stop-at"]
