"""Rewards: gold earns the most, and no trick earns as much, whatever the family."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.world.streams import FAMILIES
from joyvl_train.actions import Action, Delegation, Response, Silence
from joyvl_train.stream import Turn
from joyvl_train.timeline import Clip, Event, Rule, Timeline, actions
from joyvl_train.timing import Onset, said_right
from rl.advantages import Advantages
from rl.groups import judged, of_groups, told
from rl.rewards import PARTS, WEIGHTS, Examined, brief, examine, reward, routed
from rl.rollout import Rollout, roll
from rl.windows import Sizes, Window, open_window, windows_of
from tests.joyvl_train.scripted import Pictures
from tests.rl.policies import SETTINGS, Script, Scripted, gold_of, rolled, silent, world

DUE = Timeline(
    Clip("c", 40.0),
    "delegation",
    "test",
    (
        Event("q", 2, "user", "What is 12 times 12?"),
        Event("d", 2, "assistant", "Let me see.", question="12 x 12?", answers="q"),
        Event("r", 8, "background", "It is 144.", answers="d"),
        Event("a", 8, "assistant", "It is 144.", answers="r"),
        Event("e", 20, "assistant", "It rings.", until=26),
    ),
)


def done(script: Script, first: int = 0, stop: int = 40, timeline: Timeline = DUE) -> Rollout:
    window = Window(0, "answer", first, stop, first)
    opened = open_window(window, timeline, Pictures(40), SETTINGS)
    ((found,),) = roll(Scripted(script), [opened], 1)
    return found


def saying(**said: Action) -> Script:
    """Says what is named for a second: `t8=Response(...)`."""
    return lambda turn, number: said.get(f"t{turn.second}", Silence())


def values(rollout: Rollout) -> dict[str, float | None]:
    found = reward(examine(rollout), dict.fromkeys(PARTS, 1.0))
    return {part: found.value(part) for part in PARTS}


TASK = Delegation("Let me see.", "12 x 12?")
GOLD = {"t2": TASK, "t8": Response("It is 144."), "t20": Response("It rings.")}


def test_gold_by_hand() -> None:
    told = values(done(saying(**GOLD)))
    assert told == {
        "format": 0,
        "timing": 1,
        "content": 1,
        "silence": pytest.approx(1),
        "delegation": 1,
        "false_alarm": 0,
        "mistimed": 0,
        "repetition": 0,
        "talk": 0,
    }
    assert examine(done(saying(**GOLD))).passed


def test_each_fault_by_hand() -> None:
    late = values(done(saying(**{**GOLD, "t20": Silence(), "t21": Response("It rings.")})))
    assert late["timing"] == pytest.approx((1 + 1 + 0.75) / 3)
    held = values(done(saying(**{**GOLD, "t20": Silence(), "t24": Response("It rings.")})))
    assert (held["mistimed"], held["timing"]) == (-1, pytest.approx(2 / 3))
    again = values(done(saying(**GOLD, t23=Response("It rings."))))
    assert again["repetition"] == -1 and again["false_alarm"] == 0
    wrong = values(done(saying(**{**GOLD, "t8": Response("No idea at all.")})))
    assert wrong["content"] == pytest.approx(1 / 2) and wrong["delegation"] == pytest.approx(1 / 2)
    alarm = values(done(saying(**GOLD, t30=Response("It rings."))))
    assert alarm["false_alarm"] == -1 and alarm["silence"] < 1
    # Who keeps what is hard misses its result, too: shares are of what gold would have met.
    kept = values(done(saying(t2=Response("144."), t20=Response("It rings."))))
    assert kept["delegation"] == 0 and kept["timing"] == pytest.approx(2 / 3)
    # Handing over what is easy costs as much as handing over what is hard earns.
    easy = values(done(saying(**{**GOLD, "t20": Delegation("Wait.", "What?")})))
    assert easy["delegation"] == pytest.approx(1 - 1 / 2)
    right = saying(**GOLD)
    broken = done(lambda turn, number: None if turn.second == 5 else right(turn, number))
    assert broken.broken and values(broken)["format"] == -1
    assert values(broken)["timing"] < values(done(saying(**GOLD)))["timing"]
    assert not examine(broken).passed


def test_breaking_off_earns_no_silence() -> None:
    def broken(at: int) -> dict[str, float | None]:
        return values(done(lambda turn, number: None if turn.second == at else Silence(), 12, 20))

    assert broken(12)["silence"] == 0 and broken(13)["silence"] == pytest.approx(1 / 8)
    assert broken(19)["silence"] == pytest.approx(7 / 8)
    assert values(done(saying(), 12, 20))["silence"] == pytest.approx(1)


@pytest.mark.parametrize(("breaks", "share"), [(-1, 1.0), (16, 2 / 6)])
def test_seconds_without_frames_are_not_kept_silent_nor_missed(breaks: int, share: float) -> None:
    frames = Pictures(40, missing=(14, 15))
    opened = open_window(Window(0, "silence", 12, 20, 12), DUE, frames, SETTINGS)
    script = Scripted(lambda turn, number: None if turn.second == breaks else Silence())
    ((found,),) = roll(script, [opened], 1)
    assert len(examine(found).quiet) == 6 and values(found)["silence"] == pytest.approx(share)


def test_only_what_the_policy_decided_counts() -> None:
    """The gold past is not earned anew, and what can't be met in the window is not missed."""
    told = examine(done(saying(), 12, 18))
    assert told.due == () and told.false_alarms == () and len(told.quiet) == 6 and told.passed
    assert values(done(saying(), 12, 18))["timing"] is None
    # A state that the gold past told of may not be told again; that is a repeat, no alarm.
    told = examine(done(saying(t23=Response("It rings.")), 22, 30))
    assert len(told.repeats) == 1 and told.false_alarms == ()
    # An onset whose window ends past the window is no miss; met in time it counts all the same.
    assert examine(done(saying(), 14, 21)).due == ()
    assert len(examine(done(saying(t20=Response("It rings.")), 14, 21)).hits) == 1
    # The result of a task that the gold past handed over is due in the window.
    told = examine(done(saying(t8=Response("It is 144.")), 4, 12))
    assert [o.id for o in told.due] == ["a"] and values(done(saying(), 4, 12))["delegation"] == 0


def test_a_judge_that_fails_leaves_content_unscored() -> None:
    rollout = done(saying(**GOLD))
    seen = examine(rollout, right=lambda onset, said: None)
    assert reward(seen, {"content": 1.0, "timing": 1.0}).value("content") is None
    assert reward(seen, {"content": 1.0, "timing": 1.0}).total == 1.0


def test_what_nobody_judges_has_not_passed_and_earns_nothing() -> None:
    gold, unknown = done(saying(**GOLD)), lambda onset, said: None
    seen = examine(gold, unknown)
    assert seen.unscored == 2 and seen.passed is None
    # Its delegation is one of two, told rightly or not; that of the result is not.
    assert reward(seen, {"delegation": 1.0}).value("delegation") == pytest.approx(1 / 2)
    # What is wrong whatever a judge would say is wrong.
    alarm = examine(done(saying(**GOLD, t30=Response("It rings."))), unknown)
    assert alarm.passed is False
    # A result handed over once more, without a rule: there is no text to judge.
    events = (
        Event("q", 2, "user", "Ask."),
        Event("d", 2, "assistant", "Wait.", question="?", answers="q"),
        Event("r", 8, "background", "More.", answers="d"),
        Event("a", 8, "assistant", "Wait on.", question="??", answers="r"),
    )
    timeline = Timeline(Clip("c", 40.0), "delegation", "test", events)
    twice = {"t2": Delegation("Wait.", "?"), "t8": Delegation("Wait on.", "??")}
    seen = examine(done(saying(**twice), timeline=timeline), unknown)
    assert seen.passed and reward(seen, {"delegation": 1.0}).value("delegation") == 1

    known, open_ones = (
        judged(gold.window, [gold, gold], WEIGHTS, Advantages(), right)
        for right in (said_right, unknown)
    )
    assert known.pass_rate == 1 and open_ones.pass_rate is None
    assert of_groups([told(known), told(open_ones)])["grpo/passed"] == 1
    assert "grpo/passed" not in of_groups([told(open_ones)])


def test_a_part_without_weight_is_not_there_and_families_have_their_own() -> None:
    weights = routed(WEIGHTS, {"delegation": {"timing": 0.0, "silence": 2.0}}, "delegation")
    found = reward(examine(done(saying(**GOLD))), weights)
    assert "timing" not in found.parts and found.weights["silence"] == 2.0
    assert routed(WEIGHTS, {"qa": {"timing": 0.0}}, "delegation") == dict(WEIGHTS)


def test_what_is_due_in_the_last_second_is_due() -> None:
    events = (Event("z", 39, "assistant", "It ends."),)
    timeline = Timeline(Clip("c", 40.0), "alerting", "test", events)
    seen = examine(done(saying(), 34, 40, timeline))
    assert [o.id for o in seen.due] == ["z"] and not seen.passed
    assert examine(done(saying(t39=Response("It ends.")), 34, 40, timeline)).passed


def test_who_keeps_what_is_hard_does_not_pass() -> None:
    kept = {**GOLD, "t2": Response("Let me see.")}
    assert not examine(done(saying(**kept), 0, 5)).passed
    assert examine(done(saying(**GOLD), 0, 5)).passed


def test_nothing_is_won_by_owing_less() -> None:
    """Whoever hands over late, so that the result falls out of the window, or never, is not
    measured by the less that came due."""
    whole = values(done(saying(**GOLD), 0, 10))
    late = values(done(saying(t3=TASK), 0, 10))
    never = values(done(saying(t2=Response("144.")), 0, 10))
    assert whole["timing"] == 1 and never["timing"] == 0.5
    assert late["timing"] == pytest.approx(0.75 / 2)  # the result came a second too late for it


def test_repeats_that_are_asked_for_are_no_talk() -> None:
    events = (Event("r", 3, "assistant", "On.", until=30, repeat=True),)
    timeline = Timeline(Clip("c", 40.0), "alerting", "test", events)
    seen = examine(done(lambda turn, number: Response("On."), 10, 20, timeline))
    assert len(seen.wanted) == 10 and PARTS["talk"](seen) == {}
    assert PARTS["repetition"](seen) == {} and PARTS["false_alarm"](seen) == {}


def test_a_failed_judgement_compares_nobody() -> None:
    rollouts = [done(saying(**{**GOLD, "t20": Response(text)})) for text in ("Good.", "Bad.", "?")]
    verdicts = {"Good.": True, "Bad.": False}
    group = judged(
        rollouts[0].window,
        rollouts,
        {"content": 1.0},
        Advantages(),
        lambda onset, said: verdicts.get(said) if onset.id == "e" else True,
    )
    assert group.advantages is None and all("content" not in r.parts for r in group.rewards)
    group = judged(
        rollouts[0].window,
        rollouts[:2],
        {"content": 1.0},
        Advantages(),
        lambda onset, said: verdicts.get(said) if onset.id == "e" else True,
    )
    assert group.advantages is not None


def test_who_names_everything_has_named_nothing() -> None:
    right = brief(said_right)
    onset = Onset(5, "A fire.", rule=Rule("key_facts", ("fire",)))
    assert right(onset, "A fire appeared.") is True
    everything = "A fire, a car, a dog, a cat, a ball, a tree, a house and a lamp."
    assert said_right(onset, everything) is True and right(onset, everything) is False


def copying(turn: Turn, number: int) -> Action:
    return Response(turn.queries[0]) if turn.queries else Silence()


def before(timeline: Timeline) -> Script:
    """Speaks a second before each thing is due."""
    due = actions(timeline)
    ahead = {t - 1: a for t, a in enumerate(due) if not isinstance(a, Silence)}
    return lambda turn, number: ahead.get(turn.second, Silence())


def repeating(timeline: Timeline) -> Script:
    """Does what is due, and says each thing in the three seconds after it, too."""
    due = actions(timeline)

    def script(turn: Turn, number: int) -> Action:
        for t in range(turn.second, max(-1, turn.second - 4), -1):
            if not isinstance(due[t], Silence):
                return due[t]
        return Silence()

    return script


def ignoring(timeline: Timeline) -> Script:
    """Hands over what is to be, and tells of no result."""
    due = actions(timeline)
    back = {e.second for e in timeline.events if e.role == "background"}
    return lambda turn, number: Silence() if turn.second in back else due[turn.second]


def delegating(timeline: Timeline) -> Script:
    """Hands over all that is due."""
    due = actions(timeline)
    return lambda turn, number: (
        Silence() if isinstance(due[turn.second], Silence) else Delegation("Wait.", "What?")
    )


def always(turn: Turn, number: int) -> Action:
    return Response("Yes.")


TRICKS = {
    "always responds": lambda timeline: always,
    "always silent": lambda timeline: silent,
    "speaks just before": before,
    "repeats": repeating,
    "copies the question": lambda timeline: copying,
    "delegates all": delegating,
    "ignores the result": ignoring,
}


def earned(timeline: Timeline, script: Script, sizes: Sizes) -> float:
    """The mean reward over all windows of a clip."""
    found = [
        reward(examine(rolled(timeline, window, script)[0]), WEIGHTS).total
        for window in windows_of(0, timeline, sizes)
    ]
    return sum(found) / len(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_trick_earns_what_gold_does(family: str) -> None:
    clips = [world(family, seed)[0] for seed in range(6)]
    sizes = Sizes()
    gold = [earned(t, gold_of(t), sizes) for t in clips]
    for name, trick in TRICKS.items():
        got = [earned(t, trick(t), sizes) for t in clips]
        if name == "ignores the result" and family != "delegation":
            continue
        if name == "repeats":
            # Where repeats are asked for, or nothing is due for long, little is to be lost by it.
            assert sum(got) < sum(gold), name
            continue
        assert sum(got) < sum(gold) - 0.1 * len(clips), name
    for timeline, best in zip(clips, gold, strict=True):
        assert all(earned(timeline, t(timeline), sizes) <= best + 1e-9 for t in TRICKS.values())


@given(st.sets(st.integers(0, 39), max_size=12), st.sampled_from(["It rings.", "Other."]))
def test_an_alarm_more_never_pays(seconds: set[int], text: str) -> None:
    """Whatever was said, one more false alarm lowers the reward."""
    script = {f"t{t}": Response(text) for t in seconds}
    rollout = done(saying(**script))
    seen = examine(rollout)
    base = reward(seen, WEIGHTS).total
    free = [t for t in seen.quiet if t not in {s.second for s in seen.said}]
    if free:
        worse = done(saying(**{**script, f"t{free[0]}": Response(text)}))
        assert reward(examine(worse), WEIGHTS).total < base


def test_examined_holds_together() -> None:
    seen = examine(done(saying(**GOLD)))
    assert isinstance(seen, Examined) and {o.id for o in seen.due} == {"d", "a", "e"}
    assert seen.results == {"a"} and len(seen.handed) == 1
    quiet = replace(seen, said=(), quiet=())
    assert PARTS["silence"](quiet) is None
