"""What a rollout earns: small functions over what it did and what was due, one a part.

Each part gives its credits by second (their sum is the part's value), or None where it does not
apply. What was due, matched, late, repeated or false is what `joyvl_train.timing` says of the gold
past and the policy's seconds together, as in evaluation; that a text is wrong for its length alone
(`brief`) is said in training only. Timing, content, silence, delegation and talk are shares, of
what was due in the window or of its seconds, and don't grow with it; the other penalties are
counts.

    format       -1 where the rollout ended at a malformed turn
    timing       1 for each onset met in its second, less `SLACK` for each second off
    content      1 for each onset met by a right text; None where a judge failed
    silence      seconds outside every window and state, kept silent; a malformed one is not, nor
                 are those after it
    delegation   1 for what is hard, handed over; 1 for a result that is told rightly; -1 for
                 anything else handed over
    false_alarm  -1 for each thing said that nothing called for
    mistimed     -1 for a state told of late
    repetition   -1 for a repeat that was not asked for
    talk         -1 for each second spoken in past the first 2 n + 1, where gold speaks in n, by the
                 seconds decided
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from joyvl_train.timing import Emission, Onset, Right, classify, match, said_right
from rl.rollout import Rollout

Credits = Mapping[int, float]
"""Second -> what was earned in it."""

SLACK = 0.25
MOST_WORDS = 2
_FEW = 6


@dataclass(frozen=True, slots=True)
class Examined:
    """A rollout beside its gold.

    due: the onsets that the policy had the time to meet, and those that it met sooner. owed, told:
    how many onsets, and how many with a text to judge, shares are of: as many as gold meets in the
    window, or more where more came due, so that nothing is won by owing less. hits: (onset,
    emission, is its text right) of what it met; None: there is nothing to score, or a judge failed.
    handed: its delegations of what is hard. results: ids of the onsets that tell of what came back.
    wanted: seconds in which gold speaks. seconds: those that it decided. quiet: those of the
    window, decided or not, that have frames and lie outside every window and state. malformed: the
    second in which it broke.
    """

    due: tuple[Onset, ...]
    owed: int
    told: int
    hits: tuple[tuple[Onset, Emission, bool | None], ...]
    late: tuple[tuple[Onset, Emission], ...]
    repeats: tuple[tuple[Onset, Emission], ...]
    false_alarms: tuple[Emission, ...]
    said: tuple[Emission, ...]
    handed: tuple[tuple[Onset, Emission], ...]
    results: frozenset[str]
    wanted: frozenset[int]
    seconds: tuple[int, ...]
    quiet: tuple[int, ...]
    malformed: int | None

    @property
    def passed(self) -> bool | None:
        """All that was due was done, in time and rightly, and nothing else. None where nothing is
        known to be wrong, and of some text nobody knows whether it is right."""
        handed = {id(onset) for onset, _ in self.handed}
        met = {
            id(onset)
            for onset, said, right in self.hits
            if right is not False and onset.delegation == (id(onset) in handed) == said.delegation
        }
        wrong = self.false_alarms or self.late or self.malformed is not None
        asked = all(onset.repeat for onset, _ in self.repeats)
        if wrong or not asked or any(id(onset) not in met for onset in self.due):
            return False
        return None if self.unscored else True

    @property
    def unscored(self) -> int:
        """How many texts a judge gave no verdict on."""
        return sum(right is None and _has_content(onset) for onset, _, right in self.hits)


def examine(rollout: Rollout, right: Right = said_right) -> Examined:
    """What of a rollout came to what; the gold past is judged with it and counts for nothing."""
    trace, first, stop = rollout.trace, rollout.window.first, rollout.window.stop
    judged: dict[tuple[int, str], bool | None] = {}

    def once(onset: Onset, said: str) -> bool | None:
        key = id(onset), said
        if key not in judged:
            judged[key] = right(onset, said)
        return judged[key]

    def own(pairs: Iterable[tuple[Onset, Emission]]) -> tuple[tuple[Onset, Emission], ...]:
        return tuple(pair for pair in pairs if pair[1].second >= first)

    end = rollout.timeline.clip.seconds

    def closed(onset: Onset) -> bool:
        """Whether its window lies in the policy's seconds, as far as the clip has any."""
        last = onset.window.stop if end is None else min(onset.window.stop, end)
        return onset.second >= first and last <= stop

    verdict = classify(trace.onsets, trace.emissions, once)
    hits = own(verdict.matches)
    met = {id(onset) for onset, _ in hits}
    due = tuple(onset for onset in trace.onsets if id(onset) in met or closed(onset))
    gold = [onset for onset in rollout.gold if closed(onset)]
    steps = [step for step in trace.steps if step.second >= first]
    hard = [onset for onset in trace.onsets if onset.delegation]
    made = [said for said in trace.emissions if said.delegation]
    busy = {t for o in trace.onsets for part in (o.window, o.held) for t in part}
    results = {event.id for event in rollout.timeline.of("background")}
    repeated = {t for o in trace.onsets if o.repeat for t in o.held if first <= t < stop}
    return Examined(
        due=due,
        owed=max(len(due), len(gold)),
        told=max(sum(map(_has_content, due)), sum(map(_has_content, gold))),
        hits=tuple((o, e, once(o, e.text) if _has_content(o) else None) for o, e in hits),
        late=own(verdict.late),
        repeats=own(verdict.repeats),
        false_alarms=tuple(e for e in verdict.false_alarms if e.second >= first),
        said=tuple(e for e in trace.emissions if e.second >= first),
        handed=own((hard[i], made[j]) for i, j in match(hard, made)),
        results=frozenset(
            event.id for event in rollout.timeline.of("assistant") if event.answers in results
        ),
        wanted=frozenset({o.second for o in due} | repeated),
        seconds=tuple(step.second for step in steps),
        quiet=tuple(t for t in rollout.seconds if t not in busy),
        malformed=next((s.second for s in steps if s.malformed is not None), None),
    )


def brief(right: Right) -> Right:
    """`right`, but for texts of more than `MOST_WORDS` times gold's words and a few: who names
    everything has named what was asked for, too."""

    def check(onset: Onset, said: str) -> bool | None:
        if len(said.split()) > MOST_WORDS * len(onset.text.split()) + _FEW:
            return False
        return right(onset, said)

    return check


def _has_content(onset: Onset) -> bool:
    return not onset.delegation or onset.rule is not None


# The parts


def format_part(seen: Examined) -> Credits | None:
    return {} if seen.malformed is None else {seen.malformed: -1.0}


def timing_part(seen: Examined) -> Credits | None:
    if not seen.owed:
        return None
    each = 1 / seen.owed
    return {
        said.second: each * max(0.0, 1 - SLACK * abs(said.second - onset.second))
        for onset, said, _ in seen.hits
    }


def content_part(seen: Examined) -> Credits | None:
    """None, too, where something said in time can't be scored."""
    if not seen.told or seen.unscored:
        return None
    return {
        said.second: float(bool(right)) / seen.told
        for onset, said, right in seen.hits
        if _has_content(onset)
    }


def silence_part(seen: Examined) -> Credits | None:
    if not seen.quiet:
        return None
    # A malformed turn ends its rollout, and stands as a silence that was not chosen.
    broken = set() if seen.malformed is None else {seen.malformed}
    silent = set(seen.seconds) - {said.second for said in seen.said} - broken
    return {t: 1 / len(seen.quiet) for t in seen.quiet if t in silent}


def false_alarm_part(seen: Examined) -> Credits | None:
    return {said.second: -1.0 for said in seen.false_alarms}


def mistimed_part(seen: Examined) -> Credits | None:
    return {said.second: -1.0 for _, said in seen.late}


def repetition_part(seen: Examined) -> Credits | None:
    return {said.second: -1.0 for onset, said in seen.repeats if not onset.repeat}


def delegation_part(seen: Examined) -> Credits | None:
    hard = [onset for onset in seen.due if onset.delegation]
    told = [onset for onset in seen.due if onset.id in seen.results]
    handed = {said.second for _, said in seen.handed}
    kept = [said.second for said in seen.said if said.delegation and said.second not in handed]
    if not (hard or told or kept):
        return None
    each = 1 / max(1, len(hard) + len(told))
    found = dict.fromkeys(kept, -each) | dict.fromkeys(handed, each)
    for onset, said, right in seen.hits:
        if onset.id in seen.results and (right or not _has_content(onset)):
            found[said.second] = found.get(said.second, 0.0) + each
    return found


def talk_part(seen: Examined) -> Credits | None:
    if not seen.seconds:
        return None
    spoken = [said.second for said in seen.said]
    return dict.fromkeys(spoken[2 * len(seen.wanted) + 1 :], -1 / len(seen.seconds))


Part = Callable[[Examined], Credits | None]

PARTS: Mapping[str, Part] = {
    "format": format_part,
    "timing": timing_part,
    "content": content_part,
    "silence": silence_part,
    "delegation": delegation_part,
    "false_alarm": false_alarm_part,
    "mistimed": mistimed_part,
    "repetition": repetition_part,
    "talk": talk_part,
}

WEIGHTS: Mapping[str, float] = {
    "format": 1.0,
    "timing": 1.0,
    "content": 1.0,
    "silence": 0.5,
    "delegation": 0.5,
    "false_alarm": 0.5,
    "mistimed": 0.5,
    "repetition": 0.25,
    "talk": 0.5,
}


@dataclass(frozen=True, slots=True)
class Reward:
    """The parts of one rollout, each with its weight; None where a part does not apply."""

    parts: Mapping[str, Credits | None]
    weights: Mapping[str, float]

    def value(self, part: str) -> float | None:
        """What a part came to, unweighted."""
        found = self.parts[part]
        return None if found is None else sum(found.values())

    @property
    def total(self) -> float:
        """The weighted sum of the parts that apply."""
        values = {part: self.value(part) for part in self.parts}
        found = sum(self.weights[part] * v for part, v in values.items() if v is not None)
        if not math.isfinite(found):
            raise ValueError(f"the reward is {found}: {values}, weighted by {dict(self.weights)}")
        return found

    def credit(self, second: int) -> float:
        """What was earned in `second`, weighted."""
        return sum(
            self.weights[part] * found.get(second, 0.0)
            for part, found in self.parts.items()
            if found is not None
        )


def reward(seen: Examined, weights: Mapping[str, float]) -> Reward:
    """The parts whose weight isn't 0."""
    used = {part: weight for part, weight in weights.items() if weight}
    return Reward({part: PARTS[part](seen) for part in used}, used)


def routed(
    weights: Mapping[str, float], families: Mapping[str, Mapping[str, float]], family: str
) -> dict[str, float]:
    """The weights of a family: `weights`, but for what `families` says of it."""
    return {**weights, **families.get(family, {})}
