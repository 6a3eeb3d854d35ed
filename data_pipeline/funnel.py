"""What became of everything that was read: counts, as plain data that parts add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from data_pipeline.candidates import CORRUPTION, Candidate
from data_pipeline.plan import Plan
from joyvl_train.timeline import Timeline, action_seconds


def stepped_seconds(timeline: Timeline) -> tuple[int, int]:
    """The seconds of a timeline, and those of them in which the assistant speaks; 0, 0 while the
    length of its clip isn't known."""
    seconds = timeline.clip.seconds
    if seconds is None:
        return 0, 0
    return seconds, sum(second < seconds for second in action_seconds(timeline.events))


@dataclass
class StageCounts:
    """What one stage did: `entered` are the candidates that it looked at, each counted under its
    last verdict; where a stage both changed and kept one, it changed it."""

    entered: int = 0
    kept: int = 0
    changed: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    unverified: Counter[str] = field(default_factory=Counter)


@dataclass
class Tally:
    """Clips of one kind."""

    clips: int = 0
    seconds: int = 0
    spoken_seconds: int = 0
    """Seconds in which the assistant speaks, repeats included."""
    events: int = 0

    def add(self, timeline: Timeline) -> None:
        seconds, spoken = stepped_seconds(timeline)
        self.clips += 1
        self.seconds += seconds
        self.spoken_seconds += spoken
        self.events += len(timeline.events)

    def merge(self, other: Tally) -> None:
        """Adds the clips of another one."""
        self.clips += other.clips
        self.seconds += other.seconds
        self.spoken_seconds += other.spoken_seconds
        self.events += other.events

    @property
    def silence(self) -> float | None:
        """The share of seconds without an action."""
        return 1 - self.spoken_seconds / self.seconds if self.seconds else None


_KINDS = ("family", "language", "licence", "source", "use", "damage")
"""Of "damage" those alone that were damaged on purpose."""

MOST_NAMES = 200
"""Names of a kind that are counted apart: records bring their own, as many as there are records."""

OTHERS = "(other)"
"""Where all further ones are counted, and those that no table can show."""

_LONGEST_NAME = 80


@dataclass
class Funnel:
    """Counts of what a source yielded and of what became of each.

    `read` = refused + the candidates of every status. The tallies by kind are of the open
    candidates: those that are, or are to be, admitted; the first `MOST_NAMES` of a kind by name.
    """

    read: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    status: Counter[str] = field(default_factory=Counter)
    stages: dict[str, StageCounts] = field(default_factory=dict)
    whole: Tally = field(default_factory=Tally)
    by: dict[str, dict[str, Tally]] = field(default_factory=lambda: {kind: {} for kind in _KINDS})

    def add(self, candidate: Candidate) -> None:
        """Counts one candidate, at the end of what this funnel is about."""
        self.read += 1
        self.status[candidate.status] += 1
        verdicts: dict[str, tuple[str, str]] = {}
        for note in candidate.history:
            if verdicts.get(note.stage, ("", ""))[0] != "changed" or note.verdict != "kept":
                verdicts[note.stage] = (note.verdict, note.reason)
        for name, (verdict, reason) in verdicts.items():
            stage = self.stages.setdefault(name, StageCounts())
            stage.entered += 1
            if verdict == "kept":
                stage.kept += 1
            elif verdict == "changed":
                stage.changed += 1
            else:
                (stage.rejected if verdict == "rejected" else stage.unverified)[reason] += 1
        if candidate.status != "open":
            return
        timeline = candidate.timeline
        self.whole.add(timeline)
        names = (
            timeline.family,
            candidate.language,
            candidate.licence,
            timeline.source,
            candidate.use,
            candidate.damage,
        )
        for kind, name in zip(_KINDS, names, strict=True):
            if kind != "damage" or name:
                self._tally(kind, name).add(timeline)

    def _tally(self, kind: str, name: str) -> Tally:
        known = self.by[kind]
        if name not in known:
            shown = len(name) <= _LONGEST_NAME and name.isprintable()
            name = name if shown and len(known) < MOST_NAMES else OTHERS
        return known.setdefault(name, Tally())

    def damaged(self) -> tuple[int, int]:
        """How many candidates were damaged on purpose, and how many of them are open."""
        stage = self.stages.get(CORRUPTION, StageCounts())
        return stage.changed, sum(tally.clips for tally in self.by["damage"].values())

    def add_plan(self, plan: Plan) -> None:
        """Counts what never came into a part; the candidates of the parts come by `add`."""
        self.read += plan.refused.total()
        self.refused += plan.refused
        self.status["refused"] += plan.refused.total()

    def merge(self, other: Funnel) -> None:
        """Adds another part's counts; of stages that this one doesn't know, at the end."""
        self.read += other.read
        self.refused += other.refused
        self.status += other.status
        for name, stage in other.stages.items():
            mine = self.stages.setdefault(name, StageCounts())
            mine.entered += stage.entered
            mine.kept += stage.kept
            mine.changed += stage.changed
            mine.rejected += stage.rejected
            mine.unverified += stage.unverified
        self.whole.merge(other.whole)
        for kind, tallies in other.by.items():
            for name, tally in tallies.items():
                self._tally(kind, name).merge(tally)

    def to_json(self) -> dict[str, Any]:
        """Plain data; names in order, stages in theirs."""
        return {
            "read": self.read,
            "refused": dict(sorted(self.refused.items())),
            "status": dict(sorted(self.status.items())),
            "stages": {
                name: {
                    "entered": stage.entered,
                    "kept": stage.kept,
                    "changed": stage.changed,
                    "rejected": dict(sorted(stage.rejected.items())),
                    "unverified": dict(sorted(stage.unverified.items())),
                }
                for name, stage in self.stages.items()
            },
            "whole": asdict(self.whole),
            "by": {
                kind: {name: asdict(tally) for name, tally in sorted(tallies.items())}
                for kind, tallies in self.by.items()
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        stages = {}
        for name, stage in data["stages"].items():
            counts = {key: Counter(stage[key]) for key in ("rejected", "unverified")}
            stages[name] = StageCounts(**{**stage, **counts})
        return cls(
            data["read"],
            Counter(data["refused"]),
            Counter(data["status"]),
            stages,
            Tally(**data["whole"]),
            {
                kind: {name: Tally(**tally) for name, tally in names.items()}
                for kind, names in data["by"].items()
            },
        )


def merged(parts: Iterable[Mapping[str, Any]]) -> Funnel:
    """The funnel of all parts, from the plain data of each, in their order."""
    whole = Funnel()
    for part in parts:
        whole.merge(Funnel.from_json(part))
    return whole


Spent = dict[str, dict[str, float]]
"""By agent: what it was asked and what that cost: "calls", "cached", "tokens", "cost", "seconds".

Kept beside the corpus, never in it: another run pays other costs for the same bytes.
"""


def add_spent(total: Spent, more: Mapping[str, Mapping[str, float]], sign: int = 1) -> Spent:
    """`total` with `more` added to it (sign 1) or taken off (-1)."""
    for agent, counts in more.items():
        mine = total.setdefault(agent, {})
        for name, value in counts.items():
            mine[name] = mine.get(name, 0) + sign * value
    return total
