"""Headless Chromium, driven over its DevTools protocol: enough to open a page, click and save."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")
BINARY = next(filter(None, map(shutil.which, NAMES)), None)

_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-component-update"
    " --disable-background-networking --disable-sync --remote-debugging-port=0"
).split()


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._asked = 0

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._asked += 1
        await self._socket.send_json({"id": self._asked, "method": method, "params": params})
        while True:
            told = json.loads((await self._socket.receive(30)).data)
            if told.get("id") == self._asked:
                assert "error" not in told, told
                return dict(told["result"])

    async def picture(self, path: Path, width: int = 1400, height: int = 1000) -> None:
        """Saves what the tab shows at this size as a PNG file."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        await self.send("Emulation.setDeviceMetricsOverride", **size)
        shot = await self.send("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    async def there(self, place: str) -> None:
        """Waits until the tab shows this place, whole."""
        # The empty page of a new tab is complete, too, and one that comes has no body yet.
        here = f"location.href.split('#')[0] === {json.dumps(place.split('#')[0])}"
        whole = f"{here} && document.readyState === 'complete' && !!document.body?.children.length"
        for _ in range(300):
            # Where the page changes while it is asked, there is no answer.
            with contextlib.suppress(AssertionError):
                if await self.run(whole):
                    return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{place} never came")

    async def reload(self) -> None:
        """Loads the page anew, and waits until it is there."""
        place = await self.run("(window.beforeReload = true, location.href)")
        await self.send("Page.reload")
        for _ in range(300):
            with contextlib.suppress(AssertionError):
                if await self.run("window.beforeReload === undefined"):
                    break
            await asyncio.sleep(0.1)
        await self.there(place)

    async def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = await self.send(
            "Runtime.evaluate",
            expression=script,
            returnByValue=True,
            awaitPromise=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")


@asynccontextmanager
async def opened(path: Path | str, folder: Path, *flags: str) -> AsyncIterator[Page]:
    """The page of a file, or at an address; what it saves goes to `folder`."""
    assert BINARY is not None
    place = path.as_uri() if isinstance(path, Path) else path
    home = folder / "profile"
    process = subprocess.Popen(
        [BINARY, *_FLAGS, *flags, f"--user-data-dir={home}", place],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            with contextlib.suppress(OSError, IndexError):
                port = int((home / "DevToolsActivePort").read_text().splitlines()[0])
                break
            await asyncio.sleep(0.1)
        async with aiohttp.ClientSession() as session:
            for _ in range(100):
                async with session.get(f"http://127.0.0.1:{port}/json") as told:
                    pages = [p for p in await told.json() if p["url"] == place]
                if pages:
                    break
                await asyncio.sleep(0.1)
            address = pages[0]["webSocketDebuggerUrl"]
            async with session.ws_connect(address, max_msg_size=1 << 28) as socket:
                page = Page(socket)
                await page.send(
                    "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder)
                )
                await page.there(place)
                yield page
    finally:
        process.terminate()
        process.wait(20)
