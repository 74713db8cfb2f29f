"""A proxy before a real S3 server that makes it misbehave, request by request."""

import http.client
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Literal
from urllib.parse import unquote, urlsplit

from tests.support.servers import LOOPBACK, S3Server

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}


@dataclass
class Fault:
    """What to do to some requests.

    Attributes:
        kind: answer with an `error`, `reset` the connection without an answer, `cut` the body of the answer (or, of a
            PUT, of the request) after half, `stall` before the answer, `flip` a bit of its body (see `at`), `replay` the
            first answer of the kind, or `kill`.
        on: matches requests, as `GET /bucket/key?query`.
        skip: how many of them pass before the first is struck.
        times: how many are struck; then all is well again.
        strike: called at each of them, before the request goes on as if nothing had happened; of `kill`.
        code: of an error, and its status.
        seconds: of a stall.
        at: positions in the object to flip, one of them each time, from the first to the last and again.
    """

    kind: Literal["error", "reset", "cut", "stall", "flip", "replay", "kill"]
    on: str
    skip: int = 0
    times: int = 10**9
    code: str = "SlowDown"
    status: int = 503
    seconds: float = 0
    strike: Callable[[], object] | None = None
    at: tuple[int, ...] = ()
    answer: tuple[int, list[tuple[str, str]], bytes] | None = None


@dataclass
class FaultyStore:
    """The store as clients see it through the proxy; `faults` may change at any time.

    `log` has each request, and `ports` the client's end of the connection on which it came.
    """

    server: S3Server
    faults: list[Fault] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def fault(self, request: str, port: int) -> Fault | None:
        """What to do to this request."""
        with self.lock:
            self.log.append(request)
            self.ports.append(port)
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.on, request):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None

    def asked(self, pattern: str) -> int:
        """How many requests matched."""
        return sum(bool(re.search(pattern, request)) for request in self.log)


@contextmanager
def faulty_store(server: S3Server) -> Iterator[FaultyStore]:
    """A proxy on a port of its own; `server.endpoint` of what it gives leads through it."""
    store = FaultyStore(server)

    class Handler(_Handler):
        proxied = store

    proxy = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    proxy.daemon_threads = True
    thread = Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    store.server = replace(server, endpoint=f"http://{LOOPBACK}:{proxy.server_port}")
    Handler.upstream = urlsplit(server.endpoint).netloc
    try:
        yield store
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxied: FaultyStore
    upstream: str

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        request = f"{self.command} {unquote(self.path)}"
        fault = self.proxied.fault(request, self.client_address[1])
        if fault and fault.strike:
            fault.strike()
        length = int(self.headers.get("Content-Length") or 0)
        if fault and fault.kind == "reset":
            self._reset()
            return
        if fault and fault.kind == "cut" and self.command == "PUT":
            self._forward_half(length)
            self._reset()
            return
        body = self.rfile.read(length)
        if fault and fault.kind == "error":
            text = f"<Error><Code>{fault.code}</Code><Message>the store says {fault.code}</Message></Error>"
            self._answer(fault.status, [("Content-Type", "application/xml")], text.encode())
            return
        if fault and fault.kind == "stall":
            time.sleep(fault.seconds)
        if fault and fault.kind == "replay" and fault.answer:
            self._answer(*fault.answer)
            return
        answer = self._forward(body)
        if fault and fault.kind == "replay":
            fault.answer = answer
        if fault and fault.kind == "flip" and self.command == "GET":
            answer = self._flipped(fault, answer)
        self._answer(*answer, cut=bool(fault and fault.kind == "cut"))

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve

    def _flipped(
        self, fault: Fault, answer: tuple[int, list[tuple[str, str]], bytes]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        status, headers, body = answer
        first = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        with self.proxied.lock:
            position, *others = fault.at
            fault.at = (*others, position)
        position -= int(first[1]) if first else 0
        if 0 <= position < len(body):
            body = body[:position] + bytes([body[position] ^ 16]) + body[position + 1 :]
        return status, headers, body

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.upstream)
        # The Host header as it came: it is signed.
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, response.getheaders(), data

    def _forward_half(self, length: int) -> None:
        connection = http.client.HTTPConnection(self.upstream)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(self.rfile.read(length // 2))
        time.sleep(0.1)
        connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, cut: bool = False) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # a client that has given up
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in _HOP_BY_HOP | {"content-length"}:
                    self.send_header(name, value)
            # The answer to HEAD tells the length of a body that it does not have.
            told = {name.lower(): value for name, value in headers}.get("content-length")
            self.send_header("Content-Length", told if self.command == "HEAD" and told else str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.wfile.flush()
        if cut:
            self._reset()

    def _reset(self) -> None:
        self.close_connection = True
        # An RST instead of a FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
