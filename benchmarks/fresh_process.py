"""Measures what runs in a fresh process: time, processor time and memory."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Took:
    """What a run took: seconds by the clock and of the processors, its children's included, and
    the most memory of its own process, in MiB: its own, and with the pages of mapped files."""

    seconds: float
    worked: float
    held: float
    whole: float
    phases: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def making(self) -> tuple[float, float]:
        """Seconds and processor seconds of all phases, less start-up and the report's page."""
        clock, worked = zip(*self.phases.values(), strict=True)
        return sum(clock), sum(worked)


def measured(run: Callable[[], object]) -> Took:
    """Runs it in a fresh process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(run, theirs))
    process.start()
    theirs.close()
    took: Took = ours.recv()
    process.join()
    return took


def _measure(run: Callable[[], Any], line: Connection) -> None:
    held, over = [memory_of("RssAnon")], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            held[0] = max(held[0], memory_of("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    before, start = os.times(), time.perf_counter()
    phases = run()
    seconds, after = time.perf_counter() - start, os.times()
    over.set()
    watcher.join()
    worked = sum(after[:4]) - sum(before[:4])
    line.send(Took(seconds, worked, held[0], memory_of("VmHWM"), phases or {}))


def memory_of(name: str) -> float:
    """A figure of this process's memory, in MiB."""
    for row in Path("/proc/self/status").read_text().splitlines():
        if row.startswith(f"{name}:"):
            return int(row.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status tells no {name}")
