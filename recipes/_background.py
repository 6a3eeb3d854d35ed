"""What solves delegated tasks and looks on, as a config of recipe=serve names it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from PIL import Image

from data_pipeline.agents.detector import Detector
from data_pipeline.agents.ocr import Ocr
from joyvl_train.config import Config, UserError, nearest
from recipes._client import client_of
from serve.bridge import Backend
from serve.events import EventLog
from serve.live import Module
from serve.modules import Looks
from serve.solvers import AskClient, AskModel, RunCommand, UseTools
from serve.tools import calculate, counting, reading, search

_SOLVERS = ("calculator", "search", "ocr", "detector", "model", "command", "client")
_MODULES = ("ocr", "detector")


@asynccontextmanager
async def solver_of(config: Config) -> AsyncIterator[Callable[[EventLog], Backend] | None]:
    """Makes what solves the tasks of a session; None where nothing does."""
    wanted = config.serve.background
    _check("serve.background", wanted, _SOLVERS)
    if not wanted:
        yield None
        return
    client = client_of(config.agents) if "model" in wanted else None
    last: Any = AskModel(client) if client is not None else None
    if "command" in wanted:
        last = RunCommand(config.serve.command)

    def solver(log: EventLog) -> Backend:
        tools = {
            "calculator": calculate,
            "search": search(log),
            "ocr": reading(_lines),
            "detector": counting(_labels),
        }
        others = AskClient(log) if "client" in wanted else last
        return UseTools({name: tools[name] for name in wanted if name in tools}, others)

    try:
        yield solver
    finally:
        if client is not None:
            await asyncio.shield(client.close())


def modules_of(config: Config) -> Callable[[], Sequence[Module]]:
    """Makes what looks on in a session."""
    wanted = config.serve.modules
    _check("serve.modules", wanted, _MODULES)
    finds: dict[str, Callable[[Image.Image], Sequence[str]]] = {"ocr": _lines, "detector": _labels}
    return lambda: [Looks(name, finds[name]) for name in wanted]


def _check(key: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    for name in wanted:
        if name not in known:
            hint = nearest(name, known)
            raise UserError(f"{key}: there is no {name!r}.{hint} There are {', '.join(known)}")


@cache
def _ocr() -> Ocr:
    return Ocr()


@cache
def _detector() -> Detector:
    return Detector()


def _lines(picture: Image.Image) -> list[str]:
    return [line.text for line in _ocr()(picture)]


def _labels(picture: Image.Image) -> list[str]:
    return [found.label for found in _detector()(picture)]
