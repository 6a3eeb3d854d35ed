"""Delegated tasks on their way to a background model and back, beside the stream.

    bridge = Bridge(backend, told, timeout=120)
    bridge.start(task)          # told(Started(1)), later told(Ready(1, ...)) or told(Error(1, ...))

A backend takes one task and gives a digest for the stream, and, if there is one, a full artifact
that is kept outside of it. Whatever it does, each task ends with exactly one Ready or Error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from joyvl_train.background import Error, Outcome, Ready, Started, Task
from joyvl_train.conversation import clean
from serve.artifacts import Artifacts


class BackgroundError(RuntimeError):
    """A backend could not solve a task; the message is for the log."""


@dataclass(frozen=True, slots=True)
class Solved:
    """digest: what the stream is told. artifact: the full result, of a media type."""

    digest: str
    artifact: bytes | None = None
    media_type: str = "text/plain; charset=utf-8"


class Backend(Protocol):
    """Solves a task, for as long as it is let; raises `BackgroundError` where it can't. It may be
    cancelled at any moment and then leaves nothing behind."""

    async def solve(self, task: Task) -> Solved: ...


class Bridge:
    """The tasks of one session. told: called with each outcome, in the event loop. most: tasks that
    run at once; one more is refused."""

    def __init__(
        self,
        backend: Backend,
        told: Callable[[Outcome], None],
        *,
        timeout: float = 120.0,
        most: int = 4,
        artifacts: Artifacts | None = None,
    ) -> None:
        self._backend, self._told, self._timeout, self._most = backend, told, timeout, most
        self._artifacts = artifacts
        self._running: dict[int, asyncio.Task[Solved]] = {}
        self._given: dict[int, asyncio.Future[Solved]] = {}

    @property
    def running(self) -> tuple[int, ...]:
        """The numbers of the tasks that run."""
        return tuple(self._running)

    def start(self, task: Task) -> None:
        """Begins a task; its outcomes are told."""
        if len(self._running) >= self._most:
            self._told(Error(task.number, f"{self._most} tasks are running already"))
            return
        self._told(Started(task.number))
        running = asyncio.create_task(self._solve(task), name=f"task {task.number}")
        self._running[task.number] = running
        running.add_done_callback(lambda done: self._ended(task.number, done))

    def cancel(self, number: int) -> bool:
        """Ends a task without its result; False where it does not run."""
        running = self._running.get(number)
        return running is not None and running.cancel("cancelled")

    async def give(self, number: int, solved: Solved) -> bool:
        """The result of a task from elsewhere, in place of its backend's; False where the task does
        not run. On return it was told."""
        given = self._given.get(number)
        if given is None or given.done():
            return False
        given.set_result(solved)
        await asyncio.wait([self._running[number]])
        return True

    async def close(self) -> None:
        """Cancels all tasks, and waits until they have ended."""
        running = list(self._running.values())
        for each in running:
            each.cancel("the session ended")
        if running:
            await asyncio.wait(running, timeout=10)

    async def _solve(self, task: Task) -> Solved:
        given: asyncio.Future[Solved] = asyncio.get_running_loop().create_future()
        self._given[task.number] = given
        solving = asyncio.ensure_future(self._backend.solve(task))
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.wait([given, solving], return_when=asyncio.FIRST_COMPLETED)
                return given.result() if given.done() else solving.result()
        finally:
            solving.cancel()
            await asyncio.wait([solving])

    def _ended(self, number: int, done: asyncio.Task[Solved]) -> None:
        del self._running[number]
        self._given.pop(number, None)
        self._told(self._outcome(number, done))

    def _outcome(self, number: int, done: asyncio.Task[Solved]) -> Outcome:
        if done.cancelled():
            return Error(number, "cancelled")
        error = done.exception()
        if isinstance(error, TimeoutError):
            return Error(number, f"no result in {self._timeout:g} s")
        if error is not None:  # whatever a backend raises ends its task, and nothing else
            return Error(number, f"{type(error).__name__}: {error}"[:500])
        solved = done.result()
        if not clean(solved.digest):
            return Error(number, "an empty digest")
        place, lost = None, ""
        if solved.artifact is not None and self._artifacts is not None:
            try:
                place = self._artifacts.keep(number, solved.artifact, solved.media_type)
            except (OSError, ValueError) as failure:
                lost = f"the artifact could not be kept: {failure}"[:500]
        return Ready(number, solved.digest, place, lost)
