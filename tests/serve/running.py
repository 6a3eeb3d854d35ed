"""A server on a scripted model, for tests."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from serve.guard import Guard
from serve.live_settings import LiveSettings
from serve.memory import Said
from serve.server import Server
from serve.sessions import Limits, Served, Sessions
from serve.sources import Sources
from tests.serve.lived import Scripted


def jpeg(grey: int = 90, side: int = 32) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), (grey,) * 3).save(out, "JPEG")
    return out.getvalue()


@asynccontextmanager
async def running(
    folder: Path,
    model: Any = None,
    *,
    sources: Sources | None = None,
    limits: Limits | None = None,
    guard: Guard | None = None,
    live: LiveSettings | None = None,
    slow: float = 15.0,
    warning: str = "",
    **more: Any,
) -> AsyncIterator[Server]:
    modes = LiveSettings(modes={"default": 0.0, "aloof": 2.0})
    served = Served("m", [model or Scripted()], lambda model: Said(), live or modes, warning)
    sessions = Sessions(
        [served], sources or Sources(), folder / "kept", limits=limits or Limits(), **more
    )
    server = Server(sessions, guard, slow=slow)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"
