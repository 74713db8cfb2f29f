"""The nightly job as users run it: its command line, its exit codes, on S3, submitted to a cluster, and killed."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from tests.support.archives import pictures, write_tar
from tests.support.checkout import ROOT
from tests.support.servers import S3Server, ray_head
from trapline.cli.classify import main
from trapline.storage.s3 import S3Files


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for number in range(3):
        write_tar(tmp_path / f"archive/cam{number}/0001.tar", pictures(4) | {"bad.jpg": b""})
    return tmp_path / "archive"


def count_rows(output: Path) -> tuple[int, int]:
    """Rows, and different images among them."""
    query = f"select count(*), count(distinct image_uri) from read_parquet('{output}/**/*.parquet')"
    return duckdb.sql(query).fetchall()[0]


@pytest.mark.usefixtures("ray_session")
class TestTheCommandLine:
    def test_a_good_run_ends_with_0_and_a_summary(
        self, archive: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code = main([str(archive), str(tmp_path / "output"), "--model", str(tiny_model), "--device", "cpu"])
        shown = capsys.readouterr().out
        assert code == 0
        assert "3 classified" in shown
        assert "15 = 12 ok, 3 failed" in shown
        assert "3 empty" in shown
        assert re.search(r"species \d +\d+", shown)
        assert count_rows(tmp_path / "output") == (15, 15)

        assert main([str(archive), str(tmp_path / "output"), "--model", str(tiny_model)]) == 0
        assert "Nothing to do: all 3 shards (15 images) are done." in capsys.readouterr().out

    def test_options_may_stand_in_a_file_and_the_command_line_wins(
        self, archive: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        output = tmp_path / "output"
        config = tmp_path / "night.yaml"
        config.write_text(
            f"inputs: ['{archive}']\noutput: '{output}'\nmodel: '{tiny_model}'\ntop-k: 2\ndry-run: true\n"
        )
        assert main(["--config", str(config)]) == 0
        assert "Dry run" in capsys.readouterr().out
        assert not output.exists()
        assert main([f"{archive}/cam1", str(output), "--config", str(config), "--limit", "1"]) == 0
        assert re.search(r"to do +1 ", capsys.readouterr().out)

    def test_a_run_that_is_out_of_time_ends_with_0_and_says_what_is_left(
        self, archive: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        soon = (datetime.now(UTC) + timedelta(seconds=0.2)).isoformat()
        arguments = [str(archive), str(tmp_path / "output"), "--model", str(tiny_model)]
        assert main([*arguments, "--stop-at", soon]) == 0
        assert f"Stopped by --stop-at {soon}: 3 shards left for the next night." in capsys.readouterr().out
        assert main([*arguments, "--since", "2999-01-01"]) == 0
        assert "Nothing to do: skipped 3 shards of the input, by --since, --where and --part." in " ".join(
            capsys.readouterr().out.split()
        )

    def test_for_a_log_collector_each_line_is_json_and_the_last_has_the_manifest(
        self, archive: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        output = tmp_path / "output"
        assert main([str(archive), str(output), "--model", str(tiny_model), "--log", "json"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        (written,) = output.glob("_trapline/runs/*.json")
        manifest = json.loads(written.read_text())
        assert lines[-1]["event"] == "end"
        assert lines[-1].items() >= manifest.items()

    def test_too_many_failures_end_with_4(self, archive: Path, tmp_path: Path, tiny_model: Path) -> None:
        options = ["--model", str(tiny_model), "--max-failed-fraction", "0.1"]
        assert main([str(archive), str(tmp_path / "output"), *options]) == 4

    def test_a_shard_that_fails_ends_with_3_and_the_next_run_tries_it_again(
        self, archive: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        output = tmp_path / "output"
        blocked = output / "cam1/0001.tar.parquet/in the way"
        blocked.parent.mkdir(parents=True)
        blocked.touch()
        arguments = [str(archive), str(output), "--model", str(tiny_model)]
        assert main(arguments) == 3
        shown = capsys.readouterr().out
        assert "1 shard failed" in shown
        assert "cam1/0001.tar.parquet" in shown
        blocked.unlink()
        blocked.parent.rmdir()
        assert main(arguments) == 0
        assert count_rows(output) == (15, 15)


class TestABadInvocation:
    """Each is one line on stderr and exit code 2."""

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["only-one", "--model", "m.pt"], "names one place only"),
            (["--model", "m.pt"], "nothing to read"),
            (["in", "out"], "--model"),
            (["in", "out", "--model", "missing.pt"], "missing.pt: no such file"),
            (["in", "out", "--model", "m.pt", "--top-k", "many"], "top-k"),
            (["in", "out", "--model", "m.pt", "--size", "100"], "multiple of 32"),
            (["in", "out", "--model", "m.pt", "--since", "last week"], "--since last week: neither a date"),
            (["in", "out", "--model", "m.pt", "--stop-at", "6"], "--stop-at 6: neither a time"),
            (["in", "out", "--model", "m.pt", "--where", "12"], "must be name=value"),
            (["in", "out", "--model", "m.pt", "--frobnicate"], "--frobnicate"),
            (["in", "out", "--config", "missing.yaml"], "missing.yaml: no such config file"),
        ],
    )
    def test_is_told_in_one_line(self, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(arguments) == 2
        shown = capsys.readouterr()
        assert expected in shown.err
        assert shown.err.count("\n") == 1
        assert shown.out == ""

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"\ninputs: [in", "night.yaml: is not YAML (while parsing a flow sequence"),
            (b"model: \xff", "night.yaml: cannot be read as UTF-8 text"),
            (b"- in", "night.yaml"),
            (b"modle: m.pt", "night.yaml"),
        ],
    )
    def test_a_bad_config_file_is_named(
        self, content: bytes, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "night.yaml").write_bytes(content)
        assert main(["--config", str(tmp_path / "night.yaml")]) == 2
        shown = capsys.readouterr()
        assert expected in shown.err
        assert shown.err.count("\n") == 1

    def test_every_option_is_explained(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--help"]) == 0
        shown = capsys.readouterr().out
        for option in ("--config", "--dry-run", "--limit", "--top-k", "--probabilities", "--embedding", "--features"):
            assert option in shown
        assert "Exit codes" in shown


class TestOnS3:
    @pytest.fixture
    def archive_url(self, s3: S3Server, bucket: str, archive: Path) -> str:
        s3.filesystem().put(f"{archive}/", f"{bucket}/archive/", recursive=True)
        return f"{bucket}/archive"

    @pytest.mark.usefixtures("ray_session")
    def test_input_and_output_are_urls(
        self, archive_url: str, bucket: str, tiny_model: Path, s3: S3Server, tmp_path: Path
    ) -> None:
        assert main([archive_url, f"{bucket}/output", "--model", str(tiny_model)]) == 0
        s3.filesystem().get(f"{bucket}/output/", f"{tmp_path}/copy/", recursive=True)
        assert count_rows(tmp_path / "copy") == (15, 15)
        uris = duckdb.sql(f"select image_uri from read_parquet('{tmp_path}/copy/**/*.parquet')").fetchall()
        assert (f"{archive_url}/cam1/0001.tar#DCIM/IMG_0002.jpg",) in uris

    def test_a_wrong_key_is_one_clear_line(
        self,
        archive_url: str,
        bucket: str,
        tiny_model: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        S3Files.clear_instance_cache()  # which keeps clients, with their keys
        try:
            assert main([archive_url, f"{bucket}/output", "--model", str(tiny_model)]) == 2
        finally:
            S3Files.clear_instance_cache()
        shown = capsys.readouterr().err
        assert ("access denied" in shown, shown.count("\n")) == (True, 1), shown

    @pytest.mark.parametrize(
        ("source", "output", "blamed"),
        [
            ("/missing-prefix", "/output", "/missing-prefix"),
            ("/archive", "-nowhere/out", "-nowhere/out"),
            ("-nowhere/in", "/output", "-nowhere/in"),
        ],
    )
    def test_a_place_that_is_not_there_is_one_clear_line_before_anything_is_read(
        self,
        source: str,
        output: str,
        blamed: str,
        archive_url: str,
        bucket: str,
        tiny_model: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert main([bucket + source, bucket + output, "--model", str(tiny_model)]) == 2
        shown = capsys.readouterr().err
        assert (bucket + blamed in shown, shown.count("\n")) == (True, 1), shown

    def test_a_process_says_no_more_than_that_line(self, archive_url: str, tiny_model: Path) -> None:
        arguments = ["s3://nowhere/archive", "s3://nowhere/out", "--model", str(tiny_model)]
        command = [sys.executable, "-m", "jobs.classify", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "s3://nowhere/" in done.stderr


@pytest.mark.slow
def test_it_runs_as_a_submitted_job(archive: Path, tmp_path: Path, tiny_model: Path) -> None:
    output = tmp_path / "output"
    with ray_head(tmp_path) as head:
        command = ["python", "-m", "jobs.classify", str(archive), str(output), "--model", str(tiny_model)]
        result = head.submit(*command, working_dir=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "15 = 12 ok, 3 failed" in result.stdout
    assert count_rows(output) == (15, 15)
