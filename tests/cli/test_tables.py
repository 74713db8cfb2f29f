"""The command: what it prints, and how it refuses."""

from pathlib import Path

import pytest

from tests.support.result_files import Planted, columns, write_result
from trapline.cli import app
from trapline.cli import tables as job


def test_it_writes_tables_and_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("site=007/a.tar", "site=7/b.tar"):
        write_result(f"{tmp_path}/results", f"/in/{name}", name, [Planted("1.jpg", (1, 0), [1])], columns("ab", 1))
    arguments = [f"{tmp_path}/results", f"{tmp_path}/tables", "--images-per-file", "1"]
    assert "tables" in app.COMMANDS
    assert [job.main(arguments), job.main(arguments)] == [0, 0]
    assert " ".join(capsys.readouterr().out.split()) == (
        "files 2 (0 unchanged, 0 removed) rows 2 of 2 images in 2 shards "
        "files 2 (2 unchanged, 0 removed) rows 2 of 2 images in 2 shards"
    )
    assert job.main([*arguments, "--deployment-from", "site={site}"]) == 2
    assert "--replace" in capsys.readouterr().err
    assert job.main([*arguments, "--deployment-from", "{"]) == 2
    assert job.main([*arguments[:3], "0"]) == 2
