"""Ports that close, as those of Ray's processes do when they die."""

import socket
import time
from collections.abc import Iterator

import pytest

from trapline.run.ray_watch import RayWatch


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_port_that_closes_for_good_is_told_once(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trapline.run.ray_watch._LOOK_EVERY", 0.05)
    lost: list[str] = []
    with RayWatch({"raylet": server.getsockname()}, lost.append, {"raylet": 0.2}) as watch:
        watch.wait_while_closed()  # which it is not
        time.sleep(0.5)
        assert lost == []
        server.close()
        watch.wait_while_closed()
        assert lost == ["raylet"]
        time.sleep(0.3)
    assert lost == ["raylet"]


def test_a_port_that_opens_again_in_time_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trapline.run.ray_watch._LOOK_EVERY", 0.05)
    lost: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as first:
        address = first.getsockname()
    with RayWatch({"GCS": address}, lost.append, {"GCS": 60.0}) as watch, socket.create_server(address):
        watch.wait_while_closed()
    assert lost == []
