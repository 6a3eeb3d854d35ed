"""What the agents of a run cost, written down as it is spent.

costs/00000.1f0c33a9.jsonl   of one go at a part: a line for what each question cost; one line in
                             all, once the part is done or has failed

A process that is killed takes what was under way with it, and no more. Every go has a file of its
own: what was paid for a part that was begun again was paid all the same.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from data_pipeline.funnel import Spent, add_spent
from joyvl_train.run import write_text

Spending = Callable[[], Mapping[str, Mapping[str, float]]]
"""What the agents of this process have cost so far."""


class CostLog:
    """Writes down what is spent between entering and leaving; `note` is called on any thread."""

    def __init__(self, folder: Path, part: int, spending: Spending) -> None:
        self.path = folder / f"{part:05d}.{secrets.token_hex(4)}.jsonl"
        self._spending = spending
        self._start: Spent = {}
        self._told: Spent = {}
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._start = add_spent({}, self._spending())
        self._told = add_spent({}, self._start)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.note()
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
                write_text(self.path, _line(_more(self._told, self._start)))

    def note(self) -> None:
        """Writes down what was spent since it was last called."""
        with self._lock:
            now = add_spent({}, self._spending())
            more = _more(now, self._told)
            if not more:
                return
            if self._file is None:
                self._file = self.path.open("ab", buffering=0)
            self._file.write(_line(more).encode())
            self._told = now


def spent_in(folder: Path) -> Spent:
    """All that was written down in a folder of costs. A line that a kill has torn is left out: its
    question is one of those under way."""
    total: Spent = {}
    for path in sorted(folder.glob("*.jsonl")):
        *whole, _ = path.read_bytes().split(b"\n")
        for line in whole:
            add_spent(total, json.loads(line))
    return total


def _more(now: Spent, before: Spent) -> Spent:
    found = add_spent(add_spent({}, now), before, -1)
    return {agent: counts for agent, counts in found.items() if any(counts.values())}


def _line(spent: Spent) -> str:
    return json.dumps(spent, sort_keys=True) + "\n"
