"""What a corpus is made of: streams and turn-based samples, and the records that can't be used."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from joyvl_train.frames import Frames
from joyvl_train.memory import Summary
from joyvl_train.timeline import Clip, Timeline, TimelineError

# Of a picture's name, without its ending, the number that tells it from the others of its clip.
_NUMBER = re.compile(r"[._ -]?\d+(\.\d+)?$")


class RecordError(TimelineError):
    """A stored record that can't be used. `reason` is a short fixed phrase that is counted:

    missing shard, truncated shard, corrupt shard, corrupt record, corrupt frame, other version,
    not JSON, not UTF-8, no object, cut off, too large, nested too deeply.
    """


class Rejects:
    """Counts by reason, and a JSON line a record in `path`, if there is one.

    A record, named by where it stands (`item`), is counted once however often it is met: a sampler
    comes by again every epoch. What the file holds already, from a run that was broken off or from
    another process that reads the same data, is not written again.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.counts: Counter[str] = Counter()
        self.first = ""
        """`: where the first one stands: what is wrong with it`, for messages."""
        self._met: set[str] = set()
        self._written: set[bytes] = set()
        self._read = 0

    def add(self, item: str, reason: str, detail: str) -> None:
        if item in self._met:
            return
        self._met.add(item)
        self.counts[reason] += 1
        self.first = self.first or (f": {detail}" if item in detail else f": {item}: {detail}")
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            line = json.dumps({"item": item, "reason": reason, "detail": detail}).encode()
            with self.path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(self._read)
                *whole, torn = file.read().split(b"\n")  # torn: by a kill
                self._written.update(whole)
                if line not in self._written:
                    file.write((b"\n" if torn else b"") + line + b"\n")
                    file.flush()
                    torn = b""
                self._read = file.tell() - len(torn)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def __str__(self) -> str:
        """`3 rejected (2 past the end, 1 format)`."""
        each = ", ".join(f"{n} {reason}" for reason, n in self.counts.most_common())
        return f"{self.total} rejected" + (f" ({each})" if each else "")


Use = Literal["train", "evaluation"]
"""What a record may be used for; what stems from a benchmark is for evaluation alone."""


@dataclass(frozen=True)
class StreamLabels:
    """What a corpus says of one stream: its timeline, and what goes with it.

    summaries: memory text of stretches of seconds, for clips longer than a chunk. id and footage
    are filled in when it is written, where they are empty: by the clip's id, and by what `footage`
    says of the clip. language: of what is said, such as "en". licence: that of the footage.
    history: what each stage that made the record did to it, as plain data.
    """

    timeline: Timeline
    summaries: tuple[Summary, ...] = ()
    id: str = ""
    footage: str = ""
    language: str = ""
    licence: str = ""
    use: Use = "train"
    history: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        where = f"clip {self.timeline.clip.id!r}"
        _check_use(self.use, where)
        seconds = self.timeline.clip.seconds
        for summary in self.summaries:
            if summary.start < 0 or (seconds is not None and summary.stop > seconds):
                what = f"{where}: summary of [{summary.start}, {summary.stop}) s of {seconds} s"
                raise TimelineError("past the end", what)


@dataclass(frozen=True)
class TurnSample:
    """One question about pictures, and its answer; not bound to time.

    `context` is memory text that the question may ask about. Its tokens all weigh the same
    (`weights` "turn"); those of a stream follow the weighted loss. `footage` names what the
    pictures were taken from, as `footage` does of a stream's clip; empty: nothing but `id` does.
    The rest is as in `StreamLabels`.
    """

    id: str
    question: str
    answer: str
    images: tuple[Image.Image, ...] = ()
    context: str = ""
    source: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    footage: str = ""
    language: str = ""
    licence: str = ""
    use: Use = "train"
    history: tuple[Mapping[str, Any], ...] = ()

    weights: Literal["turn"] = field(default="turn", init=False)

    def __post_init__(self) -> None:
        for name in ("question", "answer"):
            text = getattr(self, name)
            if not isinstance(text, str) or not text.strip():
                raise TimelineError("empty text", f"sample {self.id!r}: {name} {text!r}")
        if not isinstance(self.footage, str):
            raise TimelineError("shape", f"sample {self.id!r}: footage {self.footage!r}")
        _check_use(self.use, f"sample {self.id!r}")


def _check_use(use: str, where: str) -> None:
    if use not in get_args(Use):
        raise TimelineError("shape", f"{where}: use {use!r} is none of {get_args(Use)}")


Record = tuple[StreamLabels, Frames | None] | TurnSample
"""What a shard holds; the frames are None where a corpus has annotations alone."""


def footage(clip: Clip, root: str | os.PathLike[str] = ".") -> str:
    """What a clip shows, by name: two records of one name are never told apart when clips are held
    out, however they call themselves and wherever they stand.

    The video's path; of pictures the first one's, without its ending and number, so that all those
    numbered alike in one folder are one clip; a digest of the scene; else the clip's id. Paths are
    relative to `root`.

    >>> footage(Clip("a", images=("door/0007.jpg", "door/0008.jpg")))
    'door'
    """
    path = clip.video or next((image for image in clip.images if image), "")
    if path:
        path = os.path.relpath(path, root) if os.path.isabs(path) else os.path.normpath(path)
        if clip.video:
            return path
        return os.path.normpath(_NUMBER.sub("", os.path.splitext(path)[0]))
    if clip.scene is not None:
        text = json.dumps(clip.scene, sort_keys=True)
        return "scene " + hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return clip.id


def footage_number(name: str) -> int:
    """The 64 bits that stand for footage of this name."""
    text = os.path.normpath(name).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def settle(timeline: Timeline, frames: Frames) -> Timeline:
    """The timeline with its clip's length known from the frames.

    Raises `TimelineError` "past the end" where an event lies past the last picture.
    """
    there = float(getattr(frames, "duration", frames.seconds))
    known = timeline.clip.duration
    if known is not None and known <= there:
        return timeline
    settled = replace(timeline, clip=replace(timeline.clip, duration=there))
    check_repeats(settled)
    return settled


def check_repeats(timeline: Timeline) -> None:
    """Raise `TimelineError` where a response is to be repeated past the clip's end."""
    seconds = timeline.clip.seconds
    for event in timeline.of("assistant"):
        if seconds is not None and event.repeat and event.held_seconds[-1] >= seconds:
            where = f"clip {timeline.clip.id!r}: event {event.id!r}"
            raise TimelineError("past the end", f"{where} until {event.until} s of {seconds} s")
