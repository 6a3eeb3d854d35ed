"""The rule judge: quality and timing of a trace, from gold windows and content rules alone.

*Timing* is the harmonic mean of two shares: of what was due the part that was said in its window,
and of what was said the part that something was due for. *Quality* is the same over what was said
rightly, by its content rule, in a wider window: `EARLY_BY` seconds before and `LATE_BY` after.
Where a response is wanted in every second of a state, what was due is met as far as its seconds
are. Each is good from `GOOD` on, fair from `FAIR` on, else poor. Where nothing is due, silence is
good on both axes, one thing said is fair, more is poor. So nothing is won by talking: each thing
said that nothing called for lowers both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eval.grades import Grade, Unscored
from joyvl_train.heldout import Trace
from joyvl_train.matching import assign
from joyvl_train.timing import Emission, Onset, Right, classify, said_right

GOOD, FAIR = 0.8, 0.5
EARLY_BY, LATE_BY = 2, 5


def judge(trace: Trace, right: Right = said_right) -> Grade | Unscored:
    """The grade of a trace. Unscored where something said in time can't be judged by its rule."""
    onsets, emissions = list(trace.onsets), trace.emissions
    if not onsets:
        points = max(0, 2 - len(emissions))
        return Grade(points, points)
    fits = {
        (i, j): right(onset, said.text)
        for i, onset in enumerate(onsets)
        for j, said in enumerate(emissions)
        if said.second in _wide(onset)
    }
    if any(value is None and not _free(onsets[i]) for (i, _), value in fits.items()):
        return Unscored("content needs a judge", f"case {trace.clip}")
    quality, timing = shares(onsets, emissions, fits, right)
    return Grade(_points(quality), _points(timing))


def shares(
    onsets: Sequence[Onset],
    emissions: Sequence[Emission],
    fits: Mapping[tuple[int, int], bool | None],
    right: Right = said_right,
) -> tuple[float, float]:
    """(quality, timing) as shares, 0 to 1; `fits` tells of (onset, emission), by number, whether
    the text is right, for those in the wide window."""
    verdict = classify(onsets, emissions, right)
    asked = sum(onset.repeat for onset, _ in verdict.repeats)
    counted = len(emissions) - asked
    covered = {id(onset): coverage(onset, emissions, right) for onset in onsets}
    met = sum(covered[id(onset)] for onset, _ in verdict.matches)
    timing = 2 * met / (counted + len(onsets))
    pairs = _right_pairs(onsets, emissions, fits)
    well = sum(covered[id(onsets[i])] for i, _ in pairs)
    return min(1.0, 2 * well / (counted + len(onsets))), timing


def coverage(onset: Onset, emissions: Sequence[Emission], right: Right = said_right) -> float:
    """The part of a response that was given, where it is wanted in every second of a state."""
    if not onset.repeat:
        return 1.0
    said = {e.second for e in emissions if right(onset, e.text) is not False}
    return len(said & set(onset.held)) / max(len(onset.held), 1)


def _points(share: float) -> int:
    return 2 if share >= GOOD else 1 if share >= FAIR else 0


def _wide(onset: Onset) -> range:
    window = onset.window
    return range(window.start - EARLY_BY, window.stop + LATE_BY)


def _free(onset: Onset) -> bool:
    """Whether any text will do: the note of a delegation that has no rule."""
    return onset.delegation and onset.rule is None


def _right_pairs(
    onsets: Sequence[Onset],
    emissions: Sequence[Emission],
    fits: Mapping[tuple[int, int], bool | None],
) -> list[tuple[int, int]]:
    """As many (onset, emission) pairs as there can be, one to one, of those whose text is right."""
    costs: list[list[int | None]] = []
    for i, onset in enumerate(onsets):
        row: list[int | None] = []
        for j, said in enumerate(emissions):
            good = (i, j) in fits and (_free(onset) or fits[i, j] is True)
            if onset.delegation and not said.delegation:
                good = False  # a promise alone hands nothing over
            row.append(abs(said.second - onset.second) if good else None)
        costs.append(row)
    return assign(costs) if emissions else []
