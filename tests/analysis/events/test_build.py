import os
import re
import signal
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.events import COLUMNS, NIGHT, PATTERN, at, build, folder, seconds, table, write
from tests.support.result_files import MARK, Planted, columns, write_result
from trapline.analysis import dataset, event_dataset
from trapline.analysis.events import build as module
from trapline.analysis.events.build import Options
from trapline.analysis.events.event_tables import Deployment, EventTables
from trapline.analysis.events.sessions import Gap
from trapline.analysis.flat_tables import build as flat_tables
from trapline.decoding.crops import Box
from trapline.decoding.decode import decode
from trapline.errors import OutputConflict, StorageError, TransientError, UsageError
from trapline.results.fingerprint import Fingerprint
from trapline.storage import store


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_an_event_goes_on_across_shards_folders_and_midnight(kind: str, tmp_path: Path, bucket: str) -> None:
    place = folder(kind, tmp_path, bucket)
    write(f"{place}/results", "site=a b/c1/1.tar", [at(0, (0.6, 0.3, 0.1)), at(60, (0.2, 0.7, 0.1))])
    broken = at(121, status="failed", error="truncated: x")
    write(
        f"{place}/results", "site=a b/c1/card-2/1.tar", [at(181.001), broken, at(61, (0, 0.5, 0.5), status="salvaged")]
    )
    write(f"{place}/results", "site=a b/c2/1.tar", [at(30)])
    account = build(place)
    assert (account.deployments, account.events, account.images) == (2, 3, 6)
    what = "deployment, camera, started_at, ended_at, frames, ok, salvaged, failed, species, probability, best_frame"
    found = [(row[:2], seconds(row[2]), seconds(row[3]), *row[4:]) for row in table(place, select=what)]
    c1, c2 = ("a b/c1", "c1"), ("a b/c2", "c2")
    assert found == [
        (c1, 0, 121, 4, 2, 1, 1, "robin", pytest.approx(0.5), "s3://in/site=a b/c1/1.tar#DCIM/60.jpg"),
        (c2, 30, 30, 1, 1, 0, 0, "owl", pytest.approx(0.5), "s3://in/site=a b/c2/1.tar#DCIM/30.jpg"),
        (c1, 181.001, 181.001, 1, 1, 0, 0, "owl", 0.5, "s3://in/site=a b/c1/card-2/1.tar#DCIM/181.001.jpg"),
    ]  # fmt: skip
    probabilities, top_k = table(place, select="probabilities, top_k")[0]
    assert probabilities == pytest.approx([0.8 / 3, 0.5, 0.7 / 3])
    assert [entry["species"] for entry in top_k] == ["robin", "owl"]
    tables = [
        event_dataset.table_url(f"{place}/events", name, f"a b/{camera}")
        for name in ("events", "images")
        for camera in ("c1", "c2")
    ]
    assert [entry.url for entry in store.list_files(f"{place}/events")] == [
        *tables,
        f"{place}/events/unassigned/unassigned.parquet",
    ]


def test_of_an_image_with_crops_each_crop_counts_and_the_image_is_one_frame(tmp_path: Path) -> None:
    place, uri = str(tmp_path), "s3://in/site=a/c1/1.tar"
    # Of (key, seconds, crops): an image that was classified whole, one with two crops, and one that was skipped.
    said = [("a.jpg", [(None, (0.75, 0.25, 1e-9))]), ("b.jpg", [(None, None), (1, (1e-9, 1, 1e-9)), (2, (1e-9, 0.75, 0.25))]), ("c.jpg", [(None, None)])]  # fmt: skip
    rows = [
        Planted(
            key, tuple(np.log(p)) if p else (), (0, 0), facts={"captured_at": NIGHT + timedelta(seconds=n)}, crop=crop
        )
        for n, (key, crops) in enumerate(said)
        for crop, p in crops
    ]
    mark = Fingerprint({**MARK.facts, "detections_sha256": "ab"})
    footer = write_result(f"{place}/results", uri, "site=a/c1/1.tar", rows, replace(COLUMNS, crops=True), mark)
    assert (footer.images["ok"], footer.crops) == (3, 2)
    account = build(place)
    assert (account.events, account.images) == (1, 3)
    ((frames, ok, species, probability, best, whole),) = table(place, select="frames, ok, species, probability, best_frame, probabilities")  # fmt: skip
    assert (frames, ok, species, best) == (3, 3, "robin", f"{uri}#b.jpg")
    assert probability == pytest.approx(2 / 3)
    assert whole == pytest.approx([0.25, 2 / 3, 0.25 / 3])
    assert table(place, "images", "image_uri, frame") == [(f"{uri}#{key}.jpg", n) for n, key in enumerate("abc", 1)]
    with pytest.raises(UsageError, match="holds crops"):
        dataset.find(f"{place}/results").refuse_crops("export-camtrapdp")


@pytest.mark.parametrize("category", ["person", "human", "vehicle"])
def test_of_crops_those_of_people_and_vehicles_do_not_count(category: str, tmp_path: Path) -> None:
    place, uri = str(tmp_path), "s3://in/site=a/c1/1.tar"
    boxes = [("a.jpg", None, "", ()), ("a.jpg", 1, "animal", (4, 0, 0)), ("a.jpg", 2, category, (0, 9, 0)),
             ("b.jpg", None, "", ()), ("b.jpg", 1, category, (0, 9, 0))]  # fmt: skip
    rows = [
        Planted(key, logits, (0, 0), facts={"captured_at": NIGHT}, crop=crop, box=Box(name, 0.9, (0.0, 0.0, 0.5, 0.5)))
        for key, crop, name, logits in boxes
    ]
    mark = Fingerprint({**MARK.facts, "detections_sha256": "ab", "detection_categories": ["animal", category]})
    write_result(f"{place}/results", uri, "site=a/c1/1.tar", rows, replace(COLUMNS, crops=True), mark)
    build(place)
    assert table(place, select="species, best_frame, frames, ok") == [("owl", f"{uri}#a.jpg", 2, 2)]


def test_every_image_is_in_one_event_or_unassigned_with_the_reason(tmp_path: Path) -> None:
    place = str(tmp_path)
    write(f"{place}/results", "site=a/c1/1.tar", [at(0), at(5), at(None, key="x.jpg"), at(500)])
    lost = [at(7), at(None, key="y.jpg"), Planted("", status="failed", error="broken: cut")]
    write(f"{place}/results", "elsewhere/1.tar", lost)
    account = build(place)
    assert account.unassigned == {"no_time": 1, "no_deployment": 1, "no_time, no_deployment": 2}
    joined = duckdb.sql(f"""
        select key, events.frames, frame, q.reason from '{place}/results/**/*.parquet' as i
        left join '{place}/events/images/*.parquet' using (image_uri)
        left join '{place}/events/events/*.parquet' as events using (event_id)
        left join '{place}/events/unassigned/*.parquet' as q using (image_uri) order by key""")
    assert joined.fetchall() == [
        ("", None, None, "no_time, no_deployment"),
        ("DCIM/0.jpg", 2, 1, None),
        ("DCIM/5.jpg", 2, 2, None),
        ("DCIM/500.jpg", 1, 1, None),
        ("DCIM/7.jpg", None, None, "no_deployment"),
        ("x.jpg", None, None, "no_time"),
        ("y.jpg", None, None, "no_time, no_deployment"),
    ]


def test_images_of_one_moment_stay_in_the_order_of_their_file(tmp_path: Path) -> None:
    images = [at(5, key=f"{name}.jpg") for name in "zmak"] + [at(4, key="first.jpg")]
    write(f"{tmp_path}/results", "site=a/c1/1.tar", images)
    build(str(tmp_path))
    order = duckdb.sql(f"select image_uri from '{tmp_path}/events/images/*.parquet' order by frame").fetchall()
    assert [uri.rpartition("#")[2] for (uri,) in order] == ["first.jpg", "z.jpg", "m.jpg", "a.jpg", "k.jpg"]


def test_long_bursts_are_split_by_count(tmp_path: Path) -> None:
    write(f"{tmp_path}/results", "site=a/c1/1.tar", [at(0, key=f"{number}.jpg") for number in range(7)])
    assert build(str(tmp_path), Gap(60, 3)).events == 3
    assert sorted(row[0] for row in table(str(tmp_path), select="frames")) == [1, 3, 3]
    assert len({row[0] for row in table(str(tmp_path), select="event_id")}) == 3


@settings(max_examples=10)
@given(data=st.data())
def test_events_are_those_of_a_plain_walk_through_the_images(data: st.DataObject, tmp_path_factory: Any) -> None:
    place = str(tmp_path_factory.mktemp("walk"))
    gap = Gap(data.draw(st.sampled_from([0, 1.5, 10])), data.draw(st.none() | st.integers(1, 3)))
    moments = st.lists(st.floats(0, 40).map(lambda value: round(value, 1)), min_size=1, max_size=12)
    walks = []
    for camera in data.draw(st.lists(st.sampled_from(["x/1", "x/2", "y/1"]), min_size=1, max_size=3, unique=True)):
        seen = []
        for shard in range(data.draw(st.integers(1, 2))):
            drawn = data.draw(moments)
            images = [at(moment, key=f"{number}.jpg") for number, moment in enumerate(drawn)]
            write(f"{place}/results", f"site={camera}/{shard}.tar", images)
            seen += [(moment, shard, number) for number, moment in enumerate(drawn)]
        walks += [(camera, event) for event in walk(sorted(seen), gap)]
    assert build(place, gap).events == len(walks)
    mapped = duckdb.sql(f"""
        select events.deployment, list((epoch_ms(images.captured_at), shard, key) order by frame) from
            (select image_uri, captured_at, key, filename as shard
             from read_parquet('{place}/results/**/*.parquet', filename = true, hive_partitioning = false)) as images
        join read_parquet('{place}/events/images/*.parquet', hive_partitioning = false) as mapping using (image_uri)
        join read_parquet('{place}/events/events/*.parquet', hive_partitioning = false) as events using (event_id)
        group by events.deployment, event_id""").fetchall()
    start = NIGHT - datetime(1970, 1, 1)
    found = {
        (camera, tuple((round(ms / 1000 - start.total_seconds(), 1), name[-13], key) for ms, name, key in frames))
        for camera, frames in mapped
    }
    assert found == {
        (camera, tuple((moment, str(shard), f"{number}.jpg") for moment, shard, number in event))
        for camera, event in walks
    }


def walk(seen: list[tuple[float, int, int]], gap: Gap) -> list[list[tuple[float, int, int]]]:
    answer: list[list[tuple[float, int, int]]] = []
    for image in seen:
        late = not answer or round(image[0] - answer[-1][-1][0], 1) > gap.seconds
        if late or len(answer[-1]) == gap.max_frames:
            answer.append([])
        answer[-1].append(image)
    return answer


class TestAgain:
    @staticmethod
    def ids(place: str) -> list[tuple[Any, ...]]:
        return table(place, select="event_id, started_at")

    @staticmethod
    def files(place: str) -> dict[str, str]:
        return {
            entry.url.removeprefix(f"{place}/events/"): entry.identity for entry in store.list_files(f"{place}/events")
        }

    def plant(self, place: str) -> None:
        write(f"{place}/results", "site=a/c1/1.tar", [at(1000), at(1001)])
        write(f"{place}/results", "site=b/c1/1.tar", [at(0)])
        build(place)

    @pytest.mark.parametrize("kind", ["local", "s3"])
    def test_what_is_unchanged_is_not_written(self, kind: str, tmp_path: Path, bucket: str) -> None:
        place = folder(kind, tmp_path, bucket)
        self.plant(place)
        before, ids = self.files(place), self.ids(place)
        account = build(place)
        assert self.files(place) == before
        assert (account.unchanged, account.events, account.images) == (2, 2, 3)
        write(f"{place}/results", "site=a/c1/2.tar", [at(1), at(1062)])
        account = build(place)
        assert (account.unchanged, account.events) == (1, 4)
        after = self.files(place)
        assert {name for name in after if after[name] == before[name]} == {
            name for name in before if name.partition("/")[2].startswith("b-c1-")
        }
        assert set(ids) < set(self.ids(place)), "an event that is still the same has a new name"

    def test_half_a_deployment_is_written_again(self, tmp_path: Path) -> None:
        self.plant(str(tmp_path))
        before = self.files(str(tmp_path))
        for name in ("images", "events"):
            Path(event_dataset.table_url(f"{tmp_path}/events", name, "a/c1")).unlink()
            assert build(str(tmp_path)).unchanged == 1
        assert self.files(str(tmp_path)).keys() == before.keys()

    def test_other_options_stop_the_run_and_say_what_differs(self, tmp_path: Path) -> None:
        place = str(tmp_path)
        self.plant(place)
        before = self.files(place)
        with pytest.raises(
            OutputConflict, match=r"5 of its 5 tables were made with different settings \(gap: 60.0 -> 5"
        ):
            build(place, Gap(5))
        write(f"{place}/results", "site=a/c1/1.tar", [at(0)], mark=Fingerprint({"top_k": 3}))
        write(f"{place}/results", "site=b/c1/1.tar", [at(0)], mark=Fingerprint({"top_k": 3}))
        with pytest.raises(OutputConflict, match="results_fingerprint"):
            build(place)
        assert self.files(place) == before

    def test_replacing_leaves_nothing_of_what_was(self, tmp_path: Path) -> None:
        place = str(tmp_path)
        self.plant(place)
        account = build(place, sources=["site={deployment}/{camera}/…"], replace=True)
        assert (account.removed, account.unchanged) == (2, 0)
        assert {re.sub(r"-\w{12}\.", ".", name) for name in self.files(place)} == {
            "events/a.parquet", "events/b.parquet", "images/a.parquet", "images/b.parquet", "unassigned/unassigned.parquet",
        }  # fmt: skip

    def test_a_deployment_that_has_gone_goes(self, tmp_path: Path) -> None:
        self.plant(str(tmp_path))
        (tmp_path / "results/site=b/c1/1.tar.parquet").unlink()
        assert build(str(tmp_path)).removed == 1
        assert {row[0] for row in table(str(tmp_path), select="deployment")} == {"a/c1"}

    def test_the_events_of_another_archive_are_not_removed(self, tmp_path: Path) -> None:
        self.plant(str(tmp_path))
        write(f"{tmp_path}/others", "site=z/c1/1.tar", [at(0)])
        with pytest.raises(OutputConflict, match="results: "):
            module.build(dataset.find(f"{tmp_path}/others"), f"{tmp_path}/events", Options(Gap(), PATTERN))
        assert len(self.ids(str(tmp_path))) == 2

    def test_a_file_of_somebody_else_is_not_overwritten(self, tmp_path: Path) -> None:
        self.plant(str(tmp_path))
        theirs = Path(event_dataset.table_url(f"{tmp_path}/events", "events", "a/c1"))
        theirs.write_bytes(b"mine")
        with pytest.raises(OutputConflict, match=r"\.parquet: not written by `trapline events`"):
            build(str(tmp_path), replace=True)
        assert theirs.read_bytes() == b"mine"


def test_a_real_burst_of_a_camera_is_one_event(photographs: Path, tmp_path: Path) -> None:
    burst = sorted((photographs / "camtrap-dp").glob("*.JPG"))
    images = []
    for path in reversed(burst):
        _, facts = decode(path.read_bytes(), (64, 64))
        known = {name: value for name, value in asdict(facts).items() if name not in ("status", "error")}
        images.append(at(None, key=path.name, facts=known))
    for name, part in {"a.tar": images[:4], "b.tar": images[4:]}.items():
        write(f"{tmp_path}/results", name, part)
    account = build(str(tmp_path), sources=["serial"])
    assert (account.deployments, account.events, account.images) == (1, 1, 10)
    order = duckdb.sql(f"select image_uri from '{tmp_path}/events/images/*.parquet' order by frame").fetchall()
    first = [path.name for path in burst]
    assert sorted(uri.rpartition("#")[2] for (uri,) in order) == first
    ((started, ended),) = table(str(tmp_path), select="started_at, ended_at")
    assert 0 < (ended - started).total_seconds() < 60


@pytest.mark.parametrize("inside", ["results", "results/events", "."])
def test_events_and_results_do_not_lie_in_each_other(inside: str, tmp_path: Path) -> None:
    write(f"{tmp_path}/results", "site=a/c1/1.tar", [at(0)])
    with pytest.raises(UsageError, match="must be a folder of its own"):
        module.build(dataset.find(f"{tmp_path}/results"), f"{tmp_path}/{inside}", Options(Gap(), PATTERN))


def test_a_link_to_the_results_is_no_place_for_events(tmp_path: Path) -> None:
    write(f"{tmp_path}/results", "site=a/c1/1.tar", [at(0)])
    (tmp_path / "link").symlink_to(tmp_path / "results")
    with pytest.raises(UsageError, match="must be a folder of its own"):
        module.build(dataset.find(f"{tmp_path}/results"), f"{tmp_path}/link/events", Options(Gap(), PATTERN))


def test_tables_of_another_job_are_never_replaced(tmp_path: Path) -> None:
    write(f"{tmp_path}/results", "site=a/c1/1.tar", [at(0)])
    flat_tables.build(dataset.find(f"{tmp_path}/results"), f"{tmp_path}/events")
    (file,) = (tmp_path / "events").rglob("*.parquet")
    with pytest.raises(OutputConflict, match="a table that another job wrote"):
        build(str(tmp_path), replace=True)
    assert file.exists()


def test_an_image_whose_time_has_come_is_in_an_event_and_no_more_unassigned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = datetime.now() + timedelta(days=5)
    write(f"{tmp_path}/results", "site=a/c1/1.tar", [at(0), at(1, facts={"captured_at": soon})])
    assert build(str(tmp_path)).unassigned == {"implausible_time": 1}
    monkeypatch.setattr(module, "_AHEAD", timedelta(days=6))  # stands for the days that pass
    account = build(str(tmp_path))
    assert (account.unassigned, account.unchanged, account.events, account.images) == ({}, 0, 2, 2)
    assert len(table(str(tmp_path), "images")) == 2
    assert table(str(tmp_path), "unassigned") == []
    assert build(str(tmp_path)).unchanged == 1


def test_results_that_say_no_deployment_are_refused_with_an_example(tmp_path: Path) -> None:
    write(f"{tmp_path}/results", "site=a/c1/1.tar", [at(0)])
    with pytest.raises(
        UsageError,
        match=r"no image such as s3://in/site=a/c1/1.tar#DCIM/0.jpg names .* \(looked up in: serial\).* such as 'site=a/{deployment}/…'",
    ):
        build(str(tmp_path), sources=["serial"])
    assert not (tmp_path / "events").exists()


def test_a_model_without_classes_is_refused(tmp_path: Path) -> None:
    write(f"{tmp_path}/results", "site=a/c1/1.tar", [at(0, ())], of=columns([], 2, top_k=0))
    with pytest.raises(UsageError, match="has no classes"):
        build(str(tmp_path))


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    write(f"{tmp_path}/results", "site=a/c1/1.tar", [at(0)])
    found = dataset.find(f"{tmp_path}/results")
    path = tmp_path / "results/site=a/c1/1.tar.parquet"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(StorageError, match=r"results: .*1\.tar\.parquet"):
        module.build(found, f"{tmp_path}/events", Options(Gap(), PATTERN))


def three_cameras(place: str) -> None:
    for camera in range(3):
        images = [at(20 * number, np.random.default_rng(number).dirichlet((1, 1, 1))) for number in range(camera + 5)]
        write(f"{place}/results", f"site=a/c{camera}/1.tar", [*images, at(None, key="no time")])


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_cluster_writes_the_same_tables(
    kind: str, tmp_path: Path, bucket: str, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder(kind, tmp_path, bucket)
    three_cameras(place)
    account = build(place)
    files = [entry.url for entry in store.list_files(f"{place}/events")]
    here = store.read_many(files)
    for url in files:
        store.remove(url)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert build(place) == account
    assert [entry.url for entry in store.list_files(f"{place}/events")] == files
    assert store.read_many(files) == here
    assert (account.deployments, account.images, len(files)) == (3, 18, 7)


def test_a_deployment_that_takes_its_workers_along_is_named_and_the_others_are_done(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deadly(EventTables):
        def __call__(self, deployment: Deployment) -> int:
            if deployment.name == "a/c1":
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(deployment)

    three_cameras(str(tmp_path))
    with monkeypatch.context() as patched:
        patched.setenv("RAY_ADDRESS", "auto")
        patched.setattr(module, "EventTables", Deadly)
        with pytest.raises(
            TransientError, match=r"^1 deployments have no events yet, such as a/c1 \(.*; run it again$"
        ):
            build(str(tmp_path))
    assert {row[0] for row in table(str(tmp_path), select="deployment")} == {"a/c0", "a/c2"}
    assert build(str(tmp_path)).unchanged == 2
