"""A headless Chromium, driven through its own protocol, for tests of pages."""

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip


@dataclass
class Browser:
    """One tab.

    Attributes:
        socket: to the tab.
        said: what the console was told, and errors of the page.
        asked: URLs that were requested.
    """

    socket: aiohttp.ClientWebSocketResponse
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A method of the DevTools protocol; what happens meanwhile is noted."""
        number = next(self._numbers)
        await self.socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = json.loads(await self.socket.receive_str(timeout=60))
            self._note(message)
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])

    def _note(self, message: dict[str, Any]) -> None:
        kind, params = message.get("method"), message.get("params", {})
        if kind == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        elif kind in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.said.append(json.dumps(params))

    async def open(self, path: Path, width: int, height: int = 900, dark: bool = False) -> Self:
        """Shows a file, as a screen of this size does."""
        for domain in ("Network", "Log", "Runtime", "Page"):
            await self.call(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        await self.call("Page.navigate", url=path.as_uri())
        deadline = time.monotonic() + 30
        while await self.value("location.protocol + document.readyState") != "file:complete":
            assert time.monotonic() < deadline, "the page is not loaded"
            await asyncio.sleep(0.05)
        return self

    async def value(self, expression: str) -> Any:
        """What JavaScript makes of an expression."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    async def run(self, library: str, expression: str) -> Any:
        """What a promise of JavaScript becomes, once a library is loaded."""
        await self.call("Runtime.evaluate", expression=library)
        answer = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        return answer["result"].get("value")

    async def print_on_a4(self) -> None:
        """Lays the page out as for A4 paper with margins of 1 cm."""
        await self.call("Emulation.setEmulatedMedia", media="print")
        await self.call("Emulation.setDeviceMetricsOverride", width=718, height=1047, deviceScaleFactor=1, mobile=False)

    async def close(self) -> None:
        """Closes the tab."""
        await self.call("Page.close")
        await self.socket.close()

    async def screenshot(self, path: Path, full: bool = True) -> None:
        """A picture of the page, or of what fits on the screen."""
        answer = await self.call("Page.captureScreenshot", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(answer["data"]))


@contextmanager
def chromium(folder: Path) -> Iterator[str]:
    """The URL of a browser's protocol; its profile lies in the folder."""
    assert CHROMIUM
    process = subprocess.Popen(
        [CHROMIUM, *_OPTIONS, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = folder / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (port.exists() and port.read_text().count("\n")):
            assert process.poll() is None, "Chromium ended"
            assert time.monotonic() < deadline, "Chromium does not start"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port.read_text().splitlines()[0]}"
    finally:
        process.terminate()
        process.wait(30)


async def tab(session: aiohttp.ClientSession, url: str) -> Browser:
    """A new tab of the browser."""
    async with session.put(f"{url}/json/new?about:blank") as answer:
        address = (await answer.json())["webSocketDebuggerUrl"]
    return Browser(await session.ws_connect(address, max_msg_size=0))
