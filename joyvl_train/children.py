"""Processes of our own, which end when the one that started them does, however that ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

_LIFELINE = "JOYVL_LIFELINE"
_GRACE = 20.0  # seconds in which a child may end of itself, after Ctrl-C or SIGTERM


class Children:
    """Starts processes; leaving the block ends those that still run.

    SIGTERM leaves it, too. A child that calls `end_with_parent` ends even where this process is
    killed: it reads from a pipe whose other end only this process holds.
    """

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []
        self._read, self._held = os.pipe()

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        return self

    def start(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """A child; `environment` is all that it gets, by default this process's own."""
        known = dict(os.environ if environment is None else environment)
        child = subprocess.Popen(
            command, env=known | {_LIFELINE: str(self._read)}, pass_fds=[self._read]
        )
        self._started.append(child)
        return child

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            for child in self._started:
                _ended(child, _GRACE)
        for child in self._started:
            child.terminate()
        for child in self._started:
            if not _ended(child, _GRACE):
                child.kill()
                child.wait()
        signal.signal(signal.SIGTERM, self._before)
        os.close(self._read)
        os.close(self._held)


def _ended(child: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether it has ended within that time."""
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def end_with_parent() -> None:
    """Where `Children` started this process: end it as soon as the one that did is gone."""
    line = os.environ.pop(_LIFELINE, "")
    if line:
        threading.Thread(target=_end_after, args=(int(line),), daemon=True).start()


def _end_after(line: int) -> None:
    os.read(line, 1)  # nothing is ever written: it returns when the other end is closed
    os._exit(128 + signal.SIGTERM)
