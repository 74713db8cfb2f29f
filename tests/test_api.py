"""The Python API: what `import trapline` gives, and the examples of docs/api.md, run as they stand there."""

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import Any, ClassVar

import pyarrow.dataset as ds
import pytest

import trapline
from tests.support.archives import jpeg, pictures, write_tar
from tests.support.checkout import ROOT
from trapline.errors import UsageError

MODEL = "birder-project/hiera_abswin_base_mim-intermediate-eu-common"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/api.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the examples run: with an archive and a model."""
    for number, site in enumerate(("fen", "heath")):
        write_tar(tmp_path / f"archive/site={site}/0001.tar", pictures(5, first=5 * number))
    shutil.copy(tiny_model, tmp_path / "model.pt")
    for number, name in enumerate(("owl", "robin")):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg(number))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("ray_session")
def test_the_examples_of_the_page_run_as_they_stand(folder: Path) -> None:
    names: dict[str, Any] = {}
    for example in EXAMPLES:
        exec(example.replace(MODEL, "model.pt"), names)
    assert len(EXAMPLES) >= 5
    assert names["manifest"].images == {"ok": 5, "salvaged": 0, "failed": 0}
    assert names["observer"].speed > 0
    assert (names["probabilities"].shape, names["embeddings"].shape) == ((2, 5), (2, 128))
    assert {*names["maps"]} == {"stage2", "stage4"}
    assert ds.dataset(folder / "results", format="parquet").count_rows() == 10


@pytest.mark.usefixtures("ray_session")
def test_when_ray_has_ended_the_caller_hears_of_it_and_is_not_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Event()

    class Waiting:
        notes: ClassVar[list[str]] = []

        def __call__(self, progress: object) -> None:
            assert told.wait(60)

        def note(self, text: str) -> None:
            self.notes.append(text)
            told.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    monkeypatch.setattr("trapline.run.capacity.ports", lambda: {"raylet": address})  # where none listens any more
    trapline.classify(inputs="archive", output="out", model="model.pt", observer=Waiting())
    reason = "Ray has ended: its raylet died or was stopped; run the same command again to carry on"
    assert Waiting.notes == [reason]
    (written,) = (folder / "out/_trapline/runs").iterdir()
    manifest = json.loads(written.read_text())
    assert (manifest["status"], manifest["ended_by"]) == ("aborted", reason)


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, trapline; dir(trapline); trapline.classify; print({'torch', 'ray', 'PIL', 'pydantic'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_every_public_name_is_there_and_others_are_not() -> None:
    assert {*trapline.__all__} <= {*dir(trapline)}
    for name in trapline.__all__:
        assert getattr(trapline, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'clasify'"):
        trapline.clasify  # noqa: B018


@pytest.mark.parametrize(
    ("options", "message"),
    [({"topk": 3}, r"topk=3: .*not permitted"), ({"top_k": 0}, "top_k=0: .*greater than or equal to 1")],
)
def test_an_option_that_cannot_be_is_a_usage_error_of_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refusal:
        trapline.classify(inputs="archive", output="results", model="model.pt", **options)
    assert "\n" not in str(refusal.value)
