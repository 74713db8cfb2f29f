"""The job as a person runs it, on results with planted structure."""

import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.checkout import ROOT
from tests.support.labelled_results import (
    CAMERAS,
    CLASSES,
    KINDS,
    PER_CAMERA,
    TEMPERATURE,
    archive,
    images,
    kind_of,
    labels,
    report,
    rows,
    table,
    versions,
)
from tests.support.result_files import Planted, columns, write_result
from tests.support.servers import ray_head
from trapline.analysis import dataset, parallel
from trapline.analysis.rescoring import head, rescore
from trapline.analysis.rescoring.scorer import Scorer
from trapline.cli.rescore import main
from trapline.results.footer import find
from trapline.storage import store


@pytest.fixture
def here(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_head_trained_on_labels_names_species_that_the_model_does_not_know(
    kind: str, tmp_path: Path, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = bucket if kind == "s3" else str(tmp_path)
    stored, output = f"{base}/results", f"{base}/again"
    archive(stored)
    before = versions(stored)
    assert main([stored, output, "--labels", labels(tmp_path, cameras=range(7))]) == 0
    assert versions(stored) == before
    assert set(versions(output)) == {url.replace(stored, output) for url in before}
    found = rows(output, "select key, species, status, image_uri from images")
    assert len(found) == CAMERAS * (PER_CAMERA + 1)
    for key, species, status, uri in found:
        assert uri.endswith(f"/a.tar#{key}")
        assert species == (kind_of(int(key.split(".")[0])) if status == "ok" else None)
    assert dataset.find(output).classes == KINDS
    written = report(output)
    assert written["held_out"]["accuracy"] == 1
    assert written["held_out"]["images"] == PER_CAMERA * len(written["held_out_cameras"]) == PER_CAMERA
    assert not set(written["held_out_cameras"]) & set(head.load(f"{output}/_trapline/head.safetensors").cameras)
    assert store.read_many([f"{output}/_trapline/confusion.png"])[0].startswith(b"\x89PNG")
    assert "100.0% right" in capsys.readouterr().out
    footer = find(f"{output}/site=0/cam0/a.tar.parquet")
    assert footer is not None
    assert (footer.uri, footer.identity) == (
        f"{stored}/site=0/cam0/a.tar.parquet",
        store.stat(f"{stored}/site=0/cam0/a.tar.parquet").identity,
    )
    assert footer.images == {"ok": PER_CAMERA, "salvaged": 0, "failed": 1}
    assert footer.species == dict.fromkeys(KINDS, 10)


def test_a_second_run_writes_nothing_and_a_new_or_changed_file_is_done_alone(
    here: str, tmp_path: Path, capsys: Any
) -> None:
    stored, output = f"{here}/results", f"{here}/again"
    archive(stored, range(5))
    command = [stored, output, "--labels", labels(tmp_path, cameras=range(4)), "--calibrate", f"{here}/kind.csv"]
    assert main(command) == 0
    before = versions(output)
    side = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "again/_trapline").iterdir() if path.suffix != ".cache"
    }
    capsys.readouterr()
    assert main(command) == 0
    assert "Nothing to do: all 5 results are done." in capsys.readouterr().out
    assert versions(output) == before
    assert {path: path.stat().st_mtime_ns for path in side} == side
    archive(stored, [5])
    more = [*images(4), replace(images(9)[3], key="new.jpg")]
    write_result(stored, "/in/site=0/cam4/a.tar", "site=0/cam4/a.tar", more, columns(CLASSES, 6))
    assert main(command) == 0
    after = versions(output)
    changed = {url.removeprefix(output) for url, version in after.items() if before.get(url) != version}
    assert changed == {"/site=0/cam4/a.tar.parquet", "/site=1/cam5/a.tar.parquet"}
    assert "2 files rescored, 4 done before" in capsys.readouterr().out


def test_rows_of_images_that_were_unavailable_are_rescored_once(here: str, capsys: Any) -> None:
    stored, output = f"{here}/results", f"{here}/again"
    lost = Planted("lost.jpg", status="failed", error="unavailable: access denied")
    write_result(stored, "/in/cam", "cam/images", [*images(0), lost], columns(CLASSES, 6), loose=True)
    for _ in range(2):
        assert main([stored, output, "--temperature", "2"]) == 0
    assert "Nothing to do: all 1 results are done." in capsys.readouterr().out


def test_another_fingerprint_is_refused_and_replaced_on_request(here: str, capsys: Any) -> None:
    stored, output = f"{here}/results", f"{here}/again"
    archive(stored, range(2))
    assert main([stored, output, "--temperature", "2"]) == 0
    before = versions(output), report(output)
    assert main([stored, output, "--temperature", "3"]) == 2
    assert "2 of 2 results were written with different settings (temperature: 2.0 -> 3.0)" in capsys.readouterr().err
    assert (versions(output), report(output)) == before
    assert main([stored, output, "--temperature", "3", "--replace"]) == 0
    assert dataset.find(output).fingerprint.facts["temperature"] == 3


def test_lists_and_taxonomies_work_together(here: str, tmp_path: Path, capsys: Any) -> None:
    image = Planted("a.jpg", tuple(math.log(share) for share in (0.3, 0.3, 0.4)), np.zeros(6))
    for site in (1, 2):
        write_result(f"{here}/results", f"/in/site={site}/a.tar", f"site={site}/a.tar", [image], columns(CLASSES, 6))
    species = table(
        tmp_path / "s.csv",
        ["species", "deployment"],
        [("tawny owl", "site=1"), ("ural owl", "site=1"), ("dodo", "site=1"), ("robin", "site=3")],
    )
    tree = table(
        tmp_path / "t.csv",
        ["species", "genus", "class"],
        [("tawny owl", "Strix", "Aves"), ("ural owl", "Strix", "Aves"), ("robin", "Erithacus", "Aves")],
    )
    assert main([f"{here}/results", f"{here}/again", "--species", species, "--taxonomy", tree]) == 0
    query = "select species, probability, taxon, rank, taxon_probability, prior_mass from images order by image_uri"
    first, second = rows(f"{here}/again", query)
    assert first == ("tawny owl", 0.5, "Strix", "genus", 1.0, pytest.approx(0.6))
    assert second == ("robin", pytest.approx(0.4), "Aves", "class", pytest.approx(1), 1.0)
    out = capsys.readouterr().out
    assert "1 species are unknown to the model: dodo" in out
    assert "1 images kept all species" in out
    assert "1 deployments of the species list are in no path of an image: site=3" in out


def test_rescored_results_can_be_rescored(here: str, tmp_path: Path) -> None:
    archive(f"{here}/results")
    assert main([f"{here}/results", f"{here}/cool", "--temperature", "2"]) == 0
    assert main([f"{here}/cool", f"{here}/calibrated", "--calibrate", labels(tmp_path, "bird")]) == 0
    assert report(f"{here}/calibrated")["temperature"] == pytest.approx(TEMPERATURE / 2, rel=0.25)


def test_a_file_with_other_rows_than_its_footer_says_is_named(here: str, capsys: Any) -> None:
    stored, output = f"{here}/results", f"{here}/again"
    archive(stored, range(2))
    path = Path(stored) / "site=1/cam1/a.tar.parquet"
    file = pq.ParquetFile(path)
    pq.write_table(file.read().slice(1).replace_schema_metadata(file.metadata.metadata), path)
    assert main([stored, output, "--temperature", "2"]) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert f"{PER_CAMERA} images were read of it, and its footer says {PER_CAMERA + 1}" in said
    assert set(versions(output)) == {f"{output}/site=0/cam0/a.tar.parquet"}


def test_a_damaged_file_is_named_and_the_others_are_done(here: str, capsys: Any) -> None:
    stored, output = f"{here}/results", f"{here}/again"
    archive(stored, range(3))
    path = Path(stored) / "site=1/cam1/a.tar.parquet"
    data = path.read_bytes()
    rows_end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    path.write_bytes(b"PAR1" + b"\xff" * (rows_end - 4) + data[rows_end:])
    assert main([stored, output, "--temperature", "2"]) == 3
    assert "site=1/cam1/a.tar.parquet: no sound Parquet" in capsys.readouterr().out
    assert len(versions(output)) == 2
    archive(stored, [1])
    assert main([stored, output, "--temperature", "2"]) == 0
    assert len(versions(output)) == 3


@pytest.mark.parametrize(
    ("options", "of", "complaint"),
    [
        (
            ["--labels", "kind.csv"],
            {"embedding": "none"},
            "its rows have no column embedding; run `trapline classify` over it with --embedding float32",
        ),
        (
            ["--temperature", "2"],
            {"probabilities": False},
            "its rows have no column probabilities; run `trapline classify` over it with --probabilities full",
        ),
        ([], {}, "nothing to change"),
        (["--labels", "a", "--head", "b"], {}, "give one of them"),
        (["--calibrate", "a", "--temperature", "2"], {}, "give one of them"),
        (["--temperature", "0"], {}, "--temperature 0.0: must be from 0.001 to 1000"),
        (["--temperature", "inf"], {}, "--temperature inf: must be from 0.001 to 1000"),
        (["--temperature", "1e-300"], {}, "--temperature 1e-300: must be from 0.001 to 1000"),
        (["--taxonomy", "t", "--threshold", "1.5"], {}, "--threshold 1.5: must be above 0 and at most 1"),
        (["--head", "kind.csv"], {}, "is no head of Trapline's"),
        (["--calibrate", "kind.csv"], {}, "no label is left to calibrate with"),
    ],
)
def test_says_what_it_needs(
    options: list[str],
    of: dict[str, Any],
    complaint: str,
    here: str,
    tmp_path: Path,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    labels(tmp_path, cameras=range(2))
    archive(f"{here}/results", range(2), **of)
    assert main([f"{here}/results", f"{here}/again", *options]) == 2
    assert complaint in capsys.readouterr().err
    assert not Path(here, "again").exists()


@pytest.mark.parametrize(("stored", "output"), [("a", "a/b"), ("a/b", "a"), ("a", "a/"), ("a/b", "a/b/../b/c")])
def test_neither_place_lies_in_the_other(stored: str, output: str, here: str, capsys: Any) -> None:
    archive(f"{here}/{stored}", range(1))
    assert main([f"{here}/{stored}", f"{here}/{output}", "--temperature", "2"]) == 2
    assert "must be a folder of its own, neither in nor around" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_cluster_writes_the_same_files(
    kind: str, tmp_path: Path, bucket: str, ray_session: None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    base = bucket if kind == "s3" else str(tmp_path)
    archive(f"{base}/results")
    command = ["--labels", labels(tmp_path), "--species", table(tmp_path / "s.csv", ["species"], [("fox",), ("hare",)])]
    assert main([f"{base}/results", f"{base}/here", *command]) == 0
    said = capsys.readouterr().out
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert main([f"{base}/results", f"{base}/there", *command]) == 0
    assert capsys.readouterr().out == said.replace(f"{base}/here", f"{base}/there")
    here, there = (list(versions(f"{base}/{name}")) for name in ("here", "there"))
    assert store.read_many(here) == store.read_many(there)
    assert len(here) == CAMERAS


@pytest.mark.slow
def test_it_runs_as_a_submitted_job(here: str, tmp_path: Path) -> None:
    archive(f"{here}/results")
    with ray_head(tmp_path) as head_node:
        command = ["python", "-m", "jobs.rescore", f"{here}/results", f"{here}/again", "--temperature", "2"]
        result = head_node.submit(*command, working_dir=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{CAMERAS * (PER_CAMERA + 1)} images in {CAMERAS} files rescored" in result.stdout
    assert len(versions(f"{here}/again")) == CAMERAS


def test_an_output_that_a_killed_worker_wrote_is_found(
    here: str, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deadly(Scorer):
        def __call__(self, rows: pa.RecordBatch, *others: Any) -> pa.Table:
            if "cam1/" in str(rows.column("image_uri")[0]):
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(rows, *others)

    archive(f"{here}/results", range(3))
    found = dataset.find(f"{here}/results")
    scorer, deadly = (kind(CLASSES, 3, temperature=2) for kind in (Scorer, Deadly))
    mark = rescore.fingerprint(found, scorer, None, None)
    todo = rescore.plan(found, f"{here}/again", mark, overwrite=False).todo
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(parallel, "_RETRIES", 0)
    first = {outcome.url: outcome for outcome in rescore.run(todo, deadly, mark)}
    lost = f"{here}/again/site=1/cam1/a.tar.parquet"
    assert [url for url, outcome in first.items() if outcome.trouble] == [lost]
    assert str(first[lost].trouble).startswith(f"{here}/results/site=1/cam1/a.tar.parquet: ")
    assert set(versions(f"{here}/again")) == first.keys() - {lost}
    (good,) = rescore.run([shard for shard in todo if shard.output == lost], scorer, mark)
    # It dies again, of a file that stands there by now.
    (again,) = rescore.run([shard for shard in todo if shard.output == lost], deadly, mark)
    assert (again.trouble, again.images, again.species) == (None, PER_CAMERA + 1, good.species)


def test_the_glob_of_the_documentation_reads_new_rows_and_joins_them_to_the_old(here: str) -> None:
    archive(f"{here}/results", range(3))
    assert main([f"{here}/results", f"{here}/again", "--temperature", "2"]) == 0
    ((joined, cooler),) = duckdb.sql(
        f"select count(*), count(*) filter (a.probability < b.probability) from read_parquet('{here}/again/**/*.parquet', "
        f"hive_partitioning = true) a join read_parquet('{here}/results/**/*.parquet') b using (image_uri)"
    ).fetchall()
    assert (joined, cooler) == (3 * (PER_CAMERA + 1), 3 * PER_CAMERA)


def test_results_of_an_older_version_are_refused_before_anything_is_written(tmp_path: Path, capsys: Any) -> None:
    results, output = f"{tmp_path}/results", tmp_path / "output"
    write_result(results, "s3://in/a.tar", "a.tar", [Planted("1", np.zeros(2), (0, 0))], columns("ab", 2))
    (file,) = dataset.find(results).files
    footer = {name: said for name, said in pq.read_metadata(file.url).metadata.items() if name != b"ARROW:schema"}
    older = pq.read_table(file.url, partitioning=None).drop_columns(["precision"])
    pq.write_table(older.replace_schema_metadata(footer), file.url)
    assert main([results, str(output), "--temperature", "2"]) == 2
    assert "no column precision; another version of Trapline wrote them" in capsys.readouterr().err
    assert not output.exists()
