"""The second phase of a corpus: the stages, on one part of a plan after another.

work/00000.jsonl        every candidate of the part with its history, as the stages left it
work/00000.rows.jsonl   a light row of each that is still open, for the phase that looks at all
work/00000.json         counts, digests, the part's funnel; written last
work/costs/             what the agents' calls cost (`costs`); not the same from run to run
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.candidates import Candidate, Stage, candidate_from_json, candidate_to_json
from data_pipeline.clip_hash import WORDS, Words, clip_hash
from data_pipeline.costs import CostLog, Spending, spent_in
from data_pipeline.funnel import Funnel, Spent, stepped_seconds
from data_pipeline.lines import LinesWriter, read_lines, read_object
from data_pipeline.near_text import said, span
from data_pipeline.parts import Tick
from data_pipeline.plan import Plan
from joyvl_train.frames import Frames
from joyvl_train.records import footage, settle
from joyvl_train.run import write_text
from joyvl_train.timeline import Timeline, TimelineError

PICTURES = "pictures"
"""The stage that hashes the pictures, and takes the clip's length from them where it isn't known;
one whose pictures can't be had, or whose events lie past the last one, ends there."""

_VERSION = 2
_LEAST_SPAN = 8
_MOST_OF_CLIP = 0.75
_HASHES_KEPT = 64


def _nothing_spent() -> Spent:
    return {}


def _nobody_asked(note: Callable[[], None]) -> None:
    """Where there are no agents nothing grows."""


@dataclass(frozen=True)
class Workshop:
    """What works on candidates in one process: made there once, by the callable that `StageWork`
    is given, so that models and clients need not be pickled.

    frames: the pictures of a timeline's clip, to compare them; None where they aren't looked at.
    spent: what the agents of this process have cost so far; watch: has a call made each time that
    this grows.
    """

    stages: Sequence[Stage]
    frames: Callable[[Timeline], Frames] | None = None
    spent: Spending = _nothing_spent
    watch: Callable[[Callable[[], None]], None] = _nobody_asked


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of an open candidate where all of them are looked at together.

    whole, span: hashes of the pictures of its footage, and of the seconds that its annotation tells
    of, where those are but a part of it; zeros: not there. A clip that is itself but a part of its
    footage has the second alone. seconds, spoken: as `stepped_seconds`.
    """

    id: str
    use: str
    family: str
    language: str
    footage: str
    seconds: int
    spoken: int
    words: bytes
    numbers: int
    whole: Words
    span: Words


@dataclass
class StageWork:
    """The stages on the parts of `plan`, into `folder`. `signature` names the stages and their
    settings: work done under another one is done anew."""

    plan: Plan
    folder: Path
    open: Callable[[], Workshop]
    signature: str
    root: str | os.PathLike[str] = "."
    _workshop: Workshop | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.folder = Path(self.folder).absolute()
        self.root = Path(self.root).absolute()

    def key(self, part: int) -> str:
        """Stands for all that the part's files hang on."""
        made_from = [_VERSION, self.plan.parts[part].digest, self.signature]
        return hashlib.blake2b(json.dumps(made_from).encode(), digest_size=16).hexdigest()

    def path(self, part: int, ending: str = "jsonl") -> Path:
        return self.folder / f"{part:05d}.{ending}"

    def told(self, part: int) -> dict[str, Any] | None:
        """What the part's index says; None while it isn't done."""
        index = read_object(self.path(part, "json"))
        if index is None or index.get("key") != self.key(part):
            return None
        for ending, (size, _) in index["files"].items():
            try:
                if self.path(part, ending).stat().st_size != size:
                    return None
            except FileNotFoundError:
                return None
        return index

    def done(self, part: int) -> bool:
        return self.told(part) is not None

    def __call__(self, part: int, tick: Tick) -> None:
        if self._workshop is None:
            self._workshop = self.open()
        shop = self._workshop
        with CostLog(self.folder / "costs", part, shop.spent) as costs:
            shop.watch(costs.note)
            self._work(part, shop, tick)

    def _work(self, part: int, shop: Workshop, tick: Tick) -> None:
        entered: set[str] = set()
        flow = _entering(self.plan.of(part), entered)
        for stage in shop.stages:
            flow = stage(flow)
        funnel = Funnel()
        left: set[str] = set()
        hashes = _Hashes(shop.frames, self.root)
        with (
            LinesWriter(self.path(part)) as lines,
            LinesWriter(self.path(part, "rows.jsonl")) as rows,
        ):
            for found in flow:
                candidate, row = hashes.row(found)
                if candidate.id in left:
                    raise ValueError(f"the stages gave candidate {candidate.id} twice")
                left.add(candidate.id)
                lines.add(candidate_to_json(candidate))
                if row is not None:
                    rows.add(row)
                funnel.add(candidate)
                tick(1)
            lost = entered - left
            if lost:
                raise ValueError(f"the stages lost {len(lost)} candidates, such as {min(lost)}")
        index = {
            "key": self.key(part),
            "candidates": lines.lines,
            "open": rows.lines,
            "files": {
                "jsonl": [lines.size, lines.digest],
                "rows.jsonl": [rows.size, rows.digest],
            },
            "funnel": funnel.to_json(),
        }
        write_text(self.path(part, "json"), json.dumps(index, indent=1) + "\n")

    def of(self, part: int) -> Iterator[Candidate]:
        """The candidates of a part that is done, whatever became of them."""
        return map(candidate_from_json, read_lines(self.path(part)))

    def rows(self, part: int) -> Iterator[Row]:
        """The light rows of a part that is done."""
        return map(row_from_json, read_lines(self.path(part, "rows.jsonl")))

    def spent(self) -> Spent:
        """What the agents' calls have cost, of parts that were broken off, too."""
        return spent_in(self.folder / "costs")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_workshop": None}


def _entering(candidates: Iterator[Candidate], ids: set[str]) -> Iterator[Candidate]:
    for candidate in candidates:
        ids.add(candidate.id)
        yield candidate


class _Hashes:
    """Hashes the pictures of candidates, those of one footage once."""

    def __init__(
        self, frames: Callable[[Timeline], Frames] | None, root: str | os.PathLike[str]
    ) -> None:
        self._frames = frames
        self._root = root
        self._whole: OrderedDict[str, Words] = OrderedDict()

    def row(self, candidate: Candidate) -> tuple[Candidate, dict[str, Any] | None]:
        """The candidate, and its light row while it is open: a picture that can't be had rejects
        it."""
        if candidate.status != "open":
            return candidate, None
        shown = footage(candidate.timeline.clip, self._root)
        try:
            frames = self._open(candidate.timeline)
            timeline = settle(candidate.timeline, frames) if frames else candidate.timeline
            whole, span = self._of(timeline, frames, shown)
        except TimelineError as error:
            return candidate.rejected(PICTURES, error.reason, error.detail), None
        if timeline != candidate.timeline:
            detail = f"its clip is {timeline.clip.duration:.10g} s long"
            candidate = candidate.changed(PICTURES, timeline, detail)
        seconds, spoken = stepped_seconds(timeline)
        told = said(candidate)
        return candidate, {
            "id": candidate.id,
            "use": candidate.use,
            "family": timeline.family,
            "language": candidate.language,
            "footage": shown,
            "seconds": seconds,
            "spoken": spoken,
            "words": _pack(b"" if told is None else told.words),
            "numbers": 0 if told is None else told.numbers,
            "whole": _pack(whole),
            "span": _pack(span),
        }

    def _open(self, timeline: Timeline) -> Frames | None:
        """The pictures of a clip that is hashed.

        A scene of the rendered world is known by its script: scenes of one background look alike,
        and are not the same.
        """
        clip = timeline.clip
        if self._frames is None or clip.scene is not None or not (clip.video or clip.images):
            return None
        return self._frames(timeline)

    def _of(self, timeline: Timeline, frames: Frames | None, shown: str) -> tuple[bytes, bytes]:
        """The hashes of a whole clip and of what its annotation tells of; empty: none."""
        if frames is None:
            return b"", b""
        if not getattr(frames, "whole", True):  # the clip is a part of what its footage shows
            seconds = min(frames.seconds, timeline.clip.seconds or frames.seconds)
            first, last = shown_span(timeline, seconds) or (0, seconds)
            return b"", clip_hash(frames, first, last).tobytes()
        if shown not in self._whole:
            self._whole[shown] = clip_hash(frames, 0, frames.seconds)
            if len(self._whole) > _HASHES_KEPT:
                self._whole.popitem(last=False)
        whole = self._whole[shown].tobytes()
        stretch = shown_span(timeline, frames.seconds)
        return whole, b"" if stretch is None else clip_hash(frames, *stretch).tobytes()


def shown_span(timeline: Timeline, seconds: int) -> tuple[int, int] | None:
    """The seconds, eight or more, that an annotation tells of; None where that is most of the
    clip, or nothing is told of."""
    stretch = span(timeline.events)
    if stretch is None:
        return None
    first, last = int(stretch[0]), max(int(stretch[1]), int(stretch[0]) + 1)
    missing = max(0, _LEAST_SPAN - (last - first))
    first = max(0, min(first - missing // 2, seconds - _LEAST_SPAN))
    last = min(seconds, max(last, first + _LEAST_SPAN))
    if first >= last or last - first >= _MOST_OF_CLIP * seconds:
        return None
    return first, last


def _pack(data: bytes) -> str:
    return base64.b85encode(data).decode()


def _words(text: str) -> Words:
    if not text:
        return np.zeros(WORDS, np.uint64)
    return np.frombuffer(base64.b85decode(text), np.uint64)


def row_from_json(data: Mapping[str, Any]) -> Row:
    packed = {
        "words": base64.b85decode(data["words"]),
        "whole": _words(data["whole"]),
        "span": _words(data["span"]),
    }
    return Row(**{**data, **packed})
