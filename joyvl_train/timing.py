"""When it spoke, beside when it should have: the timing measures of a stream.

Pure Python and NumPy. Seconds are whole; an onset o is hit by an emission in its window
[o - early, o + late]. One clip gives counts that add up (`Score`); rates and their intervals come
from the counts (`aggregate`, `paired_difference`). Rewards use `classify` and `score` as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from joyvl_train import content
from joyvl_train.matching import assign, components
from joyvl_train.timeline import Event, Rule, Timeline

EARLY = 0
LATE = 1
"""The window of an onset whose event names none, in whole seconds before and after it."""


@dataclass(frozen=True, slots=True)
class Emission:
    """What was said in `second`: a response, or the note of a delegation."""

    second: int
    text: str
    delegation: bool = False


@dataclass(frozen=True, slots=True)
class Onset:
    """A second in which something is due.

    `until` ends the state that it reports (exclusive, whole seconds), None where none is held;
    `repeat` says that the instruction asks for the response in every second of it.
    """

    second: int
    text: str
    early: int = EARLY
    late: int = LATE
    until: int | None = None
    repeat: bool = False
    rule: Rule | None = None
    delegation: bool = False
    id: str = ""

    @property
    def window(self) -> range:
        return range(self.second - self.early, self.second + self.late + 1)

    @property
    def held(self) -> range:
        """The seconds of the state; none where none is held."""
        return range(self.second, self.second if self.until is None else self.until)


@dataclass(frozen=True, slots=True)
class Delegated:
    """When the policy made a gold delegation, and when its result came (None: not yet)."""

    second: int
    returned: int | None = None


def onset(event: Event, shift: int = 0, early: int = EARLY, late: int = LATE) -> Onset:
    """The onset of an assistant event, moved by `shift` seconds."""
    return Onset(
        second=event.second + shift,
        text=event.text,
        early=early if event.early is None else event.early,
        late=late if event.late is None else event.late,
        until=None if event.until is None else event.held_seconds.stop + shift,
        repeat=event.repeat,
        rule=event.rule,
        delegation=event.question is not None,
        id=event.id,
    )


def due(
    timeline: Timeline,
    delegated: Mapping[str, Delegated] | None = None,
    early: int = EARLY,
    late: int = LATE,
) -> list[Onset]:
    """The onsets that were due, given which gold delegations the policy made (by event id).

    A result returns when it returned to this policy, and what answers it moves with it; without
    the delegation, or before the result, neither is due. What would move past the end isn't due
    either. `delegated=None` gives the onsets of the timeline as they stand.
    """
    events = {event.id: event for event in timeline.events}
    happened: dict[str, int | None] = {}

    def shift(event: Event) -> int | None:
        """By how much `event` is due later than in the timeline; None where it isn't due."""
        if event.answers is None or event.role == "user" or delegated is None:
            return 0
        cause = events[event.answers]
        if cause.id not in happened:
            happened[cause.id] = 0  # a ring of answers moves nothing
            happened[cause.id] = moved(cause)
        return happened[cause.id]

    def moved(cause: Event) -> int | None:
        if delegated is not None and cause.question is not None:
            made = delegated.get(cause.id)
            return None if made is None else made.second - cause.second
        if delegated is not None and cause.role == "background" and cause.answers is not None:
            made = delegated.get(cause.answers)
            if made is None or made.returned is None:
                return None
            return made.returned - cause.second
        return shift(cause)

    found = []
    for event in timeline.of("assistant"):
        by = shift(event)
        end = timeline.clip.seconds
        if by is not None and (end is None or event.second + by < end):
            found.append(onset(event, by, early, late))
    return sorted(found, key=_onset_key)


# Matching


def _onset_key(o: Onset) -> tuple[int, int, int, str]:
    return (o.second, o.early, o.late, o.id)


def match(onsets: Sequence[Onset], emissions: Sequence[Emission]) -> list[tuple[int, int]]:
    """(onset, emission) index pairs, one to one, each emission in its onset's window.

    As many pairs as there can be; of those sets the one with the least total distance in seconds;
    of those the one with the least squared distance (so pairs don't cross without need), then the
    one with the earliest emissions. The order of the arguments does not matter.
    """
    by_second: dict[int, int] = {}
    for j, emission in enumerate(emissions):
        if emission.second in by_second:
            raise ValueError(f"two emissions in second {emission.second}")
        by_second[emission.second] = j
    order = sorted(range(len(onsets)), key=lambda i: _onset_key(onsets[i]))
    hits = {i: [t for t in onsets[i].window if t in by_second] for i in order}
    pairs = []
    for group in components({i: hits[i] for i in order if hits[i]}):
        seconds = sorted({t for i in group for t in hits[i]})
        reach = max(abs(onsets[i].second - t) for i in group for t in hits[i])
        # Weights that make one sum of integers compare like (distance, squares, ranks).
        per_square = len(seconds) ** 2 + 1
        per_second = per_square * (len(group) * reach**2 + 1)
        costs: list[list[int | None]] = []
        for i in group:
            row: list[int | None] = []
            for rank, t in enumerate(seconds):
                gap = abs(onsets[i].second - t)
                cost = gap * per_second + gap * gap * per_square + rank
                row.append(cost if t in onsets[i].window else None)
            costs.append(row)
        pairs += [(group[r], by_second[seconds[c]]) for r, c in assign(costs)]
    return sorted(pairs, key=lambda pair: (emissions[pair[1]].second, pair))


# One clip

Right = Callable[[Onset, str], bool | None]
"""(onset, said) -> right, wrong, or None where it can't be scored."""


def said_right(o: Onset, said: str) -> bool | None:
    """By the onset's own rule; rules that need a judge are unscored."""
    return content.right(o.rule, o.text, said)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What each emission and onset came out as; an emission is in exactly one of the four.

    `late` pairs an emission with the missed onset whose state it was said in.
    """

    matches: tuple[tuple[Onset, Emission], ...]
    late: tuple[tuple[Onset, Emission], ...]
    repeats: tuple[tuple[Onset, Emission], ...]
    false_alarms: tuple[Emission, ...]
    missed: tuple[Onset, ...]


def classify(
    onsets: Sequence[Onset], emissions: Sequence[Emission], right: Right = said_right
) -> Verdict:
    """Match, then place each emission that is left, in order of time.

    In a held state whose onset went unmatched, the first one is late, whatever it says. In a state
    that was reported (in time or late) one that isn't wrong is a repeat; a wrong one is a false
    alarm. Where states overlap, the one whose text is said comes first.
    """
    pairs = match(onsets, emissions)
    matched = {i for i, _ in pairs}
    used = {j for _, j in pairs}
    missed = tuple(o for i, o in enumerate(onsets) if i not in matched)
    unreported = [i for i, o in enumerate(onsets) if i not in matched and o.held]
    reported = [i for i, o in enumerate(onsets) if i in matched and o.held]
    late, repeats, false_alarms = [], [], []
    rest = [e for j, e in enumerate(emissions) if j not in used]
    for emission in sorted(rest, key=lambda e: e.second):
        waiting = [i for i in unreported if emission.second in onsets[i].held]
        told = [i for i in reported if emission.second in onsets[i].held]
        said = {i: right(onsets[i], emission.text) for i in told}
        if len(told) + len(waiting) > 1:
            said |= {i: right(onsets[i], emission.text) for i in waiting}
        told = [i for i in told if said[i] is not False]
        waiting.sort(key=lambda i: (said.get(i) is not True, _onset_key(onsets[i])))
        told.sort(key=lambda i: (said[i] is not True, -onsets[i].second, onsets[i].id))
        if waiting and (not told or said.get(waiting[0]) is True):
            i = waiting[0]
            late.append((onsets[i], emission))
            unreported.remove(i)
            reported.append(i)
        elif told:
            repeats.append((onsets[told[0]], emission))
        else:
            false_alarms.append(emission)
    matches = tuple((onsets[i], emissions[j]) for i, j in pairs)
    return Verdict(matches, tuple(late), tuple(repeats), tuple(false_alarms), missed)


@dataclass(frozen=True, slots=True)
class Score:
    """Counts of one clip, or of several added up.

    counted: emissions that precision counts, that is all but repeats that were asked for. held:
    matched onsets that hold a state, repeats: repeats in those states. scored, right, unscored:
    matched onsets by content. quiet: seconds outside every window and state, kept: those of them
    without an emission. error, error_abs: sums over matches, seconds.
    """

    clips: float = 0
    seconds: float = 0
    onsets: float = 0
    matched: float = 0
    counted: float = 0
    late: float = 0
    false_alarms: float = 0
    held: float = 0
    repeats: float = 0
    error: float = 0
    error_abs: float = 0
    delegations_due: float = 0
    delegations: float = 0
    delegations_matched: float = 0
    scored: float = 0
    right: float = 0
    unscored: float = 0
    quiet: float = 0
    kept: float = 0
    malformed: float = 0
    truncated: float = 0

    def __add__(self, other: Score) -> Score:
        return Score(*(getattr(self, n) + getattr(other, n) for n in COUNTS))


COUNTS = tuple(field.name for field in fields(Score))


def score(
    onsets: Sequence[Onset],
    emissions: Sequence[Emission],
    seconds: int | Collection[int],
    right: Right = said_right,
    malformed: int = 0,
    truncated: int = 0,
) -> Score:
    """The counts of one clip; `seconds` are those that were stepped, or how many from 0 on.

    The content of a delegation's note is scored only where its event has a rule. Raises
    `ValueError` for two emissions in a second and for one in a second that was not stepped.
    """
    stepped = set(range(seconds) if isinstance(seconds, int) else seconds)
    outside = [e.second for e in emissions if e.second not in stepped]
    if outside:
        raise ValueError(f"an emission in second {outside[0]}, which was not stepped")
    verdict = classify(onsets, emissions, right)
    errors = [e.second - o.second for o, e in verdict.matches]
    judged = [
        right(o, e.text) for o, e in verdict.matches if not o.delegation or o.rule is not None
    ]
    asked = sum(o.repeat for o, _ in verdict.repeats)
    missed = {id(o) for o in verdict.missed}
    delegated = [e for e in emissions if e.delegation]
    delegable = [o for o in onsets if o.delegation]
    busy = {t for o in onsets for part in (o.window, o.held) for t in part}
    quiet = stepped - busy
    return Score(
        clips=1,
        seconds=len(stepped),
        onsets=len(onsets),
        matched=len(verdict.matches),
        counted=len(emissions) - asked,
        late=len(verdict.late),
        false_alarms=len(verdict.false_alarms),
        held=sum(o.until is not None for o, _ in verdict.matches),
        repeats=sum(id(o) not in missed for o, _ in verdict.repeats),
        error=sum(errors),
        error_abs=sum(map(abs, errors)),
        delegations_due=len(delegable),
        delegations=len(delegated),
        delegations_matched=len(match(delegable, delegated)),
        scored=sum(r is not None for r in judged),
        right=sum(r is True for r in judged),
        unscored=sum(r is None for r in judged),
        quiet=len(quiet),
        kept=len(quiet - {e.second for e in emissions}),
        malformed=malformed,
        truncated=truncated,
    )


# Many clips

Counts = NDArray[np.float64]
"""`[..., len(COUNTS)]`"""


def _over(part: Counts, whole: Counts) -> Counts:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, part / whole, np.nan)


_PER_HOUR = "false_alarms_per_hour"
# measure -> (what is counted, twice for the harmonic mean; what it is divided by; its `.count`)
_RATIOS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "onset_f1": ("matched", ("counted", "onsets"), "onsets"),
    "precision": ("matched", ("counted",), "counted"),
    "recall": ("matched", ("onsets",), "onsets"),
    "onset_error": ("error", ("matched",), "matched"),
    "onset_error_abs": ("error_abs", ("matched",), "matched"),
    _PER_HOUR: ("false_alarms", ("seconds",), "false_alarms"),
    "repeats_per_event": ("repeats", ("held",), "held"),
    "delegation_precision": ("delegations_matched", ("delegations",), "delegations"),
    "delegation_recall": ("delegations_matched", ("delegations_due",), "delegations_due"),
    "content_accuracy": ("right", ("scored",), "scored"),
    "silence_accuracy": ("kept", ("quiet",), "quiet"),
}
MEASURES = tuple(_RATIOS)
_TOTALS = ("clips", "late", "malformed", "truncated", "unscored")


def rate(measure: str, counts: Counts) -> Counts:
    """The measure of counts `[..., len(COUNTS)]`, as `[...]`; NaN where it is undefined.

    onset F1 = 2 matched / (counted + onsets), which is the harmonic mean of precision and recall;
    without onsets it is undefined, not 0, and so is any rate over nothing.
    """
    part, whole, needed = _RATIOS[measure]
    column = {name: counts[..., i] for i, name in enumerate(COUNTS)}
    divisor = np.sum([column[name] for name in whole], axis=0)
    value = _over(column[part] * len(whole), divisor)
    if measure == "onset_f1":
        value = np.where(column[needed] > 0, value, np.nan)
    return value * 3600 if measure == _PER_HOUR else value


def _mean(values: list[Counts]) -> Counts:
    """Mean of those that are defined, place by place."""
    stacked = np.stack(values)
    return _over(np.nansum(stacked, axis=0), np.sum(~np.isnan(stacked), axis=0).astype(float))


def _overall(measure: str, by_family: Sequence[Counts]) -> Counts:
    """Macro mean over the families in which the measure is defined; false alarms are pooled."""
    if measure == _PER_HOUR:
        return rate(measure, np.sum(by_family, axis=0))
    return _mean([rate(measure, counts) for counts in by_family])


def _weights(random: np.random.Generator, clips: int, samples: int) -> Counts:
    """How often each clip is drawn in each bootstrap sample, `[samples, clips]`."""
    return random.multinomial(clips, np.full(clips, 1 / clips), size=samples).astype(float)


def _matrix(scores: Iterable[Score]) -> Counts:
    return np.array([[getattr(s, n) for n in COUNTS] for s in scores], dtype=float)


def _interval(values: Counts) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    low, high = np.percentile(known, (2.5, 97.5)) if len(known) else (np.nan, np.nan)
    return float(low), float(high)


def aggregate(
    scores: Mapping[str, Sequence[Score]],
    prefix: str = "eval",
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Flat measures of clips by family, ready for metrics.json.

    `<prefix>/<measure>` is the macro mean over families, false alarms pooled;
    `<prefix>/<family>/<measure>` is that of one. `.low` and `.high` bound a 95 % percentile
    bootstrap over clips (drawn within each family), `.count` is what the rate is over: onsets,
    emissions counted, matches, delegations, quiet seconds ..., for false alarms the alarms
    themselves, beside `hours`. A measure that is undefined (F1 of a family without onsets, content
    without matches) has no key. Totals: hours, clips, late, malformed, truncated, content_unscored.
    """
    random = np.random.default_rng(seed)
    metrics: dict[str, float] = {}
    totals, draws = [], []
    for family, clips in sorted(scores.items()):
        if not clips:
            continue
        counts = _matrix(clips)
        total = counts.sum(axis=0)
        drawn = _weights(random, len(clips), samples) @ counts
        totals.append(total)
        draws.append(drawn)
        metrics |= _keys(f"{prefix}/{family}", [total], [drawn])
    if totals:
        metrics = _keys(prefix, totals, draws) | metrics
    return metrics


def _keys(prefix: str, totals: Sequence[Counts], draws: Sequence[Counts]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    summed = dict(zip(COUNTS, np.sum(totals, axis=0).tolist(), strict=True))
    for measure in MEASURES:
        value = float(_overall(measure, totals))
        if np.isnan(value):
            continue
        low, high = _interval(_overall(measure, draws))
        key = f"{prefix}/{measure}"
        count = summed[_RATIOS[measure][2]]
        metrics |= {key: value, f"{key}.low": low, f"{key}.high": high, f"{key}.count": count}
    for name in _TOTALS:
        shown = "content_unscored" if name == "unscored" else name
        metrics[f"{prefix}/{shown}"] = summed[name]
    metrics[f"{prefix}/hours"] = summed["seconds"] / 3600
    return metrics


@dataclass(frozen=True, slots=True)
class Difference:
    """`a - b` with its 95 % interval; `a` and `b` are the rates of all clips and runs."""

    measure: str
    a: float
    b: float
    value: float
    low: float
    high: float
    clips: int
    runs: int


Run = Mapping[tuple[str, str], Score]
"""(family, clip id) -> score, of one run."""


def paired_difference(
    a: Sequence[Run], b: Sequence[Run], measure: str, samples: int = 2000, seed: int = 0
) -> Difference:
    """How much arm `a` is above arm `b`, on the same clips; `a[i]` and `b[i]` share a seed.

    A bootstrap sample draws clips within each family and, where there are several, runs; both arms
    get the same draw. Counts of the drawn runs are pooled before rates are taken. Raises
    `ValueError` where the arms differ in runs or clips.
    """
    if measure not in _RATIOS:
        raise ValueError(f"unknown measure {measure!r}; there are {', '.join(MEASURES)}")
    if not a or len(a) != len(b):
        raise ValueError(f"{len(a)} runs against {len(b)}: each arm needs the same, one at least")
    clips = set(a[0])
    for run in (*a, *b):
        if set(run) != clips:
            other = min(set(run) ^ clips)
            raise ValueError(f"clip {other[1]!r} ({other[0]}) is not in every run")
    random = np.random.default_rng(seed)
    runs_drawn = _weights(random, len(a), samples)
    totals: tuple[list[Counts], list[Counts]] = ([], [])
    draws: tuple[list[Counts], list[Counts]] = ([], [])
    for family in sorted({family for family, _ in clips}):
        names = sorted(clip for clip in clips if clip[0] == family)
        clips_drawn = _weights(random, len(names), samples)
        for k, arm in enumerate((a, b)):
            counts = np.stack([_matrix(run[name] for name in names) for run in arm])
            totals[k].append(counts.sum(axis=(0, 1)))
            drawn = np.einsum("bn,rnk->brk", clips_drawn, counts)
            draws[k].append(np.einsum("br,brk->bk", runs_drawn, drawn))
    ours, theirs = (float(_overall(measure, part)) for part in totals)
    low, high = _interval(_overall(measure, draws[0]) - _overall(measure, draws[1]))
    return Difference(measure, ours, theirs, ours - theirs, low, high, len(clips), len(a))
