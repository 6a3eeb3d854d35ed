"""Chooses clips so that families, languages and silence have the shares that are asked for.

As many clips as can be are kept. Which of a kind stay is decided by a hash of their ids: the same
ones every time, and a fair choice.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline.groups import chunks
from joyvl_train.config import UserError

Cell = tuple[str, str, int]
"""Family, language, and which of `_EDGES` the share of seconds spoken in lies past."""

Counts = npt.NDArray[np.float64]
Whole = npt.NDArray[np.signedinteger[Any]]

_EDGES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75)
_TURNS = 200
_HALVINGS = 14
_TILTS = 30
_CLOSE = 1e-3
_BUCKETS = 1024


@dataclass(frozen=True)
class Targets:
    """Shares to come to, each within `tolerance`; nothing named: every clip stays.

    families, languages: shares of the clips by name; those not named share what is left, as they
    come. silence: the share of all seconds in which nothing is said. keep: the share of the clips
    that at least stays; a target that would cost more is met as far as that allows.
    """

    families: Mapping[str, float] = field(default_factory=dict)
    languages: Mapping[str, float] = field(default_factory=dict)
    silence: float | None = None
    tolerance: float = 0.02
    keep: float = 0.5

    def __post_init__(self) -> None:
        for what, shares in (("families", self.families), ("languages", self.languages)):
            total = sum(shares.values())
            if any(share < 0 for share in shares.values()) or total > 1 + 1e-9:
                raise UserError(
                    f"balance: the shares of {what} are to be 0 or more and come to at most 1, "
                    f"not {dict(shares)}; put them right"
                )
        for what, value in (("silence", self.silence or 0.0), ("keep", self.keep)):
            if not 0 <= value <= 1:
                raise UserError(f"balance: {what}={value} is no share; give 0 to 1")
        if not 0 < self.tolerance < 1:
            raise UserError(f"balance: tolerance={self.tolerance} is none; give 0.01, say")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One target: its share before and after, and what stood in its way where it isn't met."""

    what: str
    target: float
    before: float
    after: float
    met: bool
    why: str = ""


class Cells:
    """Clips counted by family, language and how much is said in them; columns [cells]."""

    def __init__(self, names: Sequence[Cell] = ()) -> None:
        self.names = list(names)
        self._numbers = {name: number for number, name in enumerate(names)}
        self.clips = np.zeros(len(names), np.int64)
        self.seconds = np.zeros(len(names), np.int64)
        self.spoken = np.zeros(len(names), np.int64)

    def number(self, family: str, language: str, seconds: int, spoken: int) -> int:
        """The cell of such a clip, which isn't counted by this; a new one where there is none."""
        level = bisect_right(_EDGES, spoken / seconds) if seconds else 0
        name = (family, language, level)
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]

    def empty(self) -> Cells:
        """The same cells, with nothing counted."""
        return Cells(self.names)

    def add(self, cells: Whole, seconds: Whole, spoken: Whole) -> None:
        """Counts clips: the number of the cell, and the seconds, of each."""
        np.add.at(self.clips, cells, 1)
        np.add.at(self.seconds, cells, seconds)
        np.add.at(self.spoken, cells, spoken)


class _Fit:
    """The clips to keep of each cell, as numbers that needn't be whole."""

    def __init__(self, cells: Cells, targets: Targets) -> None:
        self.there = cells.clips.astype(np.float64)
        self.slack = targets.tolerance / 2  # the rest is for whole numbers
        self.shares = [
            *self._shares([family for family, _, _ in cells.names], targets.families),
            *self._shares([language for _, language, _ in cells.names], targets.languages),
        ]
        self.silence = targets.silence
        each = np.maximum(self.there, 1)
        self.seconds = cells.seconds / each
        self.silent = self.seconds - cells.spoken / each

    def _shares(
        self, names: Sequence[str], wanted: Mapping[str, float]
    ) -> list[tuple[npt.NDArray[np.bool_], float]]:
        """Which cells are of each kind, and the share that kind can come to.

        What is asked for a kind that isn't there goes to those not named, or else to all others in
        proportion: no clip is given up for a share that none can bring nearer.
        """
        of = {name: np.array([each == name for each in names]) for name in sorted(wanted)}
        found = {name: mask for name, mask in of.items() if self.there[mask].any()}
        if not found:
            return []
        rest = np.array([each not in wanted for each in names])
        left = 1 - sum(wanted.values())
        shares = [(mask, wanted[name]) for name, mask in found.items()]
        if wanted and self.there[rest].any():
            spare = left > 1e-9
            shares.append((rest, 1 - sum(share for _, share in shares) if spare else 0.0))
        total = sum(share for _, share in shares)
        return [(mask, share / total) for mask, share in shares] if total > 0 else shares

    def keep(self, total: float) -> tuple[Counts, bool]:
        """Of `total` clips, how many of each cell; and whether all targets are met so.

        Projects onto one target after another, in the sense of relative entropy: what is asked of
        one kind scales its cells alike, and none past what is there.
        """
        kept = self.there * min(1.0, total / self.there.sum())
        for _ in range(_TURNS):
            wrong = 0.0
            for mask, share in self.shares:
                low, high = max(0.0, share - self.slack), share + self.slack
                if share == 0.0:
                    high = 0.0
                have = kept[mask].sum() / total
                aim = min(max(have, low), high)
                if aim != have:
                    wrong = max(wrong, abs(aim - have))
                    kept[mask] = self._scaled(kept[mask], self.there[mask], aim * total)
            wrong = max(wrong, self._quieten(kept))
            wrong = max(wrong, abs(kept.sum() / total - 1))
            if wrong < _CLOSE:
                return kept, True
            kept = self._scaled(kept, self.there, total)
        for mask, share in self.shares:
            if share == 0.0:
                kept[mask] = 0.0
        return kept, False

    @staticmethod
    def _scaled(kept: Counts, there: Counts, total: float) -> Counts:
        """`kept` times one factor, none past `there`, so that it comes to `total` if it can."""
        for _ in range(20):
            have = kept.sum()
            if have <= 0 or abs(have - total) <= 1e-9 * total:
                break
            if total < have:
                return np.asarray(kept * (total / have))
            free = kept < there
            fixed = kept[~free].sum()
            if not free.any() or kept[free].sum() <= 0:
                break
            kept = np.where(free, kept * ((total - fixed) / kept[free].sum()), kept)
            kept = np.minimum(kept, there)
        return kept

    def _quieten(self, kept: Counts) -> float:
        """Tilts `kept` towards silent clips, or talkative ones, in place; how far it was off."""
        if self.silence is None:
            return 0.0
        seconds = float((kept * self.seconds).sum())
        if seconds <= 0:
            return 0.0
        share = float((kept * self.silent).sum()) / seconds
        aim = min(max(share, self.silence - self.slack), self.silence + self.slack)
        if aim == share:
            return 0.0
        gain = self.silent - aim * self.seconds
        gain = gain / max(float(np.abs(gain).max()), 1e-12)

        def tilted(by: float) -> Counts:
            return np.minimum(kept * np.exp(by * gain), self.there)

        low, high = (0.0, 30.0) if share < aim else (-30.0, 0.0)
        for _ in range(_TILTS):
            middle = (low + high) / 2
            if float((tilted(middle) * gain).sum()) < 0:
                low = middle
            else:
                high = middle
        kept[:] = tilted((low + high) / 2)
        return abs(aim - share)


def to_keep(cells: Cells, targets: Targets) -> npt.NDArray[np.int64]:
    """How many clips of each cell stay: as many in all as the targets allow."""
    there = cells.clips
    asked = targets.families or targets.languages or targets.silence is not None
    if not there.any() or not asked:
        return there
    fit = _Fit(cells, targets)
    whole = float(there.sum())
    kept, met = fit.keep(whole)
    if not met:
        low, high = max(1.0, targets.keep * whole), whole
        kept, met = fit.keep(low)
        for _ in range(_HALVINGS if met else 0):
            middle = (low + high) / 2
            more, met = fit.keep(middle)
            if met:
                low, kept = middle, more
            else:
                high = middle
    return np.minimum(np.floor(kept + 0.5).astype(np.int64), there)


def bounds_of(
    cells: npt.NDArray[np.int32], keys: npt.NDArray[np.uint64], keep: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    """Of each cell the bound below which the keys of its clips stay, so that `keep` of them do.

    cells: of each clip, below 0 where there is nothing to choose; keys: by which the clips of a
    cell are ordered, no two alike, below 2 ** 64 - 1. Both [N], in files: they are read twice.
    """
    shift = np.uint64(64 - _BUCKETS.bit_length() + 1)
    counts = np.zeros((len(keep), _BUCKETS), np.int64)
    for chunk in chunks(len(cells)):
        mine = cells[chunk] >= 0
        buckets = (keys[chunk][mine] >> shift).astype(np.int64)
        np.add.at(counts, (cells[chunk][mine], buckets), 1)
    before = np.cumsum(counts, axis=1) - counts
    total = counts.sum(axis=1)
    # The bucket in which a cell's last clip that stays, or the first that goes, lies.
    edge = np.array(
        [np.searchsorted(row, k, "right") - 1 for row, k in zip(before, keep, strict=True)]
    )
    inside: list[list[int]] = [[] for _ in keep]
    for chunk in chunks(len(cells)):
        mine = cells[chunk] >= 0
        cell, key = cells[chunk][mine], keys[chunk][mine]
        for place in np.flatnonzero((key >> shift).astype(np.int64) == edge[cell]):
            inside[cell[place]].append(int(key[place]))
    bounds = np.zeros(len(keep), np.uint64)
    for number, wanted in enumerate(keep):
        if wanted >= total[number]:
            bounds[number] = np.iinfo(np.uint64).max
        else:
            bounds[number] = sorted(inside[number])[wanted - before[number, edge[number]]]
    return bounds


def outcomes(before: Cells, after: Cells, targets: Targets) -> list[Outcome]:
    """What became of each target; `after` counts the clips that stay."""
    found = []
    for axis, kind, wanted in (
        (0, "family", targets.families),
        (1, "language", targets.languages),
    ):
        for name, share in wanted.items():
            had, have = (_clips(cells, axis, name) for cells in (before, after))
            whole, kept = int(before.clips.sum()), int(after.clips.sum())
            now = have / kept if kept else 0.0
            met = abs(now - share) <= targets.tolerance
            why = ""
            if not met and now < share:
                why = f"{had} clips are there; {share:.1%} of {kept} clips are {share * kept:.0f}"
            elif not met:
                why = f"of the others too few are there to keep {targets.keep:.0%} of all clips"
            found.append(
                Outcome(f"{kind} {name}", share, had / whole if whole else 0.0, now, met, why)
            )
    if targets.silence is not None:
        was, now = _silence(before), _silence(after)
        met = abs(now - targets.silence) <= targets.tolerance
        why = (
            "" if met else f"too few clips are {'more' if now < targets.silence else 'less'} silent"
        )
        found.append(Outcome("silence", targets.silence, was, now, met, why))
    return found


def _clips(cells: Cells, axis: int, name: str) -> int:
    return int(cells.clips[[cell[axis] == name for cell in cells.names]].sum())


def _silence(cells: Cells) -> float:
    seconds = int(cells.seconds.sum())
    return 1 - int(cells.spoken.sum()) / seconds if seconds else 0.0
