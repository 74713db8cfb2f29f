"""Where checkpoints come from: any URL, and a server that speaks the protocol of the Hugging Face hub."""

import hashlib
import http.server
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.support.checkout import ROOT
from trapline.errors import CheckpointError
from trapline.model.download import fetch
from trapline.storage import retry


class Server(http.server.ThreadingHTTPServer):
    """Serves files as the hub does; counts what is asked for, and can break off a download midway, or dribble."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.gets: list[tuple[str, str | None]] = []
        self.break_off_at: int | None = None
        self.dribbles = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        data = self.server.files.get(self.path)
        if data is None:
            known = any(path.startswith(self.path.partition("/resolve/")[0]) for path in self.server.files)
            self.answer(404, X_Error_Code="EntryNotFound" if known else "RepoNotFound")
        elif "/resolve/" in self.path:  # large files lie on another host, and the hub tells where
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            location = f"http://localhost:{self.server.server_port}/elsewhere{self.path}"
            self.answer(302, Location=location, X_Linked_Size=str(len(data)), X_Linked_Etag=etag)
        else:
            self.answer(200, Content_Length=str(len(data)), ETag=f'"{hashlib.md5(data).hexdigest()}"')

    def do_GET(self) -> None:
        data = self.server.files.get(self.path.removeprefix("/elsewhere"))
        if data is None:
            return self.do_HEAD()
        self.server.gets.append((self.path, self.headers["Range"]))
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        ranges = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        self.answer(206 if start else 200, Content_Length=str(len(data) - start), **ranges)
        while self.server.dribbles.is_set():  # 100 bytes/s: on no machine does a megabyte arrive in time
            self.wfile.write(b"0")
            time.sleep(0.01)
        self.wfile.write(data[start : self.server.break_off_at])
        self.server.break_off_at = None
        return None

    def answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        revision = self.path.partition("/resolve/")[2].partition("/")[0]
        commit = hashlib.sha1(revision.encode()).hexdigest()
        for name, value in ({"X_Repo_Commit": commit, "Content_Length": "0"} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class TestURLs:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(retry, "_PAUSES", ())
        return tmp_path / "cache"

    def test_a_url_is_downloaded_once_and_again_when_it_changes(self, server: Server) -> None:
        server.files["/models/small.pt"] = b"first"
        url = f"{server.url}/models/small.pt"
        assert [fetch(url).read_bytes(), fetch(url).read_bytes(), len(server.gets)] == [b"first", b"first", 1]
        assert fetch(url).name == "small.pt"
        server.files["/models/small.pt"] = b"other"
        assert [fetch(url).read_bytes(), len(server.gets)] == [b"other", 2]

    def test_a_signed_url_will_do(self, server: Server) -> None:
        server.files[path := "/models/small.pt?signature=" + 300 * "x"] = b"signed"
        assert (fetch(server.url + path).name, fetch(server.url + path).read_bytes()) == ("small.pt", b"signed")

    def test_a_download_that_breaks_off_leaves_nothing_behind(self, server: Server, cache: Path) -> None:
        server.files["/small.pt"] = bytes(100_000)
        server.break_off_at = 50_000
        with pytest.raises(CheckpointError, match=r"/small.pt: .*(cannot be fetched|50000 of 100000 bytes)"):
            fetch(f"{server.url}/small.pt")
        assert not [path for path in cache.rglob("*") if path.is_file()]
        assert fetch(f"{server.url}/small.pt").stat().st_size == 100_000

    def test_an_error_shows_no_secrets_of_the_url(self) -> None:
        with pytest.raises(CheckpointError, match=r"^http://127.0.0.1:9/small.pt\?…: cannot be fetched") as caught:
            fetch("http://user:secret@127.0.0.1:9/small.pt?signature=secret")
        assert "secret" not in str(caught.value)

    def test_a_url_on_this_machine_is_not_copied(self, tiny_model: Path) -> None:
        assert fetch(tiny_model.as_uri()) == tiny_model

    def test_any_filesystem_of_fsspec_will_do(self, tiny_model: Path) -> None:
        memory = fsspec.filesystem("memory")
        memory.pipe("/models/small.pt", tiny_model.read_bytes())
        try:
            assert fetch("memory://models/small.pt").read_bytes() == tiny_model.read_bytes()
        finally:
            memory.rm("/models/small.pt")

    def test_an_object_store_will_do(self, tiny_model: Path, bucket: str) -> None:
        url = f"{bucket}/models/small.pt"
        fsspec.filesystem("s3").pipe(url, tiny_model.read_bytes())
        assert fetch(url).read_bytes() == tiny_model.read_bytes()
        with pytest.raises(CheckpointError, match=rf"^{bucket}/models/other.pt: .*not found"):
            fetch(f"{bucket}/models/other.pt")

    def test_a_folder_is_said_to_be_one(self, tmp_path: Path) -> None:
        for folder in (str(tmp_path), "."):
            with pytest.raises(CheckpointError, match="is a folder: name the checkpoint in it"):
                fetch(folder)

    @pytest.mark.parametrize("url", ["file:///nowhere/small.pt", "http://127.0.0.1:9/small.pt", "what://small.pt"])
    def test_a_url_that_leads_nowhere_is_said_so(self, url: str) -> None:
        with pytest.raises(CheckpointError, match=r"^\S+: (no such file|cannot be fetched \().*$"):
            fetch(url)


class Fetcher:
    """`fetch` in a process of its own, because the hub's client reads its environment once."""

    SCRIPT = """
import os
import sys
from trapline.model import download
from trapline.model.download import fetch
from trapline.errors import CheckpointError
if "SECONDS" in os.environ:
    download._HUB_SECONDS = float(os.environ["SECONDS"])
for source in sys.stdin:
    try:
        print("path", fetch(source.strip()), flush=True)
    except CheckpointError as error:
        print("error", error, flush=True)
"""

    def __init__(self, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"} | env,
        )

    def __call__(self, source: str) -> Path | str:
        assert self.process.stdin
        assert self.process.stdout
        print(source, file=self.process.stdin, flush=True)
        kind, _, answer = self.process.stdout.readline().rstrip("\n").partition(" ")
        return Path(answer) if kind == "path" else answer

    def __enter__(self) -> "Fetcher":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()


def test_the_hub_gives_a_checkpoint_and_its_cache_gives_it_again(tmp_path: Path, server: Server) -> None:
    data = os.urandom(12 * 2**20)
    server.files |= {
        "/birds/small/resolve/main/small.pt": data,
        "/birds/small/resolve/v2/small.pt": b"another revision",
        "/birds/both/resolve/main/both.pt": b"pt",
        "/birds/both/resolve/main/both.safetensors": b"safetensors",
        "/birds/safe/resolve/main/safe.safetensors": b"safetensors",
        "/birds/other/resolve/main/model.bin": b"",
    }
    env = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path)}
    with Fetcher(**env) as ask, Fetcher(**env, HF_HUB_OFFLINE="1") as ask_offline:
        # The connection breaks midway, and the client goes on from the last 10 MiB that it has stored.
        server.break_off_at = 11 * 2**20
        path = ask("birds/small")
        assert isinstance(path, Path), path
        assert (path.name, path.read_bytes()) == ("small.pt", data)
        assert [range_ for _, range_ in server.gets] == [None, f"bytes={10 * 2**20}-"]

        assert ask("birds/small") == path
        assert len(server.gets) == 2
        assert Path(ask("birds/small@v2")).read_bytes() == b"another revision"
        assert Path(ask("birds/both")).read_bytes() == b"pt"
        safe = ask("birds/safe")
        assert Path(safe).name == "safe.safetensors"

        assert re.match(r"birds/nowhere: cannot be fetched \(RepositoryNotFoundError", str(ask("birds/nowhere")))
        assert str(ask("birds/other")).startswith("birds/other: has neither other.pt nor other.safetensors")

        server.shutdown()
        server.socket.close()
        assert [ask("birds/small"), ask_offline("birds/small"), ask_offline("birds/safe")] == [path, path, safe]
        assert "not in the hub's cache" in str(ask_offline("birds/unseen"))


@pytest.mark.slow
def test_a_hub_that_sends_a_byte_at_a_time_is_given_up(tmp_path: Path, server: Server) -> None:
    server.files["/birds/small/resolve/main/small.pt"] = bytes(2**20)
    server.dribbles.set()
    with Fetcher(HF_ENDPOINT=server.url, HF_HOME=str(tmp_path), SECONDS="3") as ask:
        assert re.match(r"birds/small: cannot be fetched \(DeadlineError: not done after 3 s", str(ask("birds/small")))
    # The process has ended, although its client still reads.
    server.dribbles.clear()
