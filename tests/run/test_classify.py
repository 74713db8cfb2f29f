"""The whole run, with real Ray, on archives and a model that are made here."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from birder.data.transforms.classification import inference_preset
from torchvision.io import decode_image
from torchvision.transforms import v2

from tests.support.archives import (
    RGB_STATS,
    jpeg,
    pictures,
    sidecar,
    write_folder,
    write_parquet,
    write_tar,
    write_tiny_checkpoint,
    write_zip,
)
from tests.support.numerics import assert_as_exact, birders
from tests.support.progress import Silent, run_progress
from tests.support.runs import Run
from trapline.errors import OutputConflict, UsageError
from trapline.results.fingerprint import Fingerprint
from trapline.results.footer import find
from trapline.results.verify import reconcile
from trapline.run.classify import share_with_concurrent_runs
from trapline.run.manifest import Manifest
from trapline.sources.shards import Discovery, discover

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path) -> Run:
    return Run(tmp_path, tiny_model)


class TestTheFirstNight:
    """One run over every format, looked at from all sides."""

    @pytest.fixture(scope="class")
    @classmethod
    def night(cls, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[tuple[Run, Manifest]]:
        run = Run(tmp_path_factory.mktemp("night"), tiny_model)
        good = pictures(19)
        tar = {"DCIM/IMG_0000.json": sidecar(site="heath"), **good, "DCIM/Thumbs.db": b"x", "call.mp3": b"x"}
        bad = {"DCIM/empty.jpg": b"", "DCIM/text.jpg": b"not a picture", "DCIM/cut.jpg": jpeg(3, (400, 300))[:9000]}
        write_tar(run.archive / "site=heath/cam1/0001.tar", tar | bad)
        write_tar(run.archive / "site=heath/cam1/0002.tar.gz", pictures(8), mode="w:gz")
        write_zip(run.archive / "site=moor/card.zip", pictures(9))
        write_parquet(run.archive / "site=moor/export.parquet", pictures(10))
        write_folder(run.archive / "site=moor/loose", pictures(11, prefix=""))
        cut = write_tar(run.archive / "site=pond/cut.tar", pictures(6))
        cut.write_bytes(cut.read_bytes()[:9000])
        return run, run(features=("stage4",))

    def test_each_shard_becomes_one_mirrored_file(self, night: tuple[Run, Manifest]) -> None:
        assert set(night[0].files()) == {
            "site=heath/cam1/0001.tar.parquet",
            "site=heath/cam1/0002.tar.gz.parquet",
            "site=moor/card.zip.parquet",
            "site=moor/export.parquet.parquet",
            "site=moor/loose/images.parquet",
            "site=pond/cut.tar.parquet",
        }

    def test_each_image_is_one_row(self, night: tuple[Run, Manifest]) -> None:
        run, _ = night
        total, unique = run.rows("count(*), count(distinct image_uri)")[0]
        kept = run.rows("count(*) filter (site = 'pond' and status = 'ok')")[0][0]
        assert 0 < kept < 6
        assert total == unique == (19 + 3) + 8 + 9 + 10 + 11 + (kept + 1)

    def test_partitions_of_the_input_are_partitions_of_the_output(self, night: tuple[Run, Manifest]) -> None:
        sites = night[0].rows("distinct site")
        assert sorted(sites) == [("heath",), ("moor",), ("pond",)]

    def test_bad_images_are_rows_that_say_why(self, night: tuple[Run, Manifest]) -> None:
        found = night[0].rows("key, status, split_part(error, ':', 1), species is not null")
        troubled = {row[0]: row[1:] for row in found if row[1] != "ok"}
        assert troubled == {
            "DCIM/empty.jpg": ("failed", "empty", False),
            "DCIM/text.jpg": ("failed", "not_an_image", False),
            "DCIM/cut.jpg": ("salvaged", "truncated", True),
            "": ("failed", "broken_shard", False),
        }

    def test_the_sidecar_is_kept_verbatim(self, night: tuple[Run, Manifest]) -> None:
        found = [(key, text) for key, text in night[0].rows("key, metadata") if text is not None]
        assert found == [("DCIM/IMG_0000.jpg", sidecar(site="heath").decode())]

    def test_predictions_are_those_of_birder(self, night: tuple[Run, Manifest], tmp_path: Path) -> None:
        run, _ = night
        # What birder-predict does with its default loader, which decodes to a tensor; normalised for the reference.
        steps = inference_preset((64, 64), RGB_STATS).transforms
        transform = v2.Compose([step for step in steps if isinstance(step, v2.Resize)])
        rows = {row[0]: row[1:] for row in run.rows("key, probabilities, embedding, features_stage4, top_k")}
        pixels = []
        for data in pictures(19).values():
            path = tmp_path / "picture.jpg"
            path.write_bytes(data)
            pixels.append(transform(decode_image(str(path), mode="RGB")))
        expected = birders(run.model, torch.stack(pixels).numpy(), ["stage4"])
        found = [rows[key] for key in pictures(19)]
        for number, (name, dtype) in enumerate(
            [("probabilities", np.float32), ("embedding", np.float32), ("stage4", np.float16)]
        ):
            values = np.array([row[number] for row in found], dtype)
            peer, truth = (each[name].flatten(1) for each in (expected.peer, expected.truth))
            assert_as_exact(values, peer, truth, name)
        for row in found:
            best = np.argsort(-np.array(row[0]), kind="stable")
            assert [entry["species"] for entry in row[3]] == [f"species {index}" for index in best]

    def test_the_manifest_accounts_for_everything(self, night: tuple[Run, Manifest]) -> None:
        run, manifest = night
        assert manifest.status == "incomplete"  # because of cut.tar
        assert manifest.shards_in == manifest.shards_committed == 6
        assert sum(manifest.images.values()) == len(run.rows())
        assert manifest.reasons == {"empty": 1, "not_an_image": 1, "truncated": 1, "broken_shard": 1}
        assert manifest.ignored == {"Thumbs.db": 1, ".mp3": 1}
        assert [Path(uri).name for uri in manifest.shards_broken] == ["cut.tar"]
        written = json.loads((run.output / f"_trapline/runs/{manifest.run_id}.json").read_text())
        assert written["images"] == manifest.images
        assert written["fingerprint"]["weights_sha256"]

    def test_the_footer_names_its_shard_and_how_it_was_computed(self, night: tuple[Run, Manifest]) -> None:
        run, manifest = night
        path = run.output / "site=moor/card.zip.parquet"
        footer = find(str(path))
        assert footer is not None
        assert footer.uri == str(run.archive / "site=moor/card.zip")
        assert footer.fingerprint.digest == manifest.fingerprint["digest"]
        assert footer.images == {"ok": 9, "salvaged": 0, "failed": 0}
        classes = json.loads(pq.read_metadata(path).metadata[b"trapline.classes"])
        assert classes == [f"species {index}" for index in range(5)]

    def test_nothing_but_results_looks_like_a_result(self, night: tuple[Run, Manifest]) -> None:
        others = [path for path in night[0].output.rglob("*") if path.is_file() and path.suffix != ".parquet"]
        assert {path.relative_to(night[0].output).parts[0] for path in others} == {"_trapline"}


class TestTheNextNight:
    def test_nothing_new_reads_nothing_and_writes_nothing(self, run: Run) -> None:
        write_tar(run.archive / "a.tar", pictures(3))
        run()
        before = run.files()
        again = run()
        assert run.files() == before
        assert (again.shards_already_done, again.shards_committed, again.step_seconds) == (1, 0, {})
        assert again.images_already_done == {"ok": 3, "salvaged": 0, "failed": 0}

    def test_new_and_changed_shards_alone_are_classified(self, run: Run) -> None:
        for name in ("same", "changed"):
            write_tar(run.archive / f"{name}.tar", pictures(3))
        run()
        before = run.files()
        write_tar(run.archive / "changed.tar", pictures(4))
        write_tar(run.archive / "new.tar", pictures(2))
        manifest = run()
        after = run.files()
        assert (manifest.shards_already_done, manifest.shards_committed) == (1, 2)
        assert after["same.tar.parquet"] == before["same.tar.parquet"]
        assert len(run.rows()) == 3 + 4 + 2

    def test_of_a_folder_that_grew_the_new_images_alone_are_read(self, run: Run) -> None:
        write_folder(run.archive, pictures(8, prefix=""))
        run()
        before = {row[0]: row for row in run.rows("key, probabilities, embedding")}
        write_folder(run.archive, {"new.jpg": jpeg(50)})
        manifest = run()
        assert (manifest.images["ok"], manifest.images_carried_over) == (9, 8)
        after = {row[0]: row for row in run.rows("key, probabilities, embedding")}
        assert after.keys() == {*before, "new.jpg"}
        assert {key: after[key] for key in before} == before

    def test_the_precision_and_its_bound_stay_those_of_the_first_night(self, run: Run) -> None:
        write_tar(run.archive / "a.tar", pictures(6))
        first = run(precision="checked")
        assert first.fingerprint["precision"] == "checked"
        write_tar(run.archive / "b.tar", pictures(5))
        second = run(precision="auto")
        assert (second.shards_already_done, second.shards_committed) == (1, 1)
        assert second.fingerprint == first.fingerprint
        # What is still written in bf16 was not in doubt.
        bound = first.fingerprint["checked_bound"]
        rows = run.rows("precision, top_k[1].probability, top_k[2].probability")
        assert len(rows) == 11
        assert all(np.log(p1 / p2) >= bound for precision, p1, p2 in rows if precision == "bf16")
        assert {precision for precision, *_ in rows} <= {"bf16", "fp32"}

    def test_other_options_stop_with_what_differs_unless_replace(self, run: Run) -> None:
        write_tar(run.archive / "a.tar", pictures(3))
        run()
        with pytest.raises(OutputConflict, match=r"top_k: 5 -> 2.*--replace"):
            run(top_k=2)
        assert run(top_k=2, replace=True).shards_committed == 1
        assert {len(row[0]) for row in run.rows("top_k")} == {2}

    def test_another_archive_with_the_same_names_is_never_written_over_this_one(self, run: Run) -> None:
        write_tar(run.archive / "a.tar", pictures(3))
        run()
        other = write_tar(run.archive.parent / "other/a.tar", pictures(2)).parent
        with pytest.raises(OutputConflict, match=r"holds the rows of .*archive/a.tar, not of .*other/a.tar"):
            run(inputs=(str(other),), replace=True)

    def test_a_file_of_somebody_else_is_never_overwritten(self, run: Run) -> None:
        write_tar(run.archive / "a.tar", pictures(3))
        run.output.mkdir()
        (run.output / "a.tar.parquet").write_bytes(b"somebody's")
        with pytest.raises(OutputConflict, match="not written by Trapline"):
            run(replace=True)
        assert (run.output / "a.tar.parquet").read_bytes() == b"somebody's"


class TestOptions:
    def test_limit_leaves_the_rest_to_the_next_run(self, run: Run) -> None:
        for name in "abc":
            write_tar(run.archive / f"{name}.tar", pictures(2))
        first = run(limit=2)
        assert (first.shards_committed, first.shards_left) == (2, 1)
        assert run().shards_committed == 1

    def test_a_dry_run_counts_and_writes_nothing(self, run: Run) -> None:
        tar = write_tar(run.archive / "a.tar", pictures(2))
        manifest = run(dry_run=True)
        assert (manifest.status, manifest.shards_todo, manifest.bytes_todo) == ("planned", 1, tar.stat().st_size)
        assert not run.output.exists()

    def test_columns_can_be_left_out_and_narrowed(self, run: Run) -> None:
        write_tar(run.archive / "a.tar", pictures(2))
        run(probabilities="top-k", embedding="float16")
        schema = pq.read_schema(run.output / "a.tar.parquet")
        assert "probabilities" not in schema.names
        assert str(schema.field("embedding").type) == "list<element: halffloat>"

    def test_too_many_failed_images_end_the_run(self, run: Run) -> None:
        write_tar(run.archive / "a.tar", pictures(2) | {f"bad{number}.jpg": b"x" for number in range(3)})
        assert run(max_failed_fraction=0.5).status == "over_budget"

    def test_a_model_without_classes_gives_embeddings_alone(self, run: Run, tmp_path: Path) -> None:
        write_tar(run.archive / "a.tar", pictures(2) | {"bad.jpg": b"x"})
        manifest = run(model=str(write_tiny_checkpoint(tmp_path / "mim", classes=0)))
        assert manifest.species == {}
        assert [row[0] is not None for row in run.rows("embedding")] == [True, True, False]
        assert "species" not in pq.read_schema(run.output / "a.tar.parquet").names


class TestEveryNight:
    def test_partitions_and_dates_choose_shards_and_the_others_are_counted(self, run: Run) -> None:
        for site in (12, 13, 14):
            write_tar(run.archive / f"site={site}/a.tar", pictures(2))
        manifest = run(where=("site=12", "site=14"))
        assert sorted(run.rows("distinct site")) == [(12,), (14,)]
        assert (manifest.shards_in, manifest.shards_committed, manifest.shards_passed_over) == (2, 2, 1)
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        manifest = run(since=later)
        assert (manifest.status, manifest.shards_in, manifest.shards_passed_over) == ("complete", 0, 3)
        assert run(since="1h").shards_committed == 1

    def test_parts_fill_one_output_between_them(self, run: Run) -> None:
        for number in range(6):
            write_tar(run.archive / f"{number}.tar", pictures(2))
        planned = run(dry_run=True, part="1/2")
        parts = [run(part=part) for part in ("1/2", "2/2")]
        assert [manifest.config["part"] for manifest in [planned, *parts]] == ["1/2", "1/2", "2/2"]
        assert planned.shards_todo == parts[0].shards_committed
        assert [manifest.shards_passed_over for manifest in parts] == [6 - each.shards_in for each in parts]
        assert 0 < parts[0].shards_committed < 6
        assert sum(manifest.shards_committed for manifest in parts) == 6
        assert run().shards_already_done == 6
        found = list(reconcile([str(run.archive)], str(run.output)))
        assert (len(found), all(finding.good for finding in found)) == (6, True)

    def test_a_detector_s_names_in_other_parts_are_no_strangers(self, run: Run, tmp_path: Path) -> None:
        for number in range(6):
            write_tar(run.archive / f"{number}.tar", {f"{number}.jpg": jpeg(number, (80, 60))})
        images = [{"file": f"{number}.tar/{number}.jpg", "detections": []} for number in range(6)]
        boxes = tmp_path / "boxes.json"
        boxes.write_text(json.dumps({"images": images, "detection_categories": {"1": "animal"}}))
        planned = run(dry_run=True, part="1/2", detections=str(boxes), detections_unmatched="error")
        assert planned.detections["unmatched"] == 0

    def test_with_a_deadline_the_newest_shards_come_first(self, run: Run) -> None:
        for name in "bac":
            write_tar(run.archive / f"{name}.tar", pictures(2))
        manifest = run(limit=2, stop_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
        assert set(run.files()) == {"a.tar.parquet", "c.tar.parquet"}
        assert (manifest.status, manifest.ended_by, manifest.shards_left) == ("complete", None, 1)

    def test_when_the_time_comes_no_further_shard_is_begun(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in "abc":
            write_tar(run.archive / f"{name}.tar", pictures(2))

        def slow(*args: Any) -> Discovery:
            sleep(1.1)
            return discover(*args)

        # It comes while the input is listed: before there is a worker, and however fast these are.
        with monkeypatch.context() as patch:
            patch.setattr("trapline.run.prepare.discover", slow)
            stop_at = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
            manifest = run(stop_at=stop_at)
        assert (manifest.status, manifest.ended_by) == ("stopped", f"--stop-at {stop_at}")
        assert (manifest.shards_committed, manifest.shards_failed, manifest.shards_left) == (0, {}, 3)
        assert run().shards_committed == 3

    @pytest.mark.slow
    def test_what_was_begun_by_then_is_finished_and_nothing_is_lost(self, run: Run) -> None:
        some = {f"{number}.jpg": jpeg(number, (1600, 1200)) for number in range(60)}
        for number in range(99):  # more work than there is time for
            write_tar(run.archive / f"{number:02}.tar", some)
        manifest = run(stop_at=(datetime.now(UTC) + timedelta(seconds=15)).isoformat(), decode_workers=1)
        assert manifest.status == "stopped"
        assert 0 < manifest.shards_committed < 99
        assert manifest.shards_committed + manifest.shards_left == 99
        came = {f"{path.name}.parquet": path.stat().st_ctime_ns for path in run.archive.iterdir()}
        done = set(run.files())
        # The newest; of two that came within a tick of the disk's clock, either.
        assert min(came[name] for name in done) >= max(came[name] for name in came.keys() - done)
        assert manifest.seconds < 50
        assert run.rows("count(*), count(distinct image_uri)") == [(60 * manifest.shards_committed,) * 2]

    def test_manifests_of_the_last_runs_are_kept(self, run: Run) -> None:
        write_tar(run.archive / "a.tar", pictures(2))
        runs = [run(keep_runs=2).run_id for _ in range(3)]
        kept = {path.stem for path in (run.output / "_trapline/runs").iterdir()}
        assert len(kept) == 2
        assert kept <= set(runs)


class TestConcurrentRuns:
    @pytest.mark.parametrize(
        ("mine", "others", "shared"),
        [
            (None, [None], True),
            (None, ["1/8"], True),
            ("3/8", [None], True),
            ("3/8", ["3/8"], True),
            ("3/8", ["1/8", "2/8", "4/8", "5/8", "6/8", "7/8", "8/8"], False),
            ("3/8", ["1/8", "2/8", "3/8"], True),
            ("3/8", ["2/4"], False),
            ("3/8", ["1/3"], True),
        ],
    )
    def test_those_that_may_do_the_same_shards_meet_in_the_middle(
        self, mine: str | None, others: list[str | None], shared: bool, tmp_path: Path
    ) -> None:
        runs = [run_progress(output=str(tmp_path), part=part) for part in (*others, mine)]
        for each in runs:
            each.manifest("running").write(str(tmp_path))
        plan, observer = runs[-1].plan, Silent()
        todo = share_with_concurrent_runs(plan, observer)
        assert todo == (plan.todo[::-1] if shared else plan.todo)
        assert len(observer.notes) == shared

    def test_each_of_them_must_compute_the_same(self, tmp_path: Path) -> None:
        same, mine, other = (run_progress(output=str(tmp_path), part=part) for part in ("1/3", "2/3", "3/3"))
        other.plan = replace(other.plan, fingerprint=Fingerprint({"weights_sha256": "cd"}))
        for each in (same, other, mine):
            each.manifest("running").write(str(tmp_path))
        with pytest.raises(OutputConflict, match=other.plan.run_id):
            share_with_concurrent_runs(mine.plan, Silent())


def test_a_gpu_that_is_not_there_is_said_and_not_waited_for(run: Run) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    write_tar(run.archive / "a.tar", pictures(2))
    with pytest.raises(UsageError, match="has what a predict worker takes"):
        run(device="cuda")
