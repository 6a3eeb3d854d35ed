"""Alerts made of the world's footage, and of its annotations, are right by the world's log."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from data_pipeline.agents.motion import Motion
from data_pipeline.candidates import Candidate
from data_pipeline.desk import Desk
from data_pipeline.families import SPLIT, alerting
from data_pipeline.families.alert_checks import asked_too_late
from data_pipeline.families.targets import Target, Tools, flaw, label_of
from joyvl_train.timeline import Clip, Event, Timeline
from tests.data_pipeline.answers import said_in
from tests.data_pipeline.families.made import (
    footage,
    pictures,
    reasons,
    through,
    told,
    world,
)
from tests.data_pipeline.oracle import Oracle
from tests.data_pipeline.truth import Truth

PROPOSERS = ("target_proposer", "absent_proposer")


def right(one: Candidate) -> None:
    """Told when its target is first seen after the instruction, or never if it never is."""
    timeline, truth = one.timeline, Truth(one.timeline)
    (query,), end = timeline.of("user"), timeline.clip.seconds
    assert end is not None
    target = said_in(one.work["target"]["target"])
    comes = truth.first(target, query.second, end)
    if not timeline.of("assistant"):
        assert comes is None, f"{target} comes at {comes} s"
        return
    (alert,) = timeline.of("assistant")
    assert alert.second == comes and alert.answers == query.id
    gone = next((t for t in range(comes, end) if not truth.seen(target, t)), end)
    assert alert.held_seconds == range(comes, gone)
    assert truth.first(target, gone, end) is None


def test_alerts_from_footage_are_right() -> None:
    clips = world("alerting", range(5), seconds=40) + world("alerting", [9, 10], kind="state")
    with Oracle() as oracle:
        given = footage("alerting", clips)
        out = through(oracle, given, lambda desk: alerting.stages(desk, negatives=0.7))
    made = told(out)
    assert len(made) >= 14 and set(reasons(out)) <= {
        f"windows: {SPLIT}",
        f"targets: {SPLIT}",
        "targets: nothing proposed",
        "video filter: unfit video",
    }
    for one in made:
        right(one)
    negatives = {one.timeline.meta.get("negative", "") for one in made}
    assert negatives == {"", "never comes", "after the event"}
    kinds = {one.timeline.meta["kind"] for one in made}
    assert kinds == {"object", "state"}
    (first, *_) = [one for one in made if one.timeline.of("assistant")]
    assert [note.stage for note in first.history] == [
        "pictures", "video filter", "windows", "propose", "targets", "window verifier",
        "precheck", "localize", "hold", *(["negatives"] * (first.history[-1].stage == "negatives")),
    ]  # fmt: skip


def test_without_a_look_for_the_end_nothing_is_asked_too_late() -> None:
    """Agents may be away when ends are looked for: then no one knows where an event is over."""
    (one,) = world("alerting", [0], kind="appear", seconds=24)
    desk, known = Desk(pictures), replace(one, work={"unseen": [8, 20]})
    assert asked_too_late(desk, 1.0, one) == [one]
    assert len(asked_too_late(desk, 1.0, known)) == 2


def test_lies_of_the_proposers_are_found_out() -> None:
    given = footage("alerting", world("alerting", range(8), seconds=24))
    with Oracle(errs=dict.fromkeys(PROPOSERS, 1.0)) as oracle:
        out = through(oracle, given, lambda desk: alerting.stages(desk, negatives=1.0))
        assert oracle.wrong["target_proposer"] and oracle.wrong["absent_proposer"]
    for one in told(out):
        right(one)
    found = {reason.split(":")[0] for reason in reasons(out)}
    assert {"window verifier", "targets"} <= found


def test_without_the_window_verifier_the_looks_find_the_lies() -> None:
    given = footage("alerting", world("alerting", range(8), seconds=24))
    yes = {"window_verifier": lambda ask: {"reason": "", "verdict": "yes"}}
    with Oracle(errs={"target_proposer": 1.0}, answers=yes) as oracle:
        out = through(oracle, given, lambda desk: alerting.stages(desk, negatives=0.0))
    assert reasons(out)["precheck: seen earlier"]
    for one in told(out):
        right(one)


def annotated(moved: int, seeds: range) -> list[Candidate]:
    """Alerts of the world whose responses an annotator has put `moved` seconds off."""
    made = []
    for one in world("alerting", seeds, kind="appear", seconds=24):
        events = tuple(
            replace(e, time=e.time + moved, until=e.until and e.until + moved, answers=None)
            if e.role == "assistant"
            else e
            for e in one.timeline.events
        )
        if all(0 <= e.second < 24 for e in events):
            made.append(replace(one, timeline=replace(one.timeline, events=events)))
    return made


@pytest.mark.parametrize("moved", [-2, 0, 1, 2])
def test_annotated_alerts_are_moved_to_their_frame(moved: int) -> None:
    seeds = range(10)
    gold = {one.id: one.timeline for one in world("alerting", seeds, kind="appear", seconds=24)}
    with Oracle() as oracle:
        out = through(oracle, annotated(moved, seeds), alerting.stages)
    made = [one for one in told(out) if "parent" not in one.work]
    assert len(made) >= 3
    for one in made:
        wanted = {e.second: e.text for e in gold[one.id].of("assistant")}
        found = {e.second: e.text for e in one.timeline.of("assistant")}
        assert found.items() <= wanted.items()
        assert all(e.answers and e.rule for e in one.timeline.of("assistant"))
        if moved:
            assert "localize" in [n.stage for n in one.history if n.verdict == "changed"]


def test_annotations_off_by_more_than_the_slack_are_refused() -> None:
    with Oracle() as oracle:
        out = through(oracle, annotated(4, range(6)), lambda d: alerting.stages(d, slack=1))
    assert reasons(out)["precheck: seen earlier"] >= 3


def test_what_is_there_as_one_asks_is_no_alert() -> None:
    given = []
    for one in annotated(1, range(8)):
        there = min(event.time for event in one.timeline.of("assistant")) - 1
        events = (replace(e, time=there) if e.role == "user" else e for e in one.timeline.events)
        given.append(replace(one, timeline=replace(one.timeline, events=tuple(events))))
    with Oracle() as oracle:
        out = through(oracle, given, lambda d: alerting.stages(d, negatives=0.0))
    assert reasons(out)["precheck: seen earlier"] == len(given) >= 3


def test_a_benchmarks_alerts_stay_as_they_are() -> None:
    given = [replace(one, use="evaluation") for one in annotated(2, range(3))]
    with Oracle() as oracle:
        out = through(oracle, given, alerting.stages)
    assert [one.timeline for one in out] == [one.timeline for one in given]
    assert not oracle.asked


def test_annotations_that_are_no_alerts() -> None:
    (one,) = world("alerting", [0], kind="appear", seconds=24)
    query, report = one.timeline.of("user")[0], one.timeline.of("assistant")[0]
    wrong = {
        "no instruction": (replace(report, answers=None),),
        "nothing reported": (query,),
        "there at once": (query, replace(report, time=query.time, until=None)),
        "no alert": (query, replace(report, question="What is it?")),
    }
    for reason, events in wrong.items():
        made = alerting.normalise(replace(one, timeline=replace(one.timeline, events=events)))
        assert made.reason == reason


def test_a_still_video_costs_no_question() -> None:
    given = footage("alerting", world("alerting", [3], seconds=24))

    class Still:
        key = "motion@0"

        def __call__(self, pictures: object) -> list[float]:
            return [0.0]

    with Oracle() as oracle:
        tools = Tools(motion=Still())  # type: ignore[arg-type]
        out = through(oracle, given, lambda desk: alerting.stages(desk, tools=tools))
        assert oracle.asked["target_proposer"] == 0
    assert reasons(out)["motion: nothing moves"]
    with Oracle() as oracle:
        tools = Tools(motion=Motion())
        out = through(oracle, given, lambda desk: alerting.stages(desk, tools=tools))
        assert oracle.asked["target_proposer"] and told(out)


def drafted(kind: str, target: str, **others: object) -> Target:
    plain = {"second": 9, "instruction": f"Tell me of {target}.", "response": f"{target} is there."}
    return Target(kind, target, **{**plain, **others})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (drafted("object", "a red car"), None),
        (drafted("object", "something"), "too generic"),
        (drafted("object", "the sky"), "part of the scene"),
        (drafted("object", "no car"), None),
        (drafted("object", "the car is gone"), "nothing to be seen"),
        (drafted("person", "a person"), "too generic"),
        (drafted("person", "a woman in a blue coat"), None),
        (drafted("action", "running"), "too generic"),
        (drafted("action", "a dog is running"), None),
        (drafted("state", "the lamp is on"), None),
        (drafted("text", "a sign"), "no text"),
        (drafted("text", 'a sign that says "EXIT"'), None),
        (drafted("object", "a red car", second=5), "in the first pictures"),
        (drafted("object", "a red car", second=40), "outside the window"),
        (drafted("object", "a red car", response="There it is."), "not named"),
        (drafted("object", "a red car", instruction="A red car will come soon."), "gives it away"),
        (drafted("object", "a red car at 0:09"), "names a time"),
        (drafted("object", "a red car " * 8), "too long"),
        (drafted("object", "a dog"), "proposed twice"),
        (drafted("object", "a cat", second=None, response=""), None),
    ],
)
def test_the_hard_rules_of_a_target(target: Target, reason: str | None) -> None:
    found = flaw(target, range(5, 30), [drafted("object", "the dog")])
    assert (found and found[0]) == reason


def test_labels_of_the_detector() -> None:
    assert label_of("a dog") == "dog" and label_of("a red dog") == ""


def test_settings_that_make_no_sense() -> None:
    for wrong in ({"lengths": (9, 3)}, {"negatives": 2.0}, {"kinds": ("smell",)}, {"kinds": ()}):
        with pytest.raises(ValueError, match="wrong|choose from"):
            alerting.stages(Desk(lambda timeline: None), **wrong)  # type: ignore[arg-type]


def test_windows_of_a_video_are_clips_of_their_own() -> None:
    """What lies before and after a window of a long video is none of its clip's."""
    clip = Clip("a", 1800.0, video="a.mp4")
    whole = Candidate("0" * 32, Timeline(clip, "alerting", "footage"))
    desk = Desk(lambda timeline: None)  # type: ignore[arg-type,return-value]
    parent, *made = alerting.windows(desk, (12, 60), 4, whole)
    assert parent.reason == SPLIT and len(made) == 4
    for number, child in enumerate(made):
        found = child.timeline.clip
        length = int(found.duration or 0)
        assert 12 <= length <= 60 and child.work["window"] == [0, length]
        assert 450 * number <= found.offset <= 450 * (number + 1) - length
    work = {**made[3].work, "proposed": [asdict(drafted("object", "a dog"))]}
    child = alerting.hard_filter(("object",), 3, replace(made[3], work=work))[-1]
    assert child.status == "open" and child.timeline.clip == made[3].timeline.clip
    assert [event.time for event in child.timeline.events] == [0.0, 9.0]


def test_an_alert_may_come_again() -> None:
    """Of two reports with one text, the first ends where the next begins."""
    (one,) = world("alerting", [0], kind="appear", seconds=24)
    query = Event("q0", 1.0, "user", "Tell me each time.")
    reports = [
        Event(f"r{n}", at, "assistant", "A dog.", until=20.0) for n, at in enumerate((5.0, 9.0))
    ]
    timeline = replace(one.timeline, events=(query, *reports))
    made = alerting.normalise(replace(one, timeline=timeline)).timeline.of("assistant")
    assert [event.until for event in made] == [9.0, 20.0]
