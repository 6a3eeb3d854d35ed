"""Which windows are drawn: by number, each once a step, those that can teach, alarms among them."""

from __future__ import annotations

from collections import Counter

import pytest

from joyvl_train.config import UserError
from joyvl_train.timeline import Clip, Event, Timeline
from rl.plan import Plan
from rl.windows import Sizes, Window, windows_of
from tests.joyvl_train.scripted import Pictures
from tests.rl.policies import world

MIX = {"answer": 1.0, "silence": 1.0}


class Clips:
    def __init__(self, count: int = 8) -> None:
        self._clips = [world("alerting", seed) for seed in range(count)]

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int):
        return self._clips[index]


@pytest.fixture(scope="module")
def clips() -> Clips:
    return Clips()


def plan(clips, **options) -> Plan:
    return Plan(clips, Sizes(3, 2, 4, 6), MIX, **options)


def test_a_step_draws_the_same_for_all_and_none_twice(clips: Clips) -> None:
    one, two = plan(clips), plan(clips)
    drawn = one.windows(3, 10)
    assert drawn == two.windows(3, 10) and len({w.key for w in drawn}) == 10
    # More of a step are others than those before.
    assert one.windows(3, 6, drawn[:4]) == drawn[4:]
    assert one.windows(4, 10) != drawn and plan(clips, seed=1).windows(3, 10) != drawn


def test_kinds_come_by_their_weights(clips: Clips) -> None:
    drawn = Counter(w.kind for step in range(60) for w in plan(clips).windows(step, 4))
    assert set(drawn) == {"answer", "silence"}
    assert 0.3 < drawn["silence"] / sum(drawn.values()) < 0.7
    only = Plan(clips, Sizes(), {"answer": 1.0, "silence": 0.0})
    assert {w.kind for w in only.windows(0, 6)} == {"answer"}


def test_what_all_or_none_pass_is_passed_over_for_a_while(clips: Clips) -> None:
    made = plan(clips, remeasure=5)
    first = made.windows(0, 12)
    for number, window in enumerate(first):
        made.note(0, window.key, (0.0, 1.0, 0.5)[number % 3])
    known = {w.key for n, w in enumerate(first) if n % 3 != 2}
    soon = {w.key for step in range(1, 5) for w in made.windows(step, 12)}
    assert not known & soon
    assert made.passed_over["all passed or none"] > 0
    # Those that some pass are drawn again, and after a while all are.
    assert {first[2].key, first[5].key} & soon
    later = {w.key for step in range(5, 40) for w in made.windows(step, 12)}
    assert known & later
    assert made.pass_rates[first[1].key] == 1.0
    # Where all passed and yet earned differently, there was something to learn.
    made.note(50, first[0].key, 1.0, taught=True)
    assert first[0].key in {w.key for step in range(51, 90) for w in made.windows(step, 12)}


def test_a_run_that_goes_on_draws_as_it_would_have(clips: Clips) -> None:
    made, other = plan(clips), plan(clips)
    for window in made.windows(0, 24):
        made.note(0, window.key, 1.0)
    assert other.windows(1, 6) != made.windows(1, 6)
    other.load_state_dict(made.state_dict())
    assert other.passed_over == made.passed_over
    assert other.windows(1, 6) == made.windows(1, 6)


def test_half_of_the_silence_windows_are_of_alarms(clips: Clips) -> None:
    timeline, _ = clips[5]
    made = Plan(clips, Sizes(3, 2, 4, 6), {"silence": 1.0}, alarms={5: [0], 6: []})
    drawn = [w for step in range(60) for w in made.windows(step, 1)]
    share = sum(w.clip == 5 for w in drawn) / len(drawn)
    assert 0.4 < share < 0.8
    assert any(w.focus == 0 for w in drawn)


def test_every_silence_window_of_a_clip_is_drawn() -> None:
    """Whatever tempts in it, and however many tempt before it."""
    events = tuple(Event(f"e{t}", t, "assistant", "Now.") for t in (30, 60, 90))
    timeline = Timeline(Clip("long", 120.0), "alerting", "test", events)

    class One:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int):
            return timeline, Pictures(120)

    sizes, lures, alarms = Sizes(3, 2, 4, 6), lambda timeline: (15, 45, 75), [2, 8, 20, 40, 70, 110]
    every = windows_of(0, timeline, sizes, lures=lures, alarms=alarms)
    silent = {window.key: window.tempts for window in every if window.kind == "silence"}
    assert Counter(silent.values()) == {"alarm": 6, "lure": 3, "onset": 3}
    made = Plan(One(), sizes, {"silence": 1.0}, alarms={0: alarms}, lures=lures)
    drawn = [window for step in range(200) for window in made.windows(step, 1)]
    assert {window.key for window in drawn} == set(silent)
    shares = Counter(window.tempts for window in drawn)
    assert 0.4 < shares["alarm"] / len(drawn) < 0.6 and 0.15 < shares["onset"] / len(drawn) < 0.35


def test_windows_are_drawn_without_opening_clips(clips: Clips) -> None:
    class Closed(Clips):
        def __getitem__(self, index: int):
            raise AssertionError("opened")

    made = plan(Closed(), timeline=lambda clip: clips[clip][0])
    assert made.windows(0, 8) == plan(clips).windows(0, 8)


def test_windows_that_no_chunk_holds_are_passed_over(clips: Clips) -> None:
    made = plan(clips, most=5)
    assert all(w.stop - w.first <= 5 for w in made.windows(0, 6))
    assert made.passed_over["longer than a chunk"] > 0


def test_a_kind_that_no_clip_has_is_counted_and_ends() -> None:
    quiet = Timeline(Clip("q", 20.0), "chat", "test")

    class Quiet:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int):
            return quiet, Pictures(20)

    made = Plan(Quiet(), Sizes(), {"answer": 1.0})
    assert made.windows(0, 3) == [] and made.passed_over["no answer window"] > 0
    # One window alone is drawn once, however many are asked for.
    assert len(Plan(Quiet(), Sizes(), {"silence": 1.0}).windows(0, 3)) == 1


@pytest.mark.parametrize(
    ("mix", "message"),
    [({"late": 1.0}, "windows.mix.late"), ({"answer": 0.0}, "no kind of window has a weight")],
)
def test_a_mix_that_is_none(clips: Clips, mix, message) -> None:
    with pytest.raises(UserError, match=message):
        Plan(clips, Sizes(), mix)


def test_a_window_is_whole() -> None:
    with pytest.raises(ValueError, match="no window"):
        Window(0, "answer", 5, 5, 5)
