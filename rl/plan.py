"""Which windows a step of training takes: drawn by number, those that can teach first.

A window whose rollouts all pass, or all fail, teaches nothing now. Once that is known of it, it is
passed over for `remeasure` steps, for the policy learns meanwhile. Draws follow from the seed, the
step and what is known so far, so that all ranks, and a run that goes on, draw alike.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from joyvl_train.config import UserError
from joyvl_train.samples import Streams
from joyvl_train.timeline import Timeline, TimelineError
from rl.questions import question_window
from rl.windows import KINDS, Kind, Lures, Sizes, Tempts, Window, nothing, windows_of

_TRIES = 400
_RESTS = "all passed or none"
Reject = Callable[[int, TimelineError], None]
"""Takes down, once, that clip number so-and-so can't be used."""

_TEMPTS: Mapping[Tempts, float] = {"alarm": 2.0, "lure": 1.0, "onset": 1.0, "": 1.0}
"""How often a silence window of each class is drawn of a clip that has windows of several."""


def check_mix(mix: Mapping[str, float], questions: bool) -> None:
    """Raises `UserError` where windows can't be drawn by these weights. questions: whether there
    are any."""
    unknown = sorted(set(mix) - set(KINDS))
    if unknown:
        raise UserError(f"windows.mix.{unknown[0]}: there are {', '.join(KINDS)}")
    if not any(mix.values()):
        raise UserError("windows.mix: no kind of window has a weight; raise one of them")
    if mix.get("question") and not questions:
        raise UserError("windows.mix.question: there are no questions; set it to 0")


class Plan:
    """The windows of training clips, by step.

    clips: timelines with their frames, by number. questions: how many turn-based questions there
    are to draw from. mix: kind -> weight. alarms: clip -> seconds in which the policy spoke before
    training though nothing was due; half of the silence windows are of such clips, where there are
    some. most: seconds of a window; longer ones are passed over. early, late: of onsets that name
    no window. reject: is told of clips that can't be used. timeline: gives a clip's, for less than
    opening it costs.
    """

    def __init__(
        self,
        clips: Streams,
        sizes: Sizes,
        mix: Mapping[str, float],
        *,
        questions: int = 0,
        seed: int = 0,
        lures: Lures = nothing,
        alarms: Mapping[int, Sequence[int]] | None = None,
        remeasure: int = 50,
        most: int = 10**6,
        early: int = 0,
        late: int = 1,
        reject: Reject = lambda clip, error: None,
        timeline: Callable[[int], Timeline] | None = None,
    ) -> None:
        self.reject = reject
        self._timeline = timeline or (lambda clip: clips[clip][0])
        check_mix(mix, bool(questions))
        if not len(clips):
            raise UserError("there is no clip to draw windows from")
        self._clips, self._sizes, self._mix = clips, sizes, dict(mix)
        self._questions = questions
        self._seed, self._remeasure = seed, remeasure
        self._lures, self._window, self._most = lures, (early, late), most
        self._alarms = {clip: tuple(seconds) for clip, seconds in (alarms or {}).items() if seconds}
        self._alarmed = sorted(self._alarms)
        self._known: dict[str, tuple[int, float, bool]] = {}  # key -> step, passed, taught
        self.passed_over: Counter[str] = Counter()
        """Why draws were not taken."""

    def windows(self, step: int, count: int, before: Sequence[Window] = ()) -> list[Window]:
        """`count` windows of a step, no two alike and none of those that it drew `before`.

        Fewer only where the clips hold no more that could be drawn.
        """
        drawn = {window.key: window for window in before}
        for slot in range(len(before), len(before) + count):
            window = self._draw(step, slot, drawn)
            if window is None:
                break
            drawn[window.key] = window
        return list(drawn.values())[len(before) :]

    def clip(self, window: Window) -> tuple[Timeline, Any]:
        """The clip that a window is of."""
        return self._clips[window.clip]

    def note(self, step: int, key: str, passed: float, taught: bool = False) -> None:
        """Takes down the share of a window's rollouts that passed, and whether they taught
        something all the same."""
        self._known[key] = step, passed, taught

    @property
    def resting(self) -> int:
        """How many draws so far were of windows that rest, for they teach nothing now."""
        return self.passed_over[_RESTS]

    @property
    def pass_rates(self) -> Mapping[str, float]:
        """Window -> the share of its rollouts that passed when it was last measured."""
        return {key: passed for key, (_, passed, _) in self._known.items()}

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on must know."""
        known = {key: list(told) for key, told in self._known.items()}
        return {"known": known, "passed_over": dict(self.passed_over)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        known = state["known"].items()
        self.passed_over = Counter(state["passed_over"])
        self._known = {key: (int(step), float(p), bool(taught)) for key, (step, p, taught) in known}

    def _draw(self, step: int, slot: int, drawn: Mapping[str, Window]) -> Window | None:
        rng = random.Random(f"{self._seed}/window/{step}/{slot}")
        for _ in range(_TRIES):
            kind = rng.choices(list(self._mix), list(self._mix.values()))[0]
            if kind == "question":
                window = question_window(rng.randrange(self._questions))
            else:
                alarmed = kind == "silence" and self._alarmed and rng.random() < 0.5
                clip = rng.choice(self._alarmed) if alarmed else rng.randrange(len(self._clips))
                found = self._of(clip, kind)
                if not found:
                    self.passed_over[f"no {kind} window"] += 1
                    continue
                window = rng.choice(_of_a_class(found, rng))
            if window.key in drawn:
                continue
            if self._taught_nothing(window.key, step):
                self.passed_over[_RESTS] += 1
                continue
            return window
        return None

    def _of(self, clip: int, kind: Kind | str) -> list[Window]:
        early, late = self._window
        try:
            found = windows_of(
                clip,
                self._timeline(clip),
                self._sizes,
                lures=self._lures,
                alarms=self._alarms.get(clip, ()),
                early=early,
                late=late,
            )
        except TimelineError as error:
            self.passed_over[error.reason] += 1
            self.reject(clip, error)
            return []
        own = [window for window in found if window.kind == kind]
        kept = [window for window in own if window.stop - window.first <= self._most]
        self.passed_over["longer than a chunk"] += len(own) - len(kept)
        return kept

    def _taught_nothing(self, key: str, step: int) -> bool:
        if key not in self._known:
            return False
        when, passed, taught = self._known[key]
        return passed in (0.0, 1.0) and not taught and step - when < self._remeasure


def _of_a_class(found: Sequence[Window], rng: random.Random) -> list[Window]:
    """The windows of one class, drawn by weight: a clip's many of one leave the others theirs."""
    classes = sorted({window.tempts for window in found})
    drawn = rng.choices(classes, [_TEMPTS[each] for each in classes])[0]
    return [window for window in found if window.tempts == drawn]
