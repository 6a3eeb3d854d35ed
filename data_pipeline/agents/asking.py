"""From iterator to iterator with many questions in flight.

Stages run in the main thread and pull from each other; questions run on one event loop in a thread
of their own, one a process, because a client belongs to the loop on which it was first used.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from data_pipeline.agents.agent import Unverified
from data_pipeline.candidates import Candidate
from joyvl_train.llm import BudgetError, LLMError
from joyvl_train.timeline import TimelineError

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Thread:
    """An event loop in a thread of its own, until the process ends."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="questions", daemon=True)
        self._thread.start()
        atexit.register(self.stop)

    def _run(self) -> None:
        self.loop.run_forever()
        self.loop.close()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
        if threading.current_thread() is self._thread:  # it would wait for itself
            coroutine.close()
            raise RuntimeError("one question can't wait for another through this module: await it")
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def stop(self) -> None:
        """End all that runs: a daemon thread stands still at exit, and who waits for it hangs."""
        if self.alive:
            self.submit(_end(None)).result()
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()


async def _end(tasks: set[asyncio.Task[Any]] | None) -> None:
    """Cancel the tasks, or all there are, and wait until they have ended."""
    ending = [*tasks] if tasks is not None else [*asyncio.all_tasks()]
    ending = [task for task in ending if task is not asyncio.current_task()]
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


_starting = threading.Lock()
_running: _Thread | None = None


def _thread() -> _Thread:
    global _running
    with _starting:
        if _running is None:
            _running = _Thread()
        return _running


def _forget() -> None:
    """A forked process has no thread that runs the loop, and may have inherited a held lock."""
    global _running, _starting
    _running, _starting = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)


def wait_for(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The result of one coroutine that runs beside the questions, such as a client's `close`."""
    return _thread().submit(coroutine).result()


def ask_in_order(
    items: Iterable[Item], ask: Callable[[Item], Awaitable[Result]], window: int
) -> Iterator[Result]:
    """`ask` of each item, in the order of the items, with up to `window` in flight.

    At most `window` items and results are held. Where `ask` or `items` raises, or the iterator is
    closed or interrupted, what is in flight is cancelled and has ended when the error arrives; only
    a `BudgetError` lets it end by itself first, because its answers are paid for and kept.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window}")
    thread = _thread()
    waiting: deque[Future[Result]] = deque()
    tasks: set[asyncio.Task[Any]] = set()  # those that have begun; touched on the loop alone

    async def one(item: Item) -> Result:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            return await ask(item)
        finally:
            tasks.discard(task)

    try:
        for item in items:
            waiting.append(thread.submit(one(item)))
            if len(waiting) == window:
                yield _first(waiting)
        while waiting:
            yield _first(waiting)
    except BudgetError:
        for future in waiting:
            future.exception()
        raise
    finally:
        for future in waiting:
            future.cancel()
        if thread.alive:
            thread.submit(_end(tasks)).result()


def each_asked(
    name: str,
    do: Callable[[Candidate], Awaitable[Candidate]],
    candidates: Iterable[Candidate],
    window: int,
) -> Iterator[Candidate]:
    """`do` on each candidate that is open, `window` at a time; the others flow on as they are.

    A `TimelineError` rejects its candidate with its reason. What an agent could not settle leaves
    it unverified: "agent failed", "unparsed" or "unsure". A `BudgetError` ends the run.
    """

    async def one(candidate: Candidate) -> Candidate:
        if candidate.status != "open":
            return candidate
        try:
            return await do(candidate)
        except TimelineError as error:
            return candidate.rejected(name, error.reason, error.detail)
        except Unverified as error:
            return candidate.unverified(name, error.reason, error.detail, error.agent)
        except BudgetError:
            raise
        except LLMError as error:
            return candidate.unverified(name, "agent failed", str(error))

    return ask_in_order(candidates, one, window)


def _first(waiting: deque[Future[Result]]) -> Result:
    """The oldest result. It leaves `waiting` when it is there, so that an interrupt meets it."""
    result = waiting[0].result()
    waiting.popleft()
    return result
