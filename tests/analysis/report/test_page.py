"""The page, which a browser shows without a network."""

import asyncio
import json
import re
from datetime import datetime
from hashlib import sha256
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import aiohttp
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support import browser
from tests.support.archives import jpeg, write_tar
from tests.support.report import (
    COLUMNS,
    HOSTILE,
    UNSURE,
    ask,
    failed,
    hostile_archive,
    make_events,
    plant,
    seen,
)
from tests.support.result_files import MARK, columns, write_result
from trapline.analysis import dataset
from trapline.analysis.report import page, sightings
from trapline.analysis.report.page import Options
from trapline.cli import rescore
from trapline.errors import UsageError
from trapline.results.fingerprint import Fingerprint

# What checks pages for people who cannot see them, or cannot use a mouse; the page is checked where it is installed.
_AXE_PACKAGE = find_spec("axe_core_python")
_AXE = _AXE_PACKAGE and _AXE_PACKAGE.origin and Path(_AXE_PACKAGE.origin).with_name("axe.min.js")


class Outline(HTMLParser):
    """What a page is made of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text += data


class TestPage:
    def test_names_are_text_and_nothing_else(self, tmp_path: Path) -> None:
        hostile_archive(tmp_path / "in", str(tmp_path / "out"))
        built = page.build(
            dataset.find(str(tmp_path / "out")), Options(deployment_from=("site={site}/{camera}/*.tar",))
        )
        outline = Outline(built.html)
        assert "script" not in outline.tags
        assert HOSTILE in outline.text
        assert all(link.startswith(("#", "data:")) for link in outline.links)
        assert not re.search(r"<[^>]*\son\w+=", built.html)
        assert built.shown >= 12
        assert built.missing == 1
        assert "1.tar does not hold it any more" in outline.text

    def test_a_missing_shard_is_named(self, tmp_path: Path) -> None:
        archive = tmp_path / "in"
        data = jpeg(1)
        write_tar(archive / "site=fen/c1/1.tar", {"a.jpg": data})
        plant(
            str(tmp_path / "out"), "fen/c1", [seen("a.jpg", content_sha256=sha256(data).digest())], archive=str(archive)
        )
        plant(str(tmp_path / "out"), "fen/c2", [seen("b.jpg", logits=(0, 3, 0))], archive=str(archive))
        built = page.build(dataset.find(str(tmp_path / "out")), Options())
        assert (built.shown, built.missing) == (1, 1)
        assert f"{archive}/site=fen/c2/1.tar: not found" in Outline(built.html).text

    def test_pictures_are_read_from_the_column_of_parquet_that_was_classified(self, tmp_path: Path) -> None:
        data, other = jpeg(1), jpeg(2)
        shard = tmp_path / "in" / "1.parquet"
        shard.parent.mkdir()
        pq.write_table(pa.table({"image": [other], "night": [data], "path": ["a.jpg"]}), shard)
        mark = Fingerprint({**MARK.facts, "image_column": "night"})
        images = [seen("a.jpg", content_sha256=sha256(data).digest())]
        write_result(f"{tmp_path}/out", str(shard), "1.parquet", images, COLUMNS, mark)
        assert rescore.main([f"{tmp_path}/out", f"{tmp_path}/rescored", "--temperature", "2"]) == 0
        for results in ("out", "rescored"):
            built = page.build(dataset.find(f"{tmp_path}/{results}"), Options())
            assert (built.shown, built.missing) == (1, 0)

    def test_a_clip_is_shown_by_its_best_frame_and_named_as_one(self, tmp_path: Path) -> None:
        about = {"media_type": "video", "captured_at": datetime(2024, 5, 1, 22, 30)}
        frames = [
            seen("b.mp4", logits=(0, sureness, 0), frame_seconds=float(second), **about)
            for second, sureness in ((3, 1), (67, 4), (69, 3))
        ]
        plant(str(tmp_path), "fen/c1", [seen("a.jpg"), seen("b.mp4", logits=(0, 3, 0), **about), *frames])
        built = page.build(dataset.find(str(tmp_path)), Options())
        assert (built.shown, built.missing) == (0, 2)  # neither is to be had
        text = " ".join(Outline(built.html).text.split())
        assert "robin 91 % fen/c1 · 2024-05-01 22:30 · clip, at 1:07 image_uri/nowhere/site=fen/c1/1.tar#b.mp4" in text
        assert "owl 96 % fen/c1 · 2024-05-01 12:00 image_uri/nowhere" in text
        assert "/nowhere/site=fen/c1/1.tar: not found" in text

    def test_no_pictures_are_fetched_where_none_are_allowed(self, tmp_path: Path) -> None:
        plant(str(tmp_path), "fen/c1", [seen("a.jpg")])
        built = page.build(dataset.find(str(tmp_path)), Options(pictures=0))
        assert (built.shown, built.missing) == (0, 0)
        assert "--pictures allows no more" in built.html

    def test_a_model_without_classes_and_embeddings_leaves_what_decoding_knows(self, tmp_path: Path) -> None:
        bare = columns([], 0, top_k=0, embedding="none")
        plant(str(tmp_path), "fen/c1", [seen("a.jpg", logits=(), embedding=()), failed("b.jpg")], bare)
        built = page.build(dataset.find(str(tmp_path)), Options())
        assert "There is no picture that the model has named" in built.html
        assert "These results have no energies" in built.html

    def test_cameras_that_no_chart_shows_are_named(self, tmp_path: Path) -> None:
        for number in range(30):
            images = [seen(f"{day}-{n}.jpg", day) for day in range(10) for n in range(30 - number)]
            plant(str(tmp_path), f"fen/c{number:02}", images)
        plant(str(tmp_path), "moor/early", [seen(f"{n}.jpg", n - 190) for n in range(50)])
        plant(str(tmp_path), "moor/undated", [seen("a.jpg", captured_at=None)])
        text = " ".join(Outline(page.build(dataset.find(str(tmp_path)), Options(pictures=0)).html).text.split())
        named = text.partition("Not in this chart")[2].partition(".")[0]
        assert "fen/c29 (10)" in named
        assert "moor/early (50)" in named
        assert "moor/undated (1)" in named
        assert "fen/c00" not in named

    def test_images_without_time_and_place_are_counted(self, tmp_path: Path) -> None:
        plant(str(tmp_path), "fen/c1", [seen("a.jpg", captured_at=None)])
        built = page.build(dataset.find(str(tmp_path)), Options(deployment_from=("serial",)))
        text = " ".join(Outline(built.html).text.split())
        assert "Without a time: 1." in text
        assert "Of 1 it is not said." in text

    def test_the_taxon_of_rescored_rows_is_their_label(self, tmp_path: Path) -> None:
        plant(f"{tmp_path}/in", "fen/c1", [seen("a.jpg"), seen("b.jpg", 0, UNSURE)])
        table = tmp_path / "taxonomy.csv"
        table.write_text(
            "species,genus,family,class\nowl,Strix,Strigidae,Aves\nrobin,Erithacus,Muscicapidae,Aves\nwren,Troglodytes,Troglodytidae,Aves\n"
        )
        assert rescore.main([f"{tmp_path}/in", f"{tmp_path}/out", "--taxonomy", str(table)]) == 0
        connection, _ = ask(f"{tmp_path}/out")
        sightings.from_images(connection)
        assert sightings.by_site(connection, "images").rows == [("Aves", "fen", 1), ("owl", "fen", 1)]
        _, head = ask(f"{tmp_path}/out", "metadata:station")
        assert head.unplaced == 2
        assert page.build(dataset.find(f"{tmp_path}/out"), Options()).missing == 2


class TestEvents:
    def test_a_page_of_events_counts_events_and_says_how_long_cameras_stood_there(self, tmp_path: Path) -> None:
        results, events = f"{tmp_path}/results", f"{tmp_path}/events"
        plant(results, "fen/c1", [seen("a.jpg"), seen("b.jpg", 0.0001), seen("c.jpg", 0.01), seen("d.jpg", 9)])
        plant(
            results, "moor/c2", [seen("e.jpg", 1, (0, 4, 0), latitude=52.5, longitude=13.25), seen("f.jpg", 2, UNSURE)]
        )
        (tmp_path / "d.csv").write_text(
            "deploymentID,latitude,longitude,deploymentStart,deploymentEnd\nfen/c1,52,13,2024-05-01,2024-05-20\n"
            "fen/late,52.1,13,2024-05-01,2024-05-03\nmoor/c2,,,,\nmoor/c4,,,2024-05-01,\n"
        )
        plant(results, "moor/c3", [seen("g.jpg"), seen("h.jpg", captured_at=None)])
        make_events(results, events, deployments=f"{tmp_path}/d.csv")
        found = dataset.find(results)
        built = page.build(found, Options(pictures=0, events=events))
        assert built.survey
        assert (built.survey.events, built.survey.independent, built.survey.days) == (5, 3, 20 + 2 + 3)
        assert (built.survey.units, built.survey.declared, built.survey.unknown) == (4, 2, 1)
        text = " ".join(Outline(built.html).text.split())
        assert "Left out, since the model was less than 50 % sure: 1." in text
        assert "Images in no event: 1 (deployment not in table), 1 (no time, deployment not in table)." in text
        assert "Of 2 deployments from start to end, as these were given" in text
        assert "Of 1 nothing says how long they stood there" in text
        assert "Of 1 deployment from the first image to the last, both days counted" in text
        assert "owl 2 8.0 0.25 1 of 4 fen 2 96 % 1 May – 10 May 2024" in text
        assert {"map", "history", "by_site"} <= set(re.findall(r'<figure class="card chart" id="(\w+)"', built.html))
        assert "Not on the map, since nothing says where they stand: moor/c4." in text

    def test_corrected_clocks_and_rescored_names_are_those_of_the_events(self, tmp_path: Path) -> None:
        results, rescored, events = (f"{tmp_path}/{name}" for name in ("results", "rescored", "events"))
        plant(results, "fen/c1", [seen("a.jpg", -8900, (4, 3.9, 0)), seen("b.jpg", -8899, (4, 3.9, 0))])
        plant(results, "fen/c2", [seen("c.jpg", 1, (4, 3.9, 0))])
        (tmp_path / "species.csv").write_text("species\nrobin\nwren\n")
        assert rescore.main([results, rescored, "--species", f"{tmp_path}/species.csv"]) == 0
        (tmp_path / "clocks.csv").write_text("deployment,offset\nfen/c1,8900d 00:00:00\n")
        make_events(rescored, events, corrections=f"{tmp_path}/clocks.csv")
        built = page.build(dataset.find(rescored), Options(pictures=0, events=events))
        assert (built.headline.days, built.headline.outside) == (2, 0)
        assert "robin" in built.html
        assert "owl" not in Outline(built.html).text

    def test_options_that_contradict_the_events_are_refused(self, tmp_path: Path) -> None:
        results, events = f"{tmp_path}/results", f"{tmp_path}/events"
        plant(results, "fen/c1", [seen("a.jpg")])
        make_events(results, events)
        found = dataset.find(results)
        with pytest.raises(UsageError, match=r"made with .*; leave it out"):
            page.build(found, Options(events=events, deployment_from=("serial",)))
        assert page.build(found, Options(pictures=0, events=events, deployment_from=("site={site}/{camera}/…",))).survey
        plant(results, "fen/c2", [seen("a.jpg")])
        with pytest.raises(UsageError, match="run `trapline events` again"):
            page.build(dataset.find(results), Options(events=events))


@pytest.fixture(scope="module")
def hostile_pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pages about hostile names: of images, and of events."""
    folder = tmp_path_factory.mktemp("hostile")
    results, events = f"{folder}/out", f"{folder}/events"
    hostile_archive(folder / "in", results)
    make_events(results, events)
    pages = []
    for name, options in {"images": Options(), "events": Options(events=events, sure=0.3)}.items():
        html = page.build(dataset.find(results), options).html
        outline = Outline(html)
        assert "script" not in outline.tags
        assert HOSTILE in outline.text
        assert not re.search(r"<[^>]*\son\w+=", html)
        pages.append(folder / f"{name}.html")
        pages[-1].write_text(html)
    return pages


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_shows_it_whole(hostile_pages: list[Path], tmp_path: Path) -> None:
    async def look(url: str) -> None:
        async with aiohttp.ClientSession() as session:
            for path, width, dark in ((path, *how) for path in hostile_pages for how in ((390, True), (1200, False))):
                shown = await (await browser.tab(session, url)).open(path, width, dark=dark)
                await shown.value("document.querySelectorAll('details').forEach(each => each.open = true)")
                assert shown.said == []
                assert [url for url in shown.asked if not url.startswith("data:")] == [path.as_uri()]
                assert await shown.value("document.documentElement.scrollWidth") == width
                boxes = json.loads(await shown.value(_BOXES))
                assert len(boxes) == (8 if path.stem == "events" else 7)
                assert all(box["width"] > 200 and box["height"] > 50 and box["marks"] > 0 for box in boxes), boxes
                assert all(box["right"] <= width for box in boxes), boxes
                images = await shown.value("[...document.images].map(each => each.naturalWidth).join()")
                assert images
                assert set(images.split(",")) == {"96"}
                if _AXE:
                    assert json.loads(await shown.run(_AXE.read_text(), _SERIOUS)) == []
                await shown.print_on_a4()
                assert json.loads(await shown.value(_CUT_OFF)) == []
                await shown.close()

    with browser.chromium(tmp_path / "profile") as url:
        asyncio.run(look(url))


_BOXES = """JSON.stringify([...document.querySelectorAll('.chart svg')].filter(each => each.checkVisibility()).map(each => ({
    ...each.getBoundingClientRect().toJSON(), marks: each.querySelectorAll('.role-mark path, .role-mark line').length})))"""
# On paper nobody can scroll: what is wider than its box, or than the page, is lost.
_CUT_OFF = """JSON.stringify([...document.querySelectorAll('.scroll, td, th, .chart svg')]
    .filter(each => each.checkVisibility())
    .filter(each => each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).display !== 'inline'
        || each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML.slice(0, 200)))"""
_SERIOUS = """axe.run().then(found => JSON.stringify(found.violations
    .filter(each => ['serious', 'critical'].includes(each.impact))
    .map(each => [each.id, each.nodes.map(node => [node.html.slice(0, 200), node.failureSummary]).slice(0, 3)])))"""
