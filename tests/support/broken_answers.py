"""A small S3 server on a raw socket that misbehaves at a chosen point of the exchange with its client."""

import re
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Literal

import pytest

from trapline.storage import s3

LOOPBACK = "127.0.0.1"
OBJECT = bytes(range(256)) * 40
_DATE = "Wed, 01 Jul 2026 10:00:00 GMT"
_LISTING = (
    "<ListBucketResult><Name>b</Name><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated><Contents><Key>x/a</Key>"
    f"<LastModified>2026-07-01T10:00:00.000Z</LastModified><ETag>&quot;1&quot;</ETag><Size>{len(OBJECT)}</Size>"
    "<StorageClass>STANDARD</StorageClass></Contents></ListBucketResult>"
)

# How each request is recognised: its method, and what its target must contain.
VERBS = {
    "head": "HEAD ",
    "get": "GET .*/x/a(?!.*\nrange)",
    "ranged get": "GET .*/x/a.*\n(x-ms-)?range",
    "list": "GET .*list-type=2",
    "put": "PUT (?!.*partNumber)",
    "delete": "DELETE (?!.*uploadId)",
    "start of a multipart put": "POST .*uploads",
    "part of a multipart put": "PUT .*partNumber",
    "end of a multipart put": "POST .*uploadId",
}
PHASES = ("connect", "continue", "headers", "chunk header", "body", "after")
MISDEEDS = ("silent", "reset", "garbage")

Phase = Literal["connect", "continue", "headers", "chunk header", "body", "after"]
Misdeed = Literal["silent", "reset", "garbage", "dribble"]


@dataclass
class Fault:
    """Where and how every request of a verb goes wrong; it counts its strikes.

    Attributes:
        verb: one of VERBS, or a pattern of requests.
        phase: `connect` and `continue` are before any byte of an answer: the first before the request is read, the
            second after its headers, where a client that sent `Expect: 100-continue` waits; `headers`,
            `chunk header` and `body` are half-way through that part of the answer; `after` is behind a whole answer.
        misdeed: say nothing more and keep the connection open, reset it, send nonsense and keep it open, or go on with
            a byte at a time, without end.
        bucket: where it happens; in all, where it is empty.
    """

    verb: str
    phase: Phase
    misdeed: Misdeed
    bucket: str = ""
    strikes: int = 0

    def strikes_at(self, request: str) -> bool:
        """Whether this request goes wrong, which is counted."""
        strikes = self.bucket in request and bool(re.search(VERBS.get(self.verb, self.verb), request, _F))
        self.strikes += strikes
        return strikes


@dataclass
class BrokenServer:
    """The server; `faults` may be set at any time, and apply to requests from then on.

    `pause` is the number of seconds that it waits after each MiB of a body that it receives; `status` is answered to
    all requests, where it is set; `answer` returns the whole answer to a request, after which the connection is closed,
    or None for a sound one.
    """

    endpoint: str
    faults: list[Fault] = field(default_factory=list)
    pause: float = 0
    status: str | None = None
    answer: Callable[[str], bytes | None] | None = None


@contextmanager
def broken_server() -> Iterator[BrokenServer]:
    """Run the server, which holds the one object `x/a` in each bucket and forgets what is put."""
    listener = socket.create_server((LOOPBACK, 0), backlog=64)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)  # else it takes megabytes before they are read
    server = BrokenServer(f"http://{LOOPBACK}:{listener.getsockname()[1]}")
    ended = Event()
    connections: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                Thread(target=_serve, args=(server, connection, ended), daemon=True).start()

    thread = Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in connections:
            connection.close()


@contextmanager
def broken_s3() -> Iterator[BrokenServer]:
    """Run the server, to which `s3://` leads; its client is kept, since making one takes half a second."""
    with broken_server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setitem(s3.OPTIONS["config_kwargs"], "retries", {"mode": "standard", "total_max_attempts": 1})
        s3.S3Files.clear_instance_cache()
        yield server
    s3.S3Files.clear_instance_cache()


def at_once(check: Callable[[Fault], None], faults: list[Fault]) -> None:
    """Check faults at the same time, since what they take is waiting; what hangs is left to the end of the server."""
    threads = ThreadPoolExecutor(len(faults))
    try:
        for checked in [threads.submit(check, fault) for fault in faults]:
            checked.result()
    finally:
        threads.shutdown(wait=False)


def _serve(server: BrokenServer, connection: socket.socket, ended: Event) -> None:
    with suppress(OSError), connection.makefile("rb") as stream:
        while True:
            request = _request(stream.peek(2**16))  # which comes in one piece
            if not request:
                return
            fault = next((fault for fault in server.faults if fault.strikes_at(request)), None)
            if fault and fault.phase == "connect":
                _misbehave(connection, fault.misdeed, ended)
                return
            while stream.readline().strip():
                pass
            if fault and fault.phase == "continue":
                _misbehave(connection, fault.misdeed, ended)
                return
            if "expect: 100-continue" in request:
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            length = re.search(r"\ncontent-length: (\d+)", request)
            left = int(length[1]) if length else 0
            while left > 0 and (piece := stream.read(min(left, 2**20))):
                left -= len(piece)
                ended.wait(server.pause)
            if server.answer and (whole := server.answer(request)):
                connection.sendall(whole)
                connection.shutdown(socket.SHUT_RDWR)
                return
            status, headers, body = (server.status, "", b"") if server.status else _answer(request)
            head = f"HTTP/1.1 {status}\r\n{headers}".encode()
            if fault and fault.phase in ("chunk header", "body"):
                half = body[: len(body) // 2] or b"half of a body that was not asked for"
                if fault.phase == "chunk header":
                    connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + half[:5] + b"\r\n")
                else:
                    connection.sendall(head + f"Content-Length: {len(body) or 100}\r\n\r\n".encode() + half)
                _misbehave(connection, fault.misdeed, ended)
                return
            if fault and fault.phase == "headers":
                connection.sendall(head[: len(head) // 2])
                _misbehave(connection, fault.misdeed, ended)
                return
            told = len(OBJECT) if request.startswith("HEAD") else len(body)
            connection.sendall(head + f"Content-Length: {told}\r\n\r\n".encode() + body)
            if fault:
                _misbehave(connection, fault.misdeed, ended)
                return


_F = re.DOTALL


def _request(data: bytes) -> str:
    """The line of a request, and its headers in small letters."""
    line, _, headers = data.partition(b"\r\n\r\n")[0].decode("latin-1").replace("\r", "").partition("\n")
    return f"{line}\n{headers.lower()}" if line else ""


def _misbehave(connection: socket.socket, misdeed: Misdeed, ended: Event) -> None:
    if misdeed == "reset":
        # An RST instead of a FIN.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)
        connection.close()
        return
    if misdeed == "garbage":
        connection.sendall(b"zz")
    while misdeed == "dribble" and not ended.wait(0.03):
        connection.sendall(b"0")
    ended.wait()


def _answer(request: str) -> tuple[str, str, bytes]:
    """The status, the headers without those of the length, and the body of a sound answer."""
    facts = f'ETag: "1"\r\nLast-Modified: {_DATE}\r\n'
    if re.search(VERBS["list"], request, _F):
        return "200 OK", "Content-Type: application/xml\r\n", _LISTING.encode()
    if re.search(VERBS["ranged get"], request, _F):
        first, last = map(int, re.search(r"range: bytes=(\d+)-(\d+)", request).groups())  # type: ignore[union-attr]
        part = OBJECT[first : last + 1]
        return "206 Partial Content", f"{facts}Content-Range: bytes {first}-{last}/{len(OBJECT)}\r\n", part
    if request.startswith("GET"):
        return "200 OK", facts, OBJECT
    if re.search(VERBS["start of a multipart put"], request, _F):
        text = "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
        return "200 OK", "", text.encode()
    if re.search(VERBS["end of a multipart put"], request, _F):
        text = "<CompleteMultipartUploadResult><ETag>&quot;1&quot;</ETag></CompleteMultipartUploadResult>"
        return "200 OK", "", text.encode()
    if request.startswith("DELETE"):
        return "204 No Content", "", b""
    return "200 OK", facts, b""
