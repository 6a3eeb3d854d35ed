"""A model behind the runtime's own API as a system: what users get, on a simulated clock.

Each second is pushed as a whole one and waited for. What the model hands over the server asks the
client about (`serve.background=[client]`), which gives the case's result when it is due.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from eval.systems import Watcher
from joyvl_train.actions import Delegation, Response, Silence
from joyvl_train.background import task_of
from joyvl_train.config import UserError
from joyvl_train.heldout import Step
from joyvl_train.pictures import encode
from serve.client import Client, ServerError, Session
from serve.session import Stepped, Tick

QUALITY = 95


@dataclass
class Served:
    """Plays to a server at `url`. token: where it asks for one. timeout: seconds for an answer."""

    name: str
    url: str
    token: str = ""
    timeout: float = 60.0
    _runner: asyncio.Runner = field(default_factory=asyncio.Runner)

    def watch(self, case: str, opening: str, seed: int) -> Watcher:
        return self._runner.run(self._watch(opening, seed))

    async def _watch(self, opening: str, seed: int) -> Watcher:
        client = Client(self.url, self.token)
        try:
            session = await client.open({"kind": "push"}, opening=opening, seed=seed)
            chunk = int((await session.state())["chunk_seconds"])
        except ServerError as error:
            await client.close()
            raise UserError(f"cases.served={self.url}: no session ({error})") from None
        return _Watching(session, self, chunk, self._runner)


class _Watching:
    """One session, which begins anew from its memory after each `chunk` seconds."""

    def __init__(
        self, session: Session, system: Served, chunk: int, runner: asyncio.Runner
    ) -> None:
        self._session, self._system, self._runner = session, system, runner
        self._chunk = chunk
        self._waiting: list[str] = []  # said in seconds without frames
        self._steps: dict[int, dict[str, Any]] = {}
        self._malformed: dict[int, dict[str, Any]] = {}
        self._texts: dict[int, str] = {}  # task -> its question
        self._tasks = self._summaries = self._chunks = 0

    def step(self, tick: Tick) -> Stepped | None:
        try:
            return self._runner.run(self._step(tick))
        except ServerError as error:
            raise UserError(f"cases.served={self._system.url}: {error}") from None

    def close(self) -> None:
        self._runner.run(self._close())

    async def _close(self) -> None:
        with contextlib.suppress(ServerError):  # a session that is gone is closed
            await self._session.close()
        await self._session.client.close()

    async def _step(self, tick: Tick) -> Stepped | None:
        for number, digest in tick.results:
            await self._session.give(number, digest)
        self._waiting += tick.queries
        if not tick.frames:
            return None
        for text in self._waiting:
            await self._session.say(text)
        queries, self._waiting = tuple(self._waiting), []
        await self._push(tick)
        told = await self._until(lambda: self._steps.pop(tick.second, None))
        if (tick.second + 1) % self._chunk == 0:
            # In real time there are seconds enough for the memory's text.
            self._chunks += 1
            await self._until(lambda: self._summaries >= self._chunks or None)
        return await self._stepped(told, tick, queries)

    async def _push(self, tick: Tick) -> None:
        if len(tick.frames) != 1:
            raise UserError("cases.served: a second is one picture; see to data.frames_per_second")
        jpeg = encode(tick.frames[0], QUALITY)
        while True:
            try:
                return await self._session.push(jpeg, tick.second)
            except ServerError as error:
                if error.status != 429:  # faster than a camera may be
                    raise
            await asyncio.sleep(0.05)

    async def _until(self, found: Callable[[], Any]) -> Any:
        """What `found` gives, once the events that came made it something."""
        over = time.monotonic() + self._system.timeout
        while (told := found()) is None:
            if time.monotonic() > over:
                raise ServerError(504, f"no answer in {self._system.timeout:g} s")
            for event in await self._session.after(self._session.seen, wait=5):
                self._session.seen = event["seq"]
                self._take(event)
        return told

    def _take(self, event: dict[str, Any]) -> None:
        match event["kind"]:
            case "step" | "engine" if event.get("second") is not None:
                self._steps[event["second"]] = event
            case "malformed":
                self._malformed[event["second"]] = event
            case "asked":
                self._texts[event["task"]] = event["question"]
            case "summary":
                self._summaries += 1
            case "closed":
                raise ServerError(410, f"the session was closed: {event['reason']}")

    async def _stepped(self, told: dict[str, Any], tick: Tick, queries: tuple[str, ...]) -> Stepped:
        done = Step(tick.second, Silence(), queries, tick.results)
        if told["kind"] == "engine":
            return Stepped(replace(done, malformed="no answer", reply=""))
        wrong = self._malformed.pop(tick.second, None)
        if wrong is not None:
            return Stepped(replace(done, malformed=wrong["error"], reply=wrong["text"]))
        match told["action"]:
            case "response" if told["text"]:  # what the server keeps back is not heard
                return Stepped(replace(done, action=Response(told["text"])))
            case "delegation":
                self._tasks += 1
                question = await self._until(lambda: self._texts.get(self._tasks))
                action = Delegation(told["text"], question)
                task = task_of(self._tasks, tick.second, action)
                return Stepped(replace(done, action=action), task)
        return Stepped(done)
