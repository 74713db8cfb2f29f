"""The manifests of runs as a table."""

import json
from pathlib import Path

from tests.support.report import manifest
from trapline.analysis.report import run_history


class TestRunHistory:
    def test_manifests_become_a_table_and_other_files_are_left_out(self, tmp_path: Path) -> None:
        folder = tmp_path / "_trapline" / "runs"
        folder.mkdir(parents=True)
        for name, text in {
            "1": json.dumps(manifest()),
            "2": "{cut",
            "3": "[]",
            "4": json.dumps(manifest(busy=3)),
        }.items():
            (folder / f"{name}.json").write_text(text)
        table = run_history.table(str(tmp_path))
        assert len(table.rows) == 1
        row = table.records()[0]
        assert (row["images"], row["failed"], row["bound by"], row["images/s"], row["took"]) == (
            12, 2, "decode", 37.6, "1:00:01",
        )  # fmt: skip

    def test_without_a_run_the_table_is_empty(self, tmp_path: Path) -> None:
        assert run_history.table(str(tmp_path)).rows == []
