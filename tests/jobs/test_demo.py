"""The demo: drawn birds, an archive of all formats, and a small model that learns from them."""

import csv
import hashlib
import json
from collections import Counter
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from birder.common.fs_ops import load_model
from PIL import Image, ImageChops, ImageStat

from jobs import demo
from jobs.demo.archive import BROKEN, CAMERAS, CLIPS, FRAME, TRUNCATED, Photograph, build_archive
from jobs.demo.drawing.birds import SPECIES, Species
from jobs.demo.drawing.habitats import HABITATS
from jobs.demo.drawing.scenes import draw_scene
from jobs.demo.model import CLASSES, SIZE, draw_examples, new_network, normalise, save, train
from tests.support import camtrapdp_package as packages
from tests.support.numerics import assert_as_exact, exact
from trapline.decoding.clips import ClipFile
from trapline.decoding.decode import Facts, decode
from trapline.decoding.media import decode_media
from trapline.model import checkpoint
from trapline.sources import records, shards
from trapline.sources.records import Record

IMAGES = 27
FORMATS = {"tar": 4, "parquet": 1, "zip": 2, "folder": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Photograph]]:
    folder = tmp_path_factory.mktemp("demo") / "archive"
    return folder, build_archive(folder, seed=3, images=IMAGES)


@pytest.fixture(scope="module")
def found(made: tuple[Path, list[Photograph]]) -> dict[str, tuple[str, Record, Facts]]:
    """By file name: the shard, and what the pipeline itself reads there."""
    folder, _ = made
    images = {}
    for shard in shards.discover([str(folder)], str(folder.parent / "output")).shards:
        for record in records.read(shard, Counter()):
            name = record.key.rpartition("/")[2]
            if record.clip:
                continue
            assert record.data is not None
            images[name] = shard.uri.removeprefix(f"{folder}/"), record, decode(record.data, SIZE)[1]
    return images


class TestTheArchive:
    def test_it_holds_every_format_with_junk_between(self, made: tuple[Path, list[Photograph]]) -> None:
        folder, _ = made
        discovery = shards.discover([str(folder)], str(folder.parent / "output"))
        assert Counter(shard.format for shard in discovery.shards) == FORMATS
        ignored = Counter(discovery.ignored)
        for shard in discovery.shards:
            list(records.read(shard, ignored))
        assert set(ignored) == {"Thumbs.db", ".DS_Store", "._*"}

    def test_it_holds_the_photographs_of_the_truth_and_the_broken_ones(
        self, made: tuple[Path, list[Photograph]], found: dict[str, tuple[str, Record, Facts]]
    ) -> None:
        folder, truth = made
        assert len(truth) == IMAGES
        assert set(found) == {each.name for each in truth} | {name for name, _ in BROKEN}
        assert all(found[each.name][0] == each.shard for each in truth)
        with (folder.parent / "truth.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert [(row["name"], row["species"]) for row in rows] == [(each.name, each.species) for each in truth]

    def test_its_clips_have_the_cameras_clock(self, made: tuple[Path, list[Photograph]]) -> None:
        folder, found = made[0], {}
        for shard in shards.discover([str(folder)], str(folder.parent / "output")).shards:
            for record in records.read(shard, Counter()):
                if record.clip:
                    clip = ClipFile(record.clip.path, record.clip.sha256)
                    found[record.key.rpartition("/")[2]] = shard.uri, decode_media(clip, SIZE)[1]
        assert {name: facts.captured_at for name, (_, facts) in found.items()} == {
            each.name: each.captured_at for each in CLIPS
        }
        for each in CLIPS:
            uri, facts = found[each.name]
            assert uri.endswith(each.shard)
            assert (facts.status, facts.format, facts.duration_seconds, facts.frame_rate) == ("ok", "avi", 4.0, 5.0)
            site = next(camera.site for camera in CAMERAS if each.shard in camera.shards)
            assert site in next(species for species in SPECIES if species.name == each.species).habitats

    def test_broken_files_are_broken_in_three_ways(
        self, made: tuple[Path, list[Photograph]], found: dict[str, tuple[str, Record, Facts]]
    ) -> None:
        cut_short = [each.name for each in made[1] if each.shard == TRUNCATED][-1]
        facts = {name: facts for name, (_, _, facts) in found.items() if facts.status != "ok"}
        assert set(facts) == {cut_short, *dict(BROKEN)}
        assert facts[cut_short].status == "salvaged"
        assert {facts[name].error.partition(":")[0] for name, _ in BROKEN} == {"empty", "not_an_image"}

    def test_exif_tells_time_and_camera(
        self, made: tuple[Path, list[Photograph]], found: dict[str, tuple[str, Record, Facts]]
    ) -> None:
        cameras = {shard: camera for camera in CAMERAS for shard in camera.shards}
        for each in made[1]:
            camera, facts = cameras[each.shard], found[each.name][2]
            assert (facts.width, facts.height) == FRAME
            assert facts.captured_at.replace(microsecond=0) == each.captured_at
            assert (facts.camera_make, facts.camera_model) == (camera.make, camera.model)
            assert facts.camera_serial == camera.serial
            known = camera.gps if camera.gps != (0.0, 0.0) else None
            assert (facts.latitude, facts.longitude) == (pytest.approx(known, abs=1e-5) if known else (None, None))
        assert any(facts.captured_at.microsecond for _, _, facts in found.values() if facts.captured_at)

    def test_tars_carry_the_truth_in_sidecars(
        self, made: tuple[Path, list[Photograph]], found: dict[str, tuple[str, Record, Facts]]
    ) -> None:
        in_tars = [each for each in made[1] if ".tar" in each.shard]
        assert in_tars
        for each in in_tars:
            assert json.loads(found[each.name][1].metadata or "")["species"] == each.species

    def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
        self, made: tuple[Path, list[Photograph]], tmp_path: Path
    ) -> None:
        def contents(folder: Path) -> dict[str, bytes]:
            return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

        build_archive(tmp_path / "same", seed=3, images=IMAGES)
        build_archive(tmp_path / "other", seed=4, images=9)
        first, same, other = (contents(folder) for folder in (made[0], tmp_path / "same", tmp_path / "other"))
        assert first == same
        assert not set(other.values()) & {data for name, data in first.items() if "0001" in name}


class TestScenes:
    @pytest.mark.parametrize("species", SPECIES, ids=lambda species: species.name)
    def test_every_bird_is_drawn_by_day_in_colours_and_by_night_without(self, species: Species) -> None:
        day, night = (draw_scene(np.random.default_rng(1), species, night, (160, 120)) for night in (False, True))
        assert day.mode == night.mode == "RGB"
        assert day.size == night.size == (160, 120)
        red, green, blue = night.split()
        assert red.tobytes() == green.tobytes() == blue.tobytes()
        assert len(set(day.split()[0].tobytes())) > 50
        assert ImageStat.Stat(ImageChops.difference(*day.split()[::2])).mean[0] > 2
        assert ImageStat.Stat(night).mean[0] < ImageStat.Stat(day).mean[0]

    def test_a_scene_is_the_same_at_any_size(self) -> None:
        small, large = (
            draw_scene(np.random.default_rng(5), SPECIES[2], False, size) for size in ((160, 120), (480, 360))
        )
        other = draw_scene(np.random.default_rng(6), SPECIES[2], False, (160, 120))
        large = large.resize(small.size, Image.Resampling.BOX)
        assert difference(small, large) < 10 < difference(small, other)

    def test_birds_live_where_there_is_something_to_sit_on(self) -> None:
        perches = {habitat.name: set(habitat.perches) for habitat in HABITATS}
        for species in SPECIES:
            assert all(perches[name] & set(species.perches) for name in species.habitats)


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.mean(ImageStat.Stat(ImageChops.difference(one, other)).mean))


@pytest.fixture(scope="module")
def examples() -> tuple[torch.Tensor, torch.Tensor]:
    drawn = list(draw_examples(seed=11, count=192))
    return torch.stack([pixels for pixels, _ in drawn]), torch.tensor([label for _, label in drawn])


class TestTheModel:
    def test_it_learns(self, examples: tuple[torch.Tensor, torch.Tensor]) -> None:
        network = new_network(examples[0], seed=1)
        losses = list(train(network, *examples, epochs=8, seed=1))
        assert len(losses) == 8 * 3
        assert losses[0] == pytest.approx(np.log(len(CLASSES)), abs=0.05)
        assert np.mean(losses[-3:]) < 0.8 * losses[0]

    def test_birder_and_the_pipeline_load_it_and_see_the_same(
        self, examples: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
    ) -> None:
        network = new_network(examples[0], seed=1)
        list(train(network, *examples, epochs=1, seed=1))
        save(network, tmp_path / "model.pt")

        ours = checkpoint.load(str(tmp_path / "model.pt"))
        theirs, info = load_model(torch.device("cpu"), "hiera_abswin_base", path=tmp_path / "model.pt", inference=True)
        assert ours.classes == CLASSES == tuple(sorted(info.class_to_idx, key=info.class_to_idx.__getitem__))
        assert ours.rgb_mean == tuple(info.rgb_stats["mean"])
        pixels = normalise(examples[0][:16])
        with torch.inference_mode():
            peer, truth = theirs(pixels), exact(theirs)(pixels.double())
            assert_as_exact(network(pixels), peer, truth, "the network that was trained")
            assert_as_exact(ours.network(pixels), peer, truth, "the one that was loaded")
        assert truth.std(dim=0).min() > 1e-3


def assert_the_package_is_valid_and_complete(folder: Path) -> None:
    """Hold the package that the chain ends in to the official rules, to the truth, and to the rescored results."""
    package = str(folder / "package")
    assert packages.problems(package, folder / "check") == []
    with (folder / "truth.csv").open() as stream:
        truth = {row["name"]: row for row in csv.DictReader(stream)}
    truth |= {each.name: {"shard": each.shard, "captured_at": str(each.captured_at)} for each in CLIPS}
    media = packages.rows(package, "media")
    assert {row["fileName"] for row in media} == truth.keys()
    for row in media:
        taken = truth[row["fileName"]]
        camera, _, number = row["deploymentID"].partition("-")
        assert f"/{camera}/" in taken["shard"]
        assert number == ("2" if camera == "cam5" and taken["captured_at"] >= "2024-05-20 12" else "1")
        assert row["timestamp"] == taken["captured_at"].replace(" ", "T") + "+01:00"
    rows = [row for row in pq.read_table(folder / "rescored").to_pylist() if row["frame_seconds"] is None]
    names = {row["image_uri"]: row["species"] for row in rows}
    by_id = {hashlib.sha256(uri.encode()).hexdigest()[:32]: name for uri, name in names.items()}
    homes = {species.name: species.habitats for species in SPECIES}
    place = {row["deploymentID"]: row["locationName"] for row in packages.rows(package, "deployments")}
    told = [row for row in packages.rows(package, "observations") if row["mediaID"]]
    assert len(told) == len(media)
    for row in told:
        name = row["scientificName"] or row["observationTags"].partition("mostProbable:")[2].partition(" | ")[0]
        assert name == by_id[row["mediaID"]]
        assert place[row["deploymentID"]] in homes[name]


@pytest.mark.usefixtures("ray_session")
def test_the_demo_runs_to_its_end_and_a_second_run_finds_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("PHOTOGRAPHS", 18), ("EXAMPLES", 64), ("EPOCHS", 1)):
        monkeypatch.setattr(demo, name, value)
    assert demo.main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "22 = 19 ok, 1 salvaged, 2 failed" in shown
    assert "if not, taken for" in shown
    assert "GROUP BY species" in shown
    assert_the_package_is_valid_and_complete(tmp_path)
    assert f"report    {tmp_path}/report.html" in shown
    assert (tmp_path / "report.html").read_text().count("data:image/jpeg") >= 8

    began = datetime.now()
    assert demo.main([str(tmp_path)]) == 0
    assert "Nothing to do: all 9 shards (22 images) are done." in capsys.readouterr().out
    assert max(file.stat().st_mtime for file in (tmp_path / "archive").rglob("*")) < began.timestamp()
