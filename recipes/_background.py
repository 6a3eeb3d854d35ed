"""What solves delegated tasks and looks on, as a config of recipe=serve names it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from itertools import groupby

from PIL import Image

from data_pipeline.agents.detector import Detector
from data_pipeline.agents.ocr import Ocr
from joyvl_train.config import Config, UserError, nearest
from recipes._client import client_of
from serve.bridge import Backend
from serve.events import EventLog
from serve.live import Module
from serve.modules import Looks
from serve.solvers import AskClient, AskModel, InOrder, RunCommand, UseTools
from serve.tools import Tool, calculate, counting, reading, search

_SOLVERS = ("calculator", "search", "ocr", "detector", "model", "command", "client")
_MODULES = ("ocr", "detector")


def check_background(config: Config) -> None:
    """Raises `UserError` for what can't solve tasks or look on."""
    serve = config.serve
    _check("serve.background", serve.background, _SOLVERS)
    _check("serve.modules", serve.modules, _MODULES)
    if "client" in serve.background[:-1]:
        raise UserError(
            f"serve.background=[{','.join(serve.background)}]: what stands behind client is never "
            "asked, as a client is waited for until the task's time is over; put client last"
        )
    if "command" in serve.background and not serve.command:
        raise UserError("serve.command is empty; give the command, or leave it out of background")
    if "model" in serve.background and not config.agents.url:
        raise UserError(
            "agents.url is empty; name the background model's endpoint, or leave model "
            "out of serve.background"
        )


@asynccontextmanager
async def solver_of(config: Config) -> AsyncIterator[Callable[[EventLog], Backend] | None]:
    """Makes what solves the tasks of a session; None where nothing does."""
    wanted = config.serve.background
    if not wanted:
        yield None
        return
    client = client_of(config.agents) if "model" in wanted else None

    def solver(log: EventLog) -> Backend:
        tools: dict[str, Tool] = {
            "calculator": calculate,
            "search": search(log),
            "ocr": reading(_lines),
            "detector": counting(_labels),
        }
        others: dict[str, Backend] = {
            "command": RunCommand(config.serve.command),
            "client": AskClient(log),
        }
        if client is not None:
            others["model"] = AskModel(client)
        asked: list[Backend] = []
        for are_tools, names in groupby(wanted, tools.__contains__):
            if are_tools:
                asked.append(UseTools({name: tools[name] for name in names}))
            else:
                asked += [others[name] for name in names]
        return InOrder(asked)

    try:
        yield solver
    finally:
        if client is not None:
            await asyncio.shield(client.close())


def modules_of(config: Config) -> Callable[[], Sequence[Module]]:
    """Makes what looks on in a session."""
    wanted = config.serve.modules
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
