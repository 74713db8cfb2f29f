"""What all commands share: errors in one line, exit codes, and help that shows defaults as one would type them."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from trapline.cli.run_job import EXIT_FATAL, EXIT_INTERRUPTED, command, run
from trapline.config import RunConfig
from trapline.errors import StorageError


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def run_that(action: Callable[[], object], *arguments: str) -> int:
    """Run a command that does this."""
    app = command("demo", "Show something.")

    @app.default
    def demo() -> object:
        return action()

    return run(app, arguments)


def throw(error: BaseException) -> Callable[[], object]:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3)])
def test_the_exit_code_is_what_the_command_returns(returned: int | None, code: int) -> None:
    assert run_that(lambda: returned) == code


def bad_config(**options: Any) -> ValidationError:
    with pytest.raises(ValidationError) as refusal:
        RunConfig(inputs=("in",), output="out", **{"model": "m", **options})
    return refusal.value


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (StorageError("s3://b: refused\n  and gone"), "trapline: s3://b: refused and gone"),
        (StorageError("a\x1b[2Jb"), "trapline: a\\x1b[2Jb"),
        (
            bad_config(model=["https://me:secret@host/m.pt?sig=1"]),
            "trapline: --model ['https://host/m.pt?…']: Input should be a valid string",
        ),
        (bad_config(top_k=0), "trapline: --top-k 0: Input should be greater than or equal to 1"),
        (
            ModuleNotFoundError("No module named 'duckdb'", name="duckdb.typing"),
            "trapline: the Python package duckdb.typing is not installed; run: pip install 'trapline[analysis]'",
        ),
    ],
)
def test_an_error_is_one_line_on_stderr_and_exit_code_2(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_that(throw(error)) == EXIT_FATAL
    assert capsys.readouterr() == ("", f"{line}\n")


def test_an_option_that_does_not_exist_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_that(lambda: 0, "--frobnicate") == EXIT_FATAL
    shown = capsys.readouterr()
    assert "--frobnicate" in shown.err
    assert (shown.err.count("\n"), shown.out) == (1, "")


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError(), ModuleNotFoundError("x", name="trapline.gone"), ModuleNotFoundError("x")],
    ids=["a fault", "a module of Trapline", "a module without a name"],
)
def test_a_fault_of_trapline_itself_is_not_disguised(error: Exception) -> None:
    with pytest.raises(type(error)):
        run_that(throw(error))


@pytest.mark.parametrize(
    "action",
    [throw(KeyboardInterrupt()), lambda: signal.raise_signal(signal.SIGTERM)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_an_interruption_ends_with_130_and_says_how_to_carry_on(
    action: Callable[[], object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_that(action) == EXIT_INTERRUPTED
    line = "Interrupted. What is committed stays; run the same command again to carry on.\n"
    assert capsys.readouterr() == ("", line)


def test_help_names_the_exit_codes_and_shows_defaults_as_one_would_type_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    app = command("demo", "Show something.", {3: "some failed.", 0: "all is well."})

    @app.default
    def demo(
        *, gap: float = 60.0, kinds: tuple[str, ...] = ("a", "b"), first: int = 0, name: str = "", quick: bool = False,
        most: int | None = None,
    ) -> None:  # fmt: skip
        pass

    assert run(app, ["--help"]) == 0
    page = capsys.readouterr().out
    defaults = {
        line.split()[1]: line.partition("[default: ")[2].partition("]")[0]
        for line in page.splitlines()
        if " --" in line
    }
    assert {each: default for each, default in defaults.items() if default} == {
        "--gap": "60.0", "--kinds": "a b", "--first": "0",
    }  # fmt: skip
    assert {"--name", "--quick", "--most"} <= {*defaults}
    codes = [line.strip(" •") for line in page.partition("Exit codes:")[2].splitlines() if "•" in line]
    assert [code.partition(":")[0] for code in codes] == ["0", "2", "3", "130"]
    assert codes[0] == "0: all is well."
