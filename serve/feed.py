"""What stands between a source and a session: the newest seconds, and never more than a few.

A source puts whole seconds in, from a thread or from the event loop; the session takes them out. A
live source does not wait: past `most` seconds the oldest is dropped, and counted. One that can wait
(a file that is read as fast as possible) asks for room first.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from serve.source import Notice, Second, SourceError

State = Literal["waiting", "live", "lost", "ended"]


@dataclass(slots=True)
class Feed:
    """`most` whole seconds of one source, the newest. Used in one event loop.

    changed: called with the new state and in words why, whenever it changes.
    """

    most: int = 2
    changed: Callable[[State, str], None] = lambda state, detail: None
    state: State = "waiting"
    dropped: int = 0
    _seconds: deque[Second] = field(default_factory=deque)
    _something: asyncio.Event = field(default_factory=asyncio.Event)
    _room: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._room.set()

    def put(self, item: Second | Notice) -> None:
        """A second that is over, or what befell the source."""
        if isinstance(item, Notice):
            self._become(item.kind, item.detail)
            return
        if self.state == "ended":
            return
        self._become("live", "")
        self._seconds.append(item)
        while len(self._seconds) > self.most:
            self._seconds.popleft()
            self.dropped += 1
        if len(self._seconds) >= self.most:
            self._room.clear()
        self._something.set()

    def end(self, detail: str = "") -> None:
        """Nothing more will come; what is there can still be taken."""
        self._become("ended", detail)
        self._room.set()
        self._something.set()

    async def take(self) -> Second | None:
        """The oldest second that is there, once there is one; None after the end."""
        while not self._seconds:
            if self.state == "ended":
                return None
            self._something.clear()
            await self._something.wait()
        second = self._seconds.popleft()
        self._room.set()
        return second

    async def room(self) -> None:
        """Waits until a second can be put in without one being dropped."""
        await self._room.wait()

    def _become(self, state: State, detail: str) -> None:
        if state != self.state and self.state != "ended":
            self.state = state
            self.changed(state, detail)


class Reader:
    """Reads a source in a thread of its own into a feed, until it ends or is stopped."""

    def __init__(
        self,
        feed: Feed,
        items: Callable[[threading.Event], Iterable[Second | Notice]],
        *,
        waits: bool = False,
    ) -> None:
        """items: opens the source, given what tells it to stop. waits: it is read no faster than
        the feed is emptied."""
        self._feed, self._items, self._waits = feed, items, waits
        self._stop = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._read, name="source", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Ends the reading; returns once the thread is done, or after 15 seconds without it."""
        self._stop.set()
        self._feed.end("stopped")
        await asyncio.to_thread(self._thread.join, 15)

    def _read(self) -> None:
        detail = ""
        try:
            for item in self._items(self._stop):
                if self._waits:
                    asyncio.run_coroutine_threadsafe(self._feed.room(), self._loop).result()
                self._tell(self._feed.put, item)
                if self._stop.is_set():
                    return
        except SourceError as error:
            detail = str(error)
        finally:
            self._tell(self._feed.end, detail)

    def _tell(self, call: Callable[..., None], item: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, item)
