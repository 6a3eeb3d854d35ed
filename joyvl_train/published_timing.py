"""Timing measures that others publish, computed from the same traces, for comparison only.

They were defined on other protocols (teacher-forced, polled, one event a clip); each docstring says
how a free-running stream is read for it. Judge a policy by `joyvl_train.timing`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from joyvl_train.content import tokens
from joyvl_train.timing import Emission, Onset, said_right


class Traced(Protocol):
    """What is read of a `heldout.Trace`."""

    @property
    def onsets(self) -> tuple[Onset, ...]: ...
    @property
    def emissions(self) -> list[Emission]: ...
    @property
    def seconds(self) -> range: ...


Words = Callable[[str], Sequence[str]]
Grade = Callable[[Onset, str], float | None]
"""(onset, said) -> 0 (wrong) to 4 (right), None where it can't be graded."""

PATIENCE = 4
"""Seconds after the gold one during which StreamingBench goes on polling."""
TOLERANCE = 2
"""Seconds by which StreamingBench's answer may be off."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """The seconds (after, second] that end in an onset, and the ones after it till the next."""

    onset: Onset
    after: int
    following: int

    @property
    def frames(self) -> int:
        return self.onset.second - self.after


def _turns(onsets: Sequence[Onset], seconds: range) -> list[_Turn]:
    gold = sorted(onsets, key=lambda o: o.second)
    before = [seconds.start - 1, *(o.second for o in gold)]
    after = [*(o.second for o in gold[1:]), None]
    turns = []
    for previous, onset, upcoming in zip(before, gold, after, strict=False):
        following = 0 if upcoming is None else upcoming - onset.second
        turns.append(_Turn(onset, previous, following))
    return [turn for turn in turns if turn.frames > 0]


def _spoke(turn: _Turn, emissions: Sequence[Emission]) -> Emission | int:
    """The emission that counts for a turn; else how many seconds were listened past its end."""
    early = [e for e in emissions if turn.after < e.second <= turn.onset.second]
    if early:
        return min(early, key=lambda e: e.second)
    # As far past the onset as the turn is long before it, and never into the turn after the next.
    patience = min(turn.following, turn.frames - 1)
    end = turn.onset.second + patience
    late = [e for e in emissions if turn.onset.second < e.second <= end]
    return min(late, key=lambda e: e.second) if late else patience


def time_diff(onsets: Sequence[Onset], emissions: Sequence[Emission], seconds: range) -> list[int]:
    """VideoLLM-online's TimeDiff, one value a turn: whole seconds early or late, absolute.

    A turn is what lies between two onsets. What counts is the first emission in it; else the first
    after it, within as many seconds as the turn has before its onset (less one) or the next turn
    has; else all of those. So never speaking in the last turn counts 0, as published. There it is
    teacher-forced; here the history is the policy's own.
    """
    diffs = []
    for turn in _turns(onsets, seconds):
        found = _spoke(turn, emissions)
        diffs.append(found if isinstance(found, int) else abs(found.second - turn.onset.second))
    return diffs


def fluency(
    onsets: Sequence[Onset],
    emissions: Sequence[Emission],
    seconds: range,
    words: Words = str.split,
    frame_tokens: int = 1,
) -> list[float]:
    """VideoLLM-online's fluency, one value a turn, from 0 to 1.

    With V frame tokens and T text tokens in the turn, c of them said right from the start and d
    frame tokens by which the emission is early: (V + c) / (V + T) on time, (V - d) / (V + T) early,
    (V - 1) / (V + T) late or never. Words stand for text tokens and a second is one frame of
    `frame_tokens`.
    """
    values = []
    for turn in _turns(onsets, seconds):
        video = turn.frames * frame_tokens
        text = words(turn.onset.text)
        found = _spoke(turn, emissions)
        if isinstance(found, int) or found.second > turn.onset.second:
            right = video - 1
        elif found.second < turn.onset.second:
            right = video - (turn.onset.second - found.second) * frame_tokens
        else:
            right = video + _common_prefix(text, words(found.text))
        values.append(right / (video + len(text)))
    return values


def _common_prefix(a: Sequence[str], b: Sequence[str]) -> int:
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count


def right_or_wrong(o: Onset, said: str) -> float | None:
    """4 where the text is right by the onset's rule, 0 where wrong."""
    right = said_right(o, said)
    return None if right is None else 4.0 * right


def _span(onsets: Sequence[Onset], i: int, seconds: range) -> range:
    """An onset's state; without one, the seconds till the next onset or the end."""
    if onsets[i].held:
        return onsets[i].held
    later = [o.second for o in onsets if o.second > onsets[i].second]
    return range(onsets[i].second, min([*later, seconds.stop]))


def pauc(
    onsets: Sequence[Onset],
    emissions: Sequence[Emission],
    seconds: range,
    grade: Grade = right_or_wrong,
    w: float = 0.5,
) -> list[float]:
    """ProactiveVideoQA's PAUC as MMDuet2 rewards it, one value a gold span, from 0 to 1.

    In a span of X seconds a reply x seconds after its start, graded y in 0..4, stands at x (1 - w).
    A step function starts at 0.5, takes the grade of each reply, and is held to X; the value is its
    area over 4 X. Silence earns 0.125. Replies that can't be graded are left out.
    """
    values = []
    for i in range(len(onsets)):
        span = _span(onsets, i, seconds)
        if not span:
            continue
        inside = sorted((e for e in emissions if e.second in span), key=lambda e: e.second)
        place, level, area = 0.0, 0.5, 0.0
        for emission in inside:
            y = grade(onsets[i], emission.text)
            if y is None:
                continue
            x = (emission.second - span.start) * (1 - w)
            area += level * (x - place)
            place, level = x, y
        area += level * (len(span) - place)
        values.append(area / (4 * len(span)))
    return values


def streamingbench_po(onsets: Sequence[Onset], emissions: Sequence[Emission]) -> list[bool]:
    """StreamingBench's proactive output, one verdict an onset.

    It polls each second until the model speaks, 4 s past the gold second at most; right iff that is
    within 2 s of the gold one and the text holds the gold text. The polling for an onset starts
    where the one before it ended.
    """
    verdicts = []
    after = -1
    for onset in sorted(onsets, key=lambda o: o.second):
        end = onset.second + PATIENCE
        heard = [e for e in emissions if after < e.second <= end]
        first = min(heard, key=lambda e: e.second, default=None)
        after = end if first is None else first.second
        verdicts.append(
            first is not None
            and abs(first.second - onset.second) <= TOLERANCE
            and " ".join(tokens(onset.text)) in " ".join(tokens(first.text))
        )
    return verdicts


@dataclass(frozen=True, slots=True)
class ProactiveAlert:
    """OmniMMI's proactive alerting on one clip. None: there was no alert to judge."""

    right: bool
    precision: float | None
    iou: float


def omnimmi_pa(onset: Onset, emissions: Sequence[Emission]) -> ProactiveAlert:
    """For a clip with one gold span: whether the first alert is inside it, the share of alerts
    inside it, and the IoU of [first, last] alert with it."""
    span = onset.held or range(onset.second, onset.second + 1)
    alerts = sorted(e.second for e in emissions)
    if not alerts:
        return ProactiveAlert(False, None, 0.0)
    said = range(alerts[0], alerts[-1] + 1)
    overlap = max(0, min(said.stop, span.stop) - max(said.start, span.start))
    return ProactiveAlert(
        right=alerts[0] in span,
        precision=sum(t in span for t in alerts) / len(alerts),
        iou=overlap / (len(said) + len(span) - overlap),
    )


@dataclass(frozen=True, slots=True)
class Captioned:
    """LiveStar's reading of one segment: seconds till its first caption, and how many it got."""

    delay: int
    captions: int


def livestar(
    onsets: Sequence[Onset], emissions: Sequence[Emission], seconds: range
) -> list[Captioned]:
    """One reading a segment; a segment goes from one onset to the next, the last one to the end.

    Without a caption the delay is the segment's length.
    """
    gold = sorted(onsets, key=lambda o: o.second)
    ends = [*(o.second for o in gold[1:]), seconds.stop]
    found = []
    for onset, end in zip(gold, ends, strict=False):
        heard = [e.second for e in emissions if onset.second <= e.second < end]
        delay = (min(heard) if heard else end) - onset.second
        found.append(Captioned(delay, len(heard)))
    return found


def measures(traces: Iterable[Traced], prefix: str = "published") -> dict[str, float]:
    """All of them over traces, as flat keys; one that has nothing to judge has no key.

    Means run over turns, spans or segments, of OmniMMI over the clips with exactly one onset.
    `turn_taking` is its share of clips kept silent among those in which nothing was due.
    """
    values: dict[str, list[float]] = {}

    def note(name: str, found: Iterable[float]) -> None:
        values.setdefault(name, []).extend(found)

    for trace in traces:
        onsets, emissions, seconds = trace.onsets, trace.emissions, trace.seconds
        note("time_diff", time_diff(onsets, emissions, seconds))
        note("fluency", fluency(onsets, emissions, seconds))
        note("pauc", pauc(onsets, emissions, seconds))
        note("streamingbench_po", streamingbench_po(onsets, emissions))
        captioned = livestar(onsets, emissions, seconds)
        note("livestar_time_diff", (c.delay for c in captioned))
        note("livestar_redundancy", (abs(1 - c.captions) for c in captioned))
        note("livestar_coverage", (c.captions > 0 for c in captioned))
        if not onsets:
            note("omnimmi_turn_taking", [not emissions])
        elif len(onsets) == 1:
            alert = omnimmi_pa(onsets[0], emissions)
            note("omnimmi_pa_accuracy", [alert.right])
            note("omnimmi_pa_precision", [] if alert.precision is None else [alert.precision])
            note("omnimmi_pa_iou", [alert.iou])
    return {
        f"{prefix}/{name}": float(statistics.fmean(found))
        for name, found in values.items()
        if found
    }
