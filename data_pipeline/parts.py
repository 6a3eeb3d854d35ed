"""Works on the parts of a plan, one process or many; a part that is done is never done again.

    run_parts(plan.sizes, work, Local(workers=4), folder)

What a part comes to hangs on the part alone, so that the bytes are the same whatever the number of
workers. `data_pipeline.clusters` runs the same work under Slurm and Ray.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from tqdm import tqdm

from joyvl_train.config import UserError
from joyvl_train.run import disk_full, write_text

TRIES = 2
"""How often a part is begun where its process dies: it may have been for another's memory."""

_TELL_EVERY = 0.5  # seconds between two words on how far a part is

Tick = Callable[[int], None]
"""Told how many candidates more of a part are through."""


class Work(Protocol):
    """What is done to a part; it is pickled where other processes do it."""

    def done(self, part: int) -> bool:
        """Whether the part's own files are there and whole; cheap."""

    def __call__(self, part: int, tick: Tick) -> None:
        """Does it, and leaves its files under their names when all is done."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A part that came to its end: well, or with an error, in one line.

    fatal: the error would be every part's, such as a full disk or a wrong setting.
    """

    part: int
    error: str = ""
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class Advanced:
    """Candidates of a part that are through since it was last told of; less than none where it
    begins again."""

    part: int
    candidates: int


Tell = Callable[[Ended | Advanced], None]


class Executor(Protocol):
    """Runs parts, and tells of each, in any order. An error out of `tell`, or Ctrl-C, ends all
    that it started on this machine."""

    def run(self, parts: Sequence[int], work: Work, folder: Path, tell: Tell) -> None: ...


class PartsError(RuntimeError):
    """Parts that failed, while the others are done."""


def run_parts(
    sizes: Sequence[int],
    work: Work,
    executor: Executor,
    folder: str | os.PathLike[str],
    *,
    name: str = "work",
    progress: bool = True,
) -> None:
    """Has `work` done on every part that isn't done; `sizes` are the candidates of each.

    An error in one part leaves the others alone: its traceback is kept in `folder`/failed, and
    `PartsError` tells of it when they are through. What is no fault of the part's (`UserError`, a
    full disk) stops all. Either way a later run goes on with what isn't done.
    """
    place = Path(folder).absolute()
    missing = [part for part in range(len(sizes)) if not work.done(part)]
    if not missing:
        return
    (place / "failed").mkdir(parents=True, exist_ok=True)
    for part in missing:
        failure_note(place, part).unlink(missing_ok=True)
    failed: dict[int, str] = {}
    ticked: Counter[int] = Counter()
    there = sum(sizes) - sum(sizes[part] for part in missing)
    with tqdm(desc=name, total=sum(sizes), initial=there, unit="clip", disable=not progress) as bar:

        def tell(event: Ended | Advanced) -> None:
            if isinstance(event, Advanced):
                ticked[event.part] += event.candidates
                bar.update(event.candidates)
                return
            if event.fatal:
                raise UserError(event.error)
            bar.update(sizes[event.part] - ticked[event.part])
            if event.error:
                failed[event.part] = event.error

        executor.run(missing, work, place, tell)
    if failed:
        first = min(failed)
        raise PartsError(
            f"{len(failed)} of {len(sizes)} parts failed, the others are done; part {first}: "
            f"{failed[first]}; {place / 'failed'} tells of each; mend it and start again"
        )


def attempt(work: Work, part: int, folder: Path, tick: Tick) -> Ended:
    """Does one part, and keeps the traceback where it fails."""
    note = failure_note(folder, part)
    with _Kept() as kept:
        work(part, tick)
    error = kept.error
    if error is None:
        note.unlink(missing_ok=True)
        return Ended(part)
    if isinstance(error, UserError):
        return Ended(part, str(error), fatal=True)
    if disk_full(error):
        return Ended(part, "the disk is full; free some space and start again", fatal=True)
    write_text(note, "".join(traceback.format_exception(error)))
    return Ended(part, f"{type(error).__name__}: {error}".split("\n")[0][:300])


def failure_note(folder: Path, part: int) -> Path:
    return folder / "failed" / f"{part:05d}.txt"


class _Kept:
    """Keeps the error of what runs in it, whatever it is: one part's error is told of when the
    others are through. Ctrl-C and its like go past."""

    error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self.error = error if isinstance(error, Exception) else None
        return self.error is not None


@dataclass(frozen=True)
class Local:
    """On this machine: in this process, or in `workers` processes of their own.

    A process that dies, killed for memory say, is replaced, and the part that it had is begun
    again, `TRIES` times in all. Where this process dies the others follow at once, so that no two
    ever work on one part.
    """

    workers: int = 1

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers: 1 or more, not {self.workers!r}")

    def run(self, parts: Sequence[int], work: Work, folder: Path, tell: Tell) -> None:
        if self.workers > 1:
            with _Crew(work, folder, min(self.workers, len(parts))) as crew:
                crew.run(parts, tell)
            return
        for part in parts:
            tell(attempt(work, part, folder, partial(_advance, tell, part)))


def _advance(tell: Tell, part: int, candidates: int) -> None:
    tell(Advanced(part, candidates))


@dataclass
class _Hand:
    """A worker process, and the part that it has."""

    process: BaseProcess
    line: Connection
    ready: bool = False
    part: int | None = None
    ticked: int = 0


@dataclass
class _Crew:
    """Worker processes, each with a part at a time."""

    work: Work
    folder: Path
    size: int
    hands: list[_Hand] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for hand in self.hands:
            hand.process.terminate()
        for hand in self.hands:
            hand.process.join(5)
            if hand.process.is_alive():
                hand.process.kill()
                hand.process.join()
            hand.line.close()
        self.hands.clear()

    def run(self, parts: Sequence[int], tell: Tell) -> None:
        waiting = deque(parts)
        begun: Counter[int] = Counter()
        while waiting or any(hand.part is not None for hand in self.hands):
            while len(self.hands) < self.size and waiting:
                self.hands.append(self._hire())
            by_line = {hand.line: hand for hand in self.hands}
            for line in connection.wait(list(by_line)):
                assert isinstance(line, Connection), "one of ours"
                self._hear(by_line[line], waiting, begun, tell)

    def _hire(self) -> _Hand:
        # Spawned, not forked: a fork copies locks that other threads hold.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, self.work, self.folder), name="joyvl part worker"
        )
        process.start()
        theirs.close()  # so that the line ends where the process does
        return _Hand(process, ours)

    def _hear(self, hand: _Hand, waiting: deque[int], begun: Counter[int], tell: Tell) -> None:
        """Takes in one message of a worker, and gives it its next part."""
        try:
            message = hand.line.recv()
        except (EOFError, ConnectionResetError):
            self._bury(hand, waiting, begun, tell)
            return
        if isinstance(message, Advanced):
            hand.ticked += message.candidates
            tell(message)
            return
        hand.ready, hand.part, hand.ticked = True, None, 0
        if waiting:
            hand.part = waiting.popleft()
            begun[hand.part] += 1
            with contextlib.suppress(BrokenPipeError):  # it died just now, as its line will tell
                hand.line.send(hand.part)
        if isinstance(message, Ended):
            tell(message)

    def _bury(self, hand: _Hand, waiting: deque[int], begun: Counter[int], tell: Tell) -> None:
        """A worker died: another one is to begin its part again, or it has failed."""
        hand.process.join()
        hand.line.close()
        self.hands.remove(hand)
        code = hand.process.exitcode or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        if not hand.ready:
            raise RuntimeError(f"a worker process {how} before it could begin")
        if hand.part is None:
            return
        if hand.ticked:
            tell(Advanced(hand.part, -hand.ticked))
        if begun[hand.part] < TRIES:
            waiting.appendleft(hand.part)
            return
        error = f"its process {how}, {TRIES} times"
        write_text(failure_note(self.folder, hand.part), error + "\n")
        tell(Ended(hand.part, error))


def _serve(line: Connection, work: Work, folder: Path) -> None:
    """A worker process: does the parts that it is sent, until it is stopped."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which stops this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    line.send("ready")
    while True:
        try:
            part = line.recv()
        except EOFError:
            return
        teller = _Teller(line, part)
        ended = attempt(work, part, folder, teller.tick)
        teller.flush()
        line.send(ended)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "spawned"
    connection.wait([parent.sentinel])
    os._exit(1)


class _Teller:
    """Tells the parent how far a part is, now and then."""

    def __init__(self, line: Connection, part: int) -> None:
        self._line = line
        self._part = part
        self._count = 0
        self._told = time.monotonic()

    def tick(self, count: int) -> None:
        self._count += count
        if time.monotonic() - self._told >= _TELL_EVERY:
            self.flush()

    def flush(self) -> None:
        if self._count:
            self._line.send(Advanced(self._part, self._count))
        self._count, self._told = 0, time.monotonic()
