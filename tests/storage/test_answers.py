"""What S3 answers is what was asked for, or trouble that may pass; proxies and new servers get much wrong."""

import re
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tests.support.broken_answers import OBJECT, BrokenServer, broken_s3
from trapline.errors import StorageError, TransientError
from trapline.storage import retry, store

URL = "s3://b/x/a"
FACTS = 'ETag: "1"\r\nLast-Modified: Wed, 01 Jul 2026 10:00:00 GMT\r\n'


@pytest.fixture(scope="module")
def server() -> Iterator[BrokenServer]:
    with broken_s3() as server:
        yield server


@pytest.fixture
def broken(server: BrokenServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[BrokenServer]:
    monkeypatch.setattr(retry, "_PAUSES", (0.01,))
    monkeypatch.setitem(store._STREAM, "block_size", 2**12)
    yield server
    server.answer = None


def answers(method: str, head: str, body: bytes = b"") -> Callable[[str], bytes | None]:
    """Answer so to all requests of a method."""
    whole = f"HTTP/1.1 {head}\r\nConnection: close\r\n\r\n".encode() + body
    return lambda request: whole if request.startswith(f"{method} ") else None


def stream() -> bytes:
    with store.open_unchanged(URL, f"{len(OBJECT)}-1") as file:
        file.seek(5000)
        return file.read(1000)


ENTRY = store.Entry(URL, len(OBJECT), f"{len(OBJECT)}-1")
READS: dict[str, Callable[[], object]] = {
    "end": lambda: store.read_end(ENTRY, 1000),
    "stream": stream,
    "file": lambda: store.read_many([ENTRY]),
}


def test_a_sound_server_is_understood(broken: BrokenServer) -> None:
    assert [read() for read in READS.values()] == [OBJECT[-1000:], OBJECT[5000:6000], [OBJECT]]


@pytest.mark.parametrize("read", ["end", "stream"])
@pytest.mark.parametrize(
    "head",
    [
        f"200 OK\r\n{FACTS}Content-Length: {len(OBJECT)}",
        f"200 OK\r\n{FACTS}Transfer-Encoding: identity",
        f"206 Partial Content\r\n{FACTS}Content-Length: {len(OBJECT)}\r\nContent-Range: bytes 0-99/{len(OBJECT)}",
    ],
)
def test_a_server_that_ignores_ranges_gives_no_wrong_bytes(head: str, read: str, broken: BrokenServer) -> None:
    broken.answer = answers("GET", head, OBJECT)
    with pytest.raises(TransientError, match=f"^{URL}: bytes=.* was asked for"):
        READS[read]()


@pytest.mark.parametrize("read", READS)
def test_a_body_that_is_cut_is_no_whole_one(read: str, broken: BrokenServer) -> None:
    def cut(request: str) -> bytes | None:
        part = re.search(r"\nrange: bytes=(\d+)-(\d+)", request)
        given = f"Content-Range: bytes {part[1]}-{min(int(part[2]), len(OBJECT) - 1)}/{len(OBJECT)}" if part else "X: y"
        return answers("GET", f"{206 if part else 200} OK\r\n{FACTS}{given}", OBJECT[:500])(request)

    broken.answer = cut
    with pytest.raises(TransientError, match=f"^{URL}: 500 of .* came"):
        READS[read]()


def test_an_object_without_a_length_is_not_read(broken: BrokenServer) -> None:
    broken.answer = answers("HEAD", f"200 OK\r\n{FACTS}X: y")
    with pytest.raises(TransientError, match="how long"):
        store.stat(URL)


def page(tokens: Iterator[str], contents: bool) -> Callable[[str], bytes | None]:
    found = (
        "<Contents><Key>x/a</Key><LastModified>2026-07-01T10:00:00.000Z</LastModified><ETag>1</ETag><Size>1</Size>"
        "</Contents>"
    )

    def answer(request: str) -> bytes | None:
        token = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{next(tokens)}</NextContinuationToken>"
        text = f"<ListBucketResult>{token}{found if contents else ''}</ListBucketResult>"
        return answers("GET", "200 OK\r\nX: y", text.encode())(request)

    return answer


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("different", "contents"), [(1, True), (1, False), (3, True)])
def test_a_listing_that_goes_around_in_a_circle_ends(different: int, contents: bool, broken: BrokenServer) -> None:
    broken.answer = page((f"T{number % different}" for number in count()), contents)
    with pytest.raises(TransientError, match=r"^s3://b/x: .*(leads to itself|again and again)"):
        store.list_files("s3://b/x")


def test_a_multipart_upload_whose_end_is_an_error_of_status_200_is_none(broken: BrokenServer) -> None:
    fs, path = store.resolve(URL)
    error = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
    broken.answer = lambda request: (
        answers("POST", "200 OK\r\nX: y", error)(request) if "uploadId" in request.partition("\n")[0] else None
    )
    with pytest.raises(TransientError, match="internal error"):
        retry.with_retries(URL, lambda: fs.pipe_file(path, bytes(2**16), chunksize=2**15))


@pytest.mark.parametrize(
    ("status", "code", "remedy"), [(403, "RequestTimeTooSkewed", "clock"), (400, "ExpiredToken", "new credentials")]
)
def test_a_denial_names_what_mends_it(status: int, code: str, remedy: str, broken: BrokenServer) -> None:
    error = f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
    broken.answer = answers("GET", f"{status} No\r\nX: y", error)
    with pytest.raises(StorageError, match=rf"access denied \(No\.\); .*{remedy}"):
        store.read_end(ENTRY, 1000)
