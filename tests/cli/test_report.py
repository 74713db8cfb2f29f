"""`trapline report`, as a command."""

from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.archives import jpeg, write_tar
from tests.support.report import UNSURE, plant, seen
from trapline.cli import report as job
from trapline.storage import store


class TestCommand:
    def test_writes_the_page_on_a_store(self, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        members = {f"{n}.jpg": jpeg(n) for n in range(4)}
        path = write_tar(tmp_path / "1.tar", members)
        store.put_file(f"{bucket}/in/site=fen/c1/1.tar", str(path))
        images = [seen(name, n, content_sha256=sha256(data).digest()) for n, (name, data) in enumerate(members.items())]
        plant(f"{bucket}/out", "fen/c1", images, archive=f"{bucket}/in")
        plant(f"{bucket}/out", "fen/c2", [seen("gone.jpg", logits=UNSURE)], archive=f"{bucket}/in")
        assert job.main([f"{bucket}/out", f"{bucket}/report.html"]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert said.startswith("images 5 of 2 cameras at 1 sites pictures 4 fetched, 1 could not be read")
        html = store.read_text(f"{bucket}/report.html")
        assert html.count("data:image/jpeg") >= 4
        assert "fen/c1" in html

    def test_an_archive_without_images_is_an_error_of_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert job.main([str(tmp_path), f"{tmp_path}/report.html"]) == 2
        assert "holds no results; `trapline classify` writes them" in capsys.readouterr().err
        plant(str(tmp_path), "fen/c1", [])
        assert job.main([str(tmp_path), f"{tmp_path}/report.html"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "its 1 results hold no image" in line
        assert not (tmp_path / "report.html").exists()

    def test_an_invalid_source_of_deployments_is_an_error(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        plant(str(tmp_path), "fen/c1", [seen("a.jpg")])
        assert job.main([str(tmp_path), f"{tmp_path}/r.html", "--deployment-from", "nothing"]) == 2
        assert "neither a pattern with names" in capsys.readouterr().err
