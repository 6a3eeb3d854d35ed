from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyvl_train.actions import Delegation, Response, Silence
from joyvl_train.timeline import (
    MAX_SECONDS,
    Clip,
    Event,
    Rule,
    Timeline,
    TimelineError,
    action_seconds,
    actions,
    from_json,
    to_json,
)

words = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=12)


@st.composite
def timelines(draw):
    seconds = draw(st.integers(1, 30))
    events: list[Event] = []
    taken: set[int] = set()
    for number in range(draw(st.integers(0, 8))):
        time = draw(st.floats(0, seconds - 0.01))
        role = draw(st.sampled_from(["user", "assistant", "background"]))
        extra = {}
        if role == "assistant":
            if math.floor(time) in taken:
                continue
            taken.add(math.floor(time))
            if draw(st.booleans()):
                extra["until"] = time + draw(st.floats(0, 9))
                extra["repeat"] = draw(st.booleans())
            elif draw(st.booleans()):
                extra["question"] = draw(words)
            extra["rule"] = draw(
                st.none() | st.builds(Rule, st.sampled_from(["exact", "number"]), st.tuples(words))
            )
            extra["early"] = draw(st.none() | st.integers(0, 3))
        if events and draw(st.booleans()):
            extra["answers"] = draw(st.sampled_from(events)).id
        events.append(Event(f"e{number}", time, role, draw(words), **extra))
    source = draw(
        st.sampled_from([{}, {"video": "a.mp4"}, {"images": ("a.png",)}, {"scene": {"seed": 1}}])
    )
    offset = 0 if "scene" in source else draw(st.integers(0, 4000))
    clip = Clip("clip", float(seconds), **source, offset=offset)
    return Timeline(clip, "qa", "test", tuple(events), 2.0, draw(words), {"split": "train"})


@given(timelines())
def test_a_record_goes_through_json_unchanged(timeline):
    assert from_json(json.loads(json.dumps(to_json(timeline)))) == timeline


def test_json_tells_an_offset_only_where_there_is_one():
    plain = to_json(Timeline(Clip("c", 9.0, video="a.mp4"), "qa", "test"))
    assert list(plain["clip"]) == ["id", "duration", "video", "images", "scene"]
    assert from_json(plain).clip.offset == 0
    late = to_json(Timeline(Clip("c", 9.0, video="a.mp4", offset=7), "qa", "test"))
    assert late["clip"]["offset"] == 7


@given(timelines())
def test_each_second_has_the_action_of_its_event(timeline):
    gold = actions(timeline)
    assert len(gold) == timeline.clip.seconds
    spoken = {e.second: e for e in timeline.events if e.role == "assistant"}
    repeated = {t for e in spoken.values() if e.repeat for t in e.held_seconds}
    for second, action in enumerate(gold):
        if second in spoken:
            event = spoken[second]
            if event.question is None:
                assert action == Response(event.text)
            else:
                assert action == Delegation(event.text, event.question)
        else:
            assert (action == Silence()) == (second not in repeated)


def says(time: float, text: str = "Now", id: str = "a", **extra) -> Event:
    return Event(id, time, "assistant", text, **extra)


CLIP = Clip("c", 10.0)
REJECTED = [
    ("bad duration", Clip("c", 0.0), ()),
    ("bad duration", Clip("c", math.nan), ()),
    ("bad duration", Clip("c", 10**400), ()),
    ("bad duration", Clip("c", "10"), ()),
    ("bad duration", Clip("c", MAX_SECONDS + 1.0), ()),
    ("several frame sources", Clip("c", 9.0, video="a.mp4", images=("b.png",)), ()),
    ("bad offset", Clip("c", 9.0, video="a.mp4", offset=-1), ()),
    ("bad offset", Clip("c", 9.0, video="a.mp4", offset=1.5), ()),
    ("bad offset", Clip("c", 9.0, video="a.mp4", offset=True), ()),
    ("bad offset", Clip("c", 9.0, video="a.mp4", offset=MAX_SECONDS + 1), ()),
    ("bad offset", Clip("c", 9.0, scene={"seed": 1}, offset=1), ()),
    ("time is no number", CLIP, (says(math.nan),)),
    ("time is no number", CLIP, (says(math.inf),)),
    ("time is no number", CLIP, (says("3"),)),
    ("time is no number", CLIP, (says(True),)),
    ("time is no number", CLIP, (says(None),)),
    ("time is no number", CLIP, (says(3, until=math.nan),)),
    ("time past a day", Clip("c"), (says(10**400),)),
    ("time past a day", CLIP, (says(3, until=1e15, repeat=True),)),
    ("negative time", CLIP, (says(-0.5),)),
    ("unknown role", CLIP, (Event("a", 1, "system", "hi"),)),
    ("empty text", CLIP, (says(1, " "),)),
    ("ends before it starts", CLIP, (says(4, until=3),)),
    ("repeats without an end", CLIP, (says(4, repeat=True),)),
    ("delegation by another role", CLIP, (Event("a", 1, "user", "hi", question="why?"),)),
    ("delegation repeats", CLIP, (says(1, question="why?", until=3, repeat=True),)),
    ("format", CLIP, (says(1, "one\ntwo"),)),
    ("format", CLIP, (says(1, "</silence>"),)),
    ("format", CLIP, (says(1, question=" "),)),
    ("unknown rule", CLIP, (says(1, rule=Rule("close")),)),
    ("bad window", CLIP, (says(1, early=-1),)),
    ("bad window", CLIP, (says(1, late=0.5),)),
    ("past the end", CLIP, (says(10),)),
    ("past the end", CLIP, (Event("q", 12.5, "user", "hi"),)),
    ("duplicate event id", CLIP, (says(1), says(2))),
    ("answers nothing", CLIP, (says(1, answers="q"),)),
    ("two in one second", CLIP, (says(1.1), says(1.9, id="b"))),
]


@pytest.mark.parametrize(("reason", "clip", "events"), REJECTED)
def test_a_record_that_cannot_be_used_is_rejected_with_its_reason(reason, clip, events):
    with pytest.raises(TimelineError) as caught:
        Timeline(clip, "qa", "test", events)
    assert caught.value.reason == reason
    assert "'c'" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, 61.0, True])
def test_a_frame_rate_that_cannot_be_is_rejected(rate):
    with pytest.raises(TimelineError) as caught:
        Timeline(CLIP, "qa", "test", (), rate)
    assert caught.value.reason == "bad frame rate"


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        {"clip": None, "events": []},
        {"clip": {"id": "c"}, "events": None, "family": "qa", "source": "s"},
        {"clip": {"id": "c"}, "events": [{"id": "a"}], "family": "qa", "source": "s"},
        {"clip": {"id": "c"}, "events": [], "family": "qa", "source": "s", "fps": 1},
        {"clip": {"id": "c", "length": 3}, "events": [], "family": "qa", "source": "s"},
        {
            "clip": {"id": "c"},
            "events": [{"id": "a", "time": 1, "role": "user", "text": 5}],
            "family": "qa",
            "source": "s",
        },
    ],
)
def test_data_of_another_shape_is_rejected(data):
    with pytest.raises(TimelineError) as caught:
        from_json(data)
    assert caught.value.reason == "shape"


def test_an_unknown_duration_leaves_the_check_of_the_end_to_the_frames():
    timeline = Timeline(Clip("c"), "qa", "test", (says(12),))
    with pytest.raises(TimelineError) as caught:
        actions(timeline)
    assert caught.value.reason == "unknown duration"
    with pytest.raises(TimelineError) as caught:
        actions(timeline, 12)
    assert caught.value.reason == "past the end"
    assert actions(timeline, 13) == [*[Silence()] * 12, Response("Now")]


def test_a_repeat_gives_way_and_ends_with_the_clip():
    events = (says(1, until=20, repeat=True), says(3, "Other", id="b"))
    gold = actions(Timeline(Clip("c", 5.0), "alerting", "test", events))
    now = Response("Now")
    assert gold == [Silence(), now, now, Response("Other"), now]


def test_a_state_without_repeat_is_reported_once():
    gold = actions(Timeline(Clip("c", 4.0), "alerting", "test", (says(1, until=4),)))
    assert gold == [Silence(), Response("Now"), Silence(), Silence()]


@pytest.mark.parametrize(("duration", "seconds"), [(3.0, 3), (3.2, 4), (0.5, 1), (None, None)])
def test_a_started_second_counts(duration, seconds):
    assert Clip("c", duration).seconds == seconds


@given(timelines())
def test_each_second_is_the_first_repeat_s_that_no_event_of_its_own_takes(timeline):
    spoken = timeline.of("assistant")
    own = {event.second: event for event in spoken}
    right = dict(own)
    for event in spoken:
        for second in event.held_seconds if event.repeat else ():
            right.setdefault(second, event)
    assert action_seconds(timeline.events) == right


def test_many_repeats_that_overlap_are_stepped_through_once():
    """A small record may hold ten thousand, each to the end of the day."""
    until = float(MAX_SECONDS)
    events = tuple(
        Event(f"e{n}", float(n), "assistant", "Still.", until=until, repeat=True)
        for n in range(10_000)
    )
    due = action_seconds(Timeline(Clip("c"), "alerting", "made", events).events)
    assert len(due) == MAX_SECONDS and due[MAX_SECONDS - 1] is events[0]
