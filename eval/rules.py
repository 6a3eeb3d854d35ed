"""The rule judge: quality and timing of a trace, from gold windows and content rules alone.

*Timing* is the harmonic mean of two shares: of what was due the part that was said in its window,
and of what was said the part that something was due for. *Quality* is the same over what was said
rightly, by its content rule, in a wider window: `EARLY_BY` seconds before and `LATE_BY` after.
Where a response is wanted in every second of a state, what was due is met as far as its seconds
are. Each is good from `GOOD` on, fair from `FAIR` on, else poor. Where nothing is due, silence is
good on both axes, one thing said is fair, more is poor.

So nothing is won by talking: each thing said that nothing called for lowers both axes. Who speaks
where a case says that silence is the point, or keeps a question that was to be handed over, gets no
better than fair on either. And a text that names everything is not right: see `guarded`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from data_pipeline.world.pictures import COLOURS
from eval.grades import Grade, Unscored
from joyvl_train.content import says
from joyvl_train.heldout import Trace
from joyvl_train.matching import assign
from joyvl_train.timing import Emission, Onset, Right, classify, match, said_right

GOOD, FAIR = 0.8, 0.5
_ANSWERS = ("yes", "no")
EARLY_BY, LATE_BY = 2, 5


def judge(trace: Trace, right: Right = said_right, quiet: Sequence[range] = ()) -> Grade | Unscored:
    """The grade of a trace; `quiet` are the seconds in which silence is the point. Unscored where
    something said in time can't be judged by its rule."""
    onsets, emissions = list(trace.onsets), trace.emissions
    if not onsets:
        points = max(0, 2 - len(emissions))
        return Grade(points, points)
    most = 2
    if any(said.second in span for said in emissions for span in quiet) or _kept_back(trace):
        most = 1
    fits = {
        (i, j): right(onset, said.text)
        for i, onset in enumerate(onsets)
        for j, said in enumerate(emissions)
        if said.second in _wide(onset)
    }
    if any(value is None and not _free(onsets[i]) for (i, _), value in fits.items()):
        return Unscored("content needs a judge", f"case {trace.clip}")
    quality, timing = shares(onsets, emissions, fits, right)
    return Grade(min(most, _points(quality)), min(most, _points(timing)))


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


def _kept_back(trace: Trace) -> bool:
    """Whether a question that was to be handed over was not."""
    due = [onset for onset in trace.onsets if onset.delegation]
    made = [said for said in trace.emissions if said.delegation]
    return len(match(due, made)) < len(due)


def guarded(
    things: Sequence[Sequence[str]] = (),
    states: Sequence[Sequence[str]] = (),
    right: Right = said_right,
) -> Right:
    """`right`, but for texts that say more than one answer to what was asked.

    Wrong is what says both yes and no where one of them is the fact, another colour beside the
    right one, or another one of `states`, groups of words that exclude each other; and what names
    two or more of `things` (each with its synonyms) that the gold text does not name. One more
    thing may be context: "A fire appeared beside the lamp."
    """
    groups = [_ANSWERS, tuple(COLOURS), *states]

    def check(onset: Onset, said: str) -> bool | None:
        verdict = right(onset, said)
        if verdict is not True or onset.rule is None or onset.rule.kind != "key_facts":
            return verdict
        known = [onset.text, *(word for fact in onset.rule.facts for word in fact.split("|"))]

        def gold(word: str) -> bool:
            return any(says(word, text) for text in known)

        for group in groups:
            here = [word for word in group if says(word, said)]
            if any(map(gold, group)) and not all(map(gold, here)):
                return False
        more = [n for n in things if any(says(w, said) for w in n) and not any(map(gold, n))]
        return len(more) < 2

    return check


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
