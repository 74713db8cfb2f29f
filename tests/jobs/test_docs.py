from jobs import docs
from trapline.cli.app import COMMANDS
from trapline.config import Options


def test_the_generated_pages_are_up_to_date() -> None:
    for path, text in docs.pages().items():
        assert path.read_text() == text, f"{path.name} is out of date: run python -m jobs.docs"


def test_the_page_of_the_command_line_has_every_command_every_option_and_the_exit_codes() -> None:
    sections = docs.cli_page().split("\n## trapline ")[1:]
    assert [section.split()[0] for section in sections] == list(COMMANDS)
    assert all("\nExit codes:\n\n- 0: " in section for section in sections)
    for name in Options.model_fields:
        assert f"* `--{name.replace('_', '-')}" in sections[0]
