from dataclasses import fields
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.result_files import MARK, Planted, columns, write_result
from trapline.analysis import schema_page
from trapline.cli import schema as job
from trapline.results.footer import Footer


def test_the_command_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert job.main([]) == 0
    assert capsys.readouterr().out == schema_page.page()


def test_every_column_and_every_footer_key_of_a_real_file_is_on_the_page(tmp_path: Path) -> None:
    of = columns(["owl", "robin"], 2, feature_shapes={})
    write_result(str(tmp_path), "s3://in/a.tar", "a.tar", [Planted("a", (1, 0), (1, 0))], of, MARK)
    file = pq.ParquetFile(tmp_path / "a.tar.parquet")
    keys = [key.decode() for key in file.metadata.metadata if key != b"ARROW:schema"]
    facts = [field.name for field in fields(Footer) if field.name != "fingerprint"]
    for name in [*file.schema_arrow.names, *keys, *facts]:
        assert f"| `{name}` |" in schema_page.page()


def test_the_page_says_which_option_leaves_a_column_out() -> None:
    (line,) = [line for line in schema_page.page().splitlines() if line.startswith("| `probabilities` |")]
    assert line.endswith("absent for a model without classifier; absent with `--probabilities top-k` |")
    assert "| list of float32 [C] | FLOAT[] |" in line
