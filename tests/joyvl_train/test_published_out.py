"""Timelines out in the published forms, and in again."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from joyvl_train.actions import Response, format_action
from joyvl_train.frames import ImageFrames
from joyvl_train.published import (
    read_published,
    timeline_of,
    to_chat,
    to_raw,
    write_published,
)
from joyvl_train.records import Rejects
from joyvl_train.timeline import Clip, Event, Timeline, TimelineError, actions


def spoken(timeline: Timeline) -> list[tuple]:
    return [(e.time, e.text, e.until, e.repeat) for e in timeline.of("assistant")]


words = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8)


@st.composite
def timelines(draw):
    """Timelines that the chat form can hold: whole seconds, no rules or windows."""
    seconds = draw(st.integers(1, 20))
    free = draw(st.lists(st.integers(0, seconds - 1), unique=True, max_size=6).map(sorted))
    events: list[Event] = []
    for n, second in enumerate(free):
        id, text, time = f"r{n}", f"{draw(words)} {n}", float(second)
        kind = draw(st.sampled_from(["once", "held", "delegated"]))
        if kind == "held":
            stop = min([s for s in free if s > second], default=seconds)
            until = draw(st.integers(second + 1, stop))
            if until > second + 1:
                events.append(Event(id, time, "assistant", text, until=float(until), repeat=True))
                continue
        question = draw(words) if kind == "delegated" else None
        events.append(Event(id, time, "assistant", text, question))
        if question is not None and second + 1 < seconds and draw(st.booleans()):
            when = float(draw(st.integers(second + 1, seconds - 1)))
            events.append(Event(f"b{n}", when, "background", draw(words), answers=id))
    for n, second in enumerate(sorted(draw(st.sets(st.integers(0, seconds - 1), max_size=3)))):
        events.append(Event(f"q{n}", float(second), "user", f"{draw(words)} {n}?"))
    return Timeline(
        Clip("c", float(seconds)), "qa", "made", tuple(events), opening=draw(st.just("") | words)
    )


def kept(timeline: Timeline) -> list[tuple]:
    """What the forms can hold, ids left out."""
    texts = {e.id: e.text for e in timeline.events}
    return sorted(
        (
            e.role,
            e.time,
            e.text,
            e.question,
            e.until,
            e.repeat,
            texts[e.answers] if e.role == "background" else None,
        )
        for e in timeline.events
    )


def by_second(timeline: Timeline, rate: int) -> list[list[str]]:
    return [[f"{t}.{i}.jpg" for i in range(rate)] for t in range(timeline.clip.seconds)]


@settings(deadline=None)
@given(timelines(), st.integers(1, 3))
def test_a_timeline_goes_through_the_chat_form_unchanged(timeline, rate):
    pictures = by_second(timeline, rate)
    item = json.loads(json.dumps(to_chat(timeline, pictures)))
    back = timeline_of(item)
    assert kept(back) == kept(timeline)
    assert actions(back) == actions(timeline)
    assert back.clip.images == tuple(path for paths in pictures for path in paths)
    assert (back.opening, back.family, back.source) == (timeline.opening, "qa", "made")
    assert back.frames_per_second == rate and back.clip.duration == timeline.clip.duration
    said = [m["content"] for m in item["messages"] if m["role"] == "assistant"]
    assert said == [format_action(action) for action in actions(timeline)]


@settings(deadline=None)
@given(timelines())
def test_a_timeline_goes_through_the_raw_form_unchanged(timeline):
    back = timeline_of(json.loads(json.dumps(to_raw(timeline))))
    assert kept(back) == kept(timeline)
    assert actions(back) == actions(timeline)
    assert back.opening == timeline.opening


def test_the_chat_form_tells_the_seconds_of_the_video():
    events = (Event("q", 0.0, "user", "Who?"), Event("r", 2.0, "assistant", "Ann."))
    timeline = Timeline(Clip("c", 3.0, offset=3000), "qa", "made", events)
    item = to_chat(timeline, [["0.jpg"], [], ["2.jpg"]])
    told = [message["content"] for message in item["messages"] if message["role"] == "user"]
    assert ["<3000.0 seconds>" in told[0], "<3002.0 seconds>" in told[1]] == [True, True]
    back = timeline_of(item)
    assert (back.clip.offset, back.clip.duration) == (3000, 3.0)
    assert [(e.time, e.text) for e in back.events] == [(0.0, "Who?"), (2.0, "Ann.")]
    assert to_chat(back, [["0.jpg"], [], ["2.jpg"]]) == item
    with pytest.raises(TimelineError, match="negative time"):
        timeline_of({**item, "clip_offset": 3001})


def test_fractions_of_seconds_and_ends_stay_in_the_raw_form():
    events = (Event("a", 2.5, "assistant", "Fire.", until=4.75),)
    timeline = Timeline(Clip("c", 9.5), "qa", "made", events)
    assert spoken(timeline_of(to_raw(timeline))) == [(2.5, "Fire.", 4.75, False)]


def test_texts_of_seconds_without_pictures_move_on():
    events = (Event("q", 0.0, "user", "Who?"), Event("r", 2.0, "assistant", "Ann."))
    timeline = Timeline(Clip("c", 3.0), "qa", "made", events)
    back = timeline_of(to_chat(timeline, [[], ["1.jpg"], ["2.jpg"]]))
    assert [(e.time, e.text) for e in back.events] == [(1.0, "Who?"), (2.0, "Ann.")]
    with pytest.raises(TimelineError, match="no frames"):
        to_chat(timeline, [["0.jpg"], ["1.jpg"], []])
    with pytest.raises(TimelineError, match="past the end"):
        to_chat(timeline, [["0.jpg"], ["1.jpg"]])


def test_outside_text_forms_no_placeholder():
    events = (Event("q", 0.0, "user", "Is <image> or [Background 1] here, at <9.0 seconds>?"),)
    timeline = Timeline(Clip("c", 1.0), "qa", "made", events)
    back = timeline_of(to_chat(timeline, [["0.jpg"]]))
    (query,) = back.events
    assert query.time == 0.0 and "image>" in query.text and "9.0 seconds" in query.text


def test_a_corpus_is_written_with_its_pictures_and_read_back(tmp_path):
    for k in range(3):
        Image.fromarray(np.full((9, 9, 3), 80 * k, np.uint8)).save(tmp_path / f"{k}.png")
    frames = ImageFrames([f"{k}.png" for k in range(3)], 1.0, root=tmp_path)
    good = Timeline(Clip("c"), "qa", "made", (Event("r", 2.0, "assistant", "White."),))
    late = Timeline(Clip("d"), "qa", "made", (Event("r", 3.0, "assistant", "White."),))
    rejects = Rejects()
    assert write_published([(good, frames), (late, frames)], tmp_path / "out", rejects) == 1
    assert rejects.counts == {"past the end": 1}
    none = Rejects()
    (back,) = read_published(tmp_path / "out/data.json", none, tmp_path / "out")
    assert not none.total and actions(back)[2] == Response("White.")
    shown = ImageFrames(back.clip.images, 1.0, root=tmp_path / "out")
    assert abs(int(np.asarray(shown.frames(2)[0])[4, 4, 0]) - 160) < 4
