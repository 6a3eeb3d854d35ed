"""What happened in a live session, as numbered plain data that clients read and read again.

Events are numbered from 1. A client that lost its connection asks for those after the last one that
it saw; where some of them are gone by then, it is told how many.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]


@dataclass(slots=True)
class EventLog:
    """The newest `most` events of a session. Used in one event loop, but for `after`."""

    most: int = 2000
    last: int = 0
    """The number of the newest event; 0: there was none."""
    closed: bool = False
    _events: deque[Event] = field(default_factory=deque)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, kind: str, **told: Any) -> Event:
        """Takes down an event; `time` is seconds since 1970."""
        self.last += 1
        event = {"seq": self.last, "time": round(time.time(), 3), "kind": kind, **told}
        self._events.append(event)
        if len(self._events) > self.most:
            self._events.popleft()
        self._changed.set()
        self._changed = asyncio.Event()
        return event

    def close(self) -> None:
        """Nothing will be added any more: readers end once they have read all."""
        self.closed = True
        self._changed.set()

    def after(self, seq: int) -> list[Event]:
        """The events after number `seq`; first of all a "gap" where some of them are gone."""
        kept = self._events.copy()  # in one go: a tool asks from a thread of its own
        found = [event for event in kept if event["seq"] > seq]
        first = kept[0]["seq"] if kept else self.last + 1
        if seq + 1 < first:
            missed = first - 1 - seq
            gap = {"seq": first - 1, "time": round(time.time(), 3), "kind": "gap", "missed": missed}
            return [gap, *found]
        return found

    async def follow(self, seq: int = 0) -> AsyncIterator[Event]:
        """The events after number `seq`, as they come, until the log is closed."""
        while True:
            changed = self._changed
            for event in self.after(seq):
                seq = event["seq"]
                yield event
            if self.closed and seq >= self.last:
                return
            if seq >= self.last:
                await changed.wait()
