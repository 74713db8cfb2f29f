"""The page, which a browser shows without a network."""

import asyncio
import json
import re
from hashlib import sha256
from html.parser import HTMLParser
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
    plant,
    seen,
)
from tests.support.result_files import MARK, columns, write_result
from trapline.analysis import dataset
from trapline.analysis.report import page, queries
from trapline.analysis.report.page import Options
from trapline.cli import rescore
from trapline.results.fingerprint import Fingerprint


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
        assert queries.by_site(connection).rows == [("Aves", "fen", 1), ("owl", "fen", 1)]
        _, head = ask(f"{tmp_path}/out", "metadata:station")
        assert head.unplaced == 2
        assert page.build(dataset.find(f"{tmp_path}/out"), Options()).missing == 2


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_it_whole(width: int, dark: bool, tmp_path: Path) -> None:
    hostile_archive(tmp_path / "in", str(tmp_path / "out"))
    path = tmp_path / "report.html"
    path.write_text(page.build(dataset.find(str(tmp_path / "out")), Options()).html)

    async def look(url: str) -> None:
        async with aiohttp.ClientSession() as session:
            shown = await (await browser.tab(session, url)).open(path, width, dark=dark)
            await shown.value("document.querySelectorAll('details').forEach(each => each.open = true)")
            assert shown.said == []
            assert [url for url in shown.asked if not url.startswith("data:")] == [path.as_uri()]
            assert await shown.value("document.documentElement.scrollWidth") == width
            boxes = json.loads(await shown.value(_BOXES))
            assert len(boxes) == 7
            assert all(box["width"] > 200 and box["height"] > 50 and box["marks"] > 0 for box in boxes), boxes
            assert all(box["right"] <= width for box in boxes), boxes
            images = await shown.value("[...document.images].map(each => each.naturalWidth).join()")
            assert images
            assert set(images.split(",")) == {"96"}

    with browser.chromium(tmp_path / "profile") as url:
        asyncio.run(look(url))


_BOXES = """JSON.stringify([...document.querySelectorAll('.chart svg')].filter(each => each.checkVisibility()).map(each => ({
    ...each.getBoundingClientRect().toJSON(), marks: each.querySelectorAll('.role-mark path, .role-mark line').length})))"""
