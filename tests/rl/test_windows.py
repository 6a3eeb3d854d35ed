"""Windows: where they lie, that they open as a chunk does, and that nothing later reaches them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.world.streams import FAMILIES, WorldFrames
from joyvl_train.chunks import training_chunks
from joyvl_train.memory import Limits, log_summary
from joyvl_train.stream import StreamSettings
from joyvl_train.timeline import Clip, Event, Timeline, TimelineError, actions
from joyvl_train.timing import due
from rl.windows import Sizes, Window, open_window, windows_of
from tests.joyvl_train.scripted import Pictures
from tests.rl.policies import SIDE, windows, world

SMALL = StreamSettings(20, 4)


def alert(seconds: int = 60, *times: int) -> Timeline:
    events = [Event("q", 1, "user", "Tell me when it rings.")]
    events += [Event(f"a{t}", t, "assistant", "It rings.", answers="q") for t in times or (30,)]
    return Timeline(Clip("c", float(seconds)), "alerting", "test", tuple(events))


def test_an_answer_window_holds_the_seconds_around_what_is_due() -> None:
    (window,) = windows(alert(), "answer")
    assert (window.first, window.stop, window.focus) == (24, 35, 30)
    (near,) = windows(alert(60, 3), "answer")
    assert near.first == 0
    (end,) = windows(alert(33, 31), "answer")
    assert end.stop == 33
    wide = Sizes(before=10, after=20)
    assert [(w.first, w.stop) for w in windows(alert(), "answer", wide)] == [(20, 51)]


def test_silence_windows_come_hardest_first_and_hold_nothing_due() -> None:
    timeline = alert(60, 30)
    told = windows_of(0, timeline, Sizes(), lures=lambda t: [12], alarms=[45])
    silence = [w for w in told if w.kind == "silence"]
    assert [w.focus for w in silence] == [45, 12, 29]
    busy = {t for o in due(timeline) for t in o.window}
    assert not any(busy & set(range(w.first, w.stop)) for w in silence)
    assert all(w.stop - w.first <= Sizes().silence for w in silence)
    # An alarm where something is due, or past the end, is none.
    assert [w.focus for w in windows_of(0, timeline, Sizes(), alarms=[30, 99])][-1] == 29
    # Where nothing is ever due, one window in the middle.
    quiet = replace(timeline, events=timeline.events[:1])
    assert [w.focus for w in windows(quiet, "silence")] == [30]


def test_a_pending_window_lasts_until_the_result_is_told() -> None:
    timeline, _ = world("delegation", 5)
    (task,) = [e for e in timeline.events if e.question is not None][:1]
    (back,) = [e for e in timeline.events if e.role == "background" and e.answers == task.id]
    window = windows(timeline, "pending", Sizes(pending=60))[0]
    assert window.first == task.second + 1
    assert window.first <= back.second < window.stop
    frames = WorldFrames(timeline, SIDE)
    opened = open_window(window, timeline, frames, StreamSettings(100, 10))
    assert opened.stream.open_tasks == {1}


def test_a_clip_without_a_length_has_none() -> None:
    with pytest.raises(TimelineError, match="unknown duration"):
        windows_of(0, replace(alert(), clip=Clip("c")), Sizes())
    for wrong in ({"before": -1}, {"silence": 0}):
        with pytest.raises(ValueError, match="or more"):
            Sizes(**wrong)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_window_of_the_world_is_named_apart_and_inside(family: str) -> None:
    for seed in range(12):
        timeline, frames = world(family, seed)
        found = windows_of(7, timeline, Sizes())
        assert len({w.key for w in found}) == len(found) == len({(w.first, w.stop) for w in found})
        assert all(0 <= w.first < w.stop <= frames.seconds for w in found)
        onsets = {o.second for o in due(timeline)}
        assert onsets <= {t for w in found for t in range(w.first, w.stop) if w.kind != "silence"}


@given(st.integers(0, 59), st.integers(1, 40))
def test_a_window_opens_as_a_chunk_of_the_stream_does(first: int, length: int) -> None:
    timeline = alert(60, 8, 30, 47)
    window = Window(0, "answer", first, min(60, first + length), first)
    opened = open_window(window, timeline, Pictures(60), SMALL)
    stream = opened.stream
    turn = stream.observe(first, opened.show(first), *opened.episode.arrivals(first))
    assert turn is not None and turn.second == first
    carried = [t.second for t in stream.turns[:-1]]
    if first <= SMALL.lead:
        assert carried == list(range(first)) and stream.memory_text == ""
        return
    # The first second decided opens the chunk; `lead` seconds of gold turns stand before it.
    assert stream.supervised_from == first
    assert carried == list(range(first - SMALL.lead, first))
    gold = actions(timeline)
    assert [t.action for t in stream.turns[:-1]] == [gold[t] for t in carried]
    # What was said before reads in the memory, and the standing instruction is in the opening.
    if first - SMALL.lead > 8:
        assert "It rings." in stream.memory_text
    if first - SMALL.lead > 1:
        assert "Tell me when it rings." in stream.memory_text


@pytest.mark.parametrize("limits", [Limits(), Limits(summary_chars=64)])
def test_a_window_at_a_boundary_is_the_chunk_that_training_cuts(limits: Limits) -> None:
    """Where the stream is cut anyway, the window's prompt is that of the trained sample."""
    timeline, frames = world("alerting", 4, seconds=48)
    tell = partial(log_summary, chars=limits.told_chars)
    small = replace(SMALL, limits=limits)
    chunks = list(training_chunks(timeline, frames.frames, small, tell))
    for chunk in chunks[1:]:
        first = chunk.supervised_from
        window = Window(0, "answer", first, first + 3, first)
        opened = open_window(window, timeline, frames, small)
        opened.stream.observe(first, opened.show(first), *opened.episode.arrivals(first))
        assert opened.stream.memory_text == chunk.memory_text
        shown = [(t.second, t.queries, t.results, t.action) for t in opened.stream.turns[:-1]]
        told = [(t.second, t.queries, t.results, t.action) for t in chunk.turns]
        assert shown == told[: len(shown)]


@given(st.integers(1, 50), st.integers(0, 9))
def test_nothing_after_a_second_reaches_its_prompt(first: int, seed: int) -> None:
    timeline = alert(60, 8, 30, 47)
    later = [e for e in timeline.events if e.time < first]
    other = replace(timeline, events=(*later, Event("z", 59, "assistant", f"Other {seed}.")))
    seen: list[int] = []

    class Watched(Pictures):
        def frames(self, second: int):
            seen.append(second)
            return super().frames(second)

    window = Window(0, "answer", first, first + 1, first)
    openings = []
    for each in (timeline, other):
        opened = open_window(window, each, Watched(60), SMALL)
        openings.append((opened.stream.memory_text, opened.stream.turns, opened.episode.steps))
    assert openings[0] == openings[1]
    assert max(seen, default=-1) < first


def test_the_gold_past_is_answered_when_gold_says_so_whatever_is_drawn() -> None:
    """Delays are drawn for what the policy delegates; what gold has delegated came back in time."""
    for seed in range(20):
        timeline, _ = world("delegation", seed)
        frames = Pictures(timeline.clip.seconds or 0)
        for window in windows_of(0, timeline, Sizes()):
            opened = [
                open_window(window, timeline, frames, StreamSettings(100, 10), draw_gold=drawn)
                for drawn in (False, True)
            ]
            one, two = (o.episode.steps for o in opened)
            assert one == two
            told = [o.episode.onsets for o in opened]
            assert told[0] == told[1]


def test_pictures_are_prepared_once_and_none_that_the_prompt_does_not_hold() -> None:
    prepared: list[object] = []

    def prepare(picture: object) -> object:
        prepared.append(picture)
        return picture

    window = Window(0, "answer", 30, 33, 30)
    opened = open_window(window, alert(), Pictures(60), SMALL, prepare=prepare)
    assert len(prepared) == SMALL.lead
    assert opened.show(30) is opened.show(30) and len(prepared) == SMALL.lead + 1


def test_gold_in_a_second_without_frames_can_be_no_window() -> None:
    window = Window(0, "answer", 35, 40, 35)
    with pytest.raises(TimelineError, match="no frame at a response"):
        open_window(window, alert(), Pictures(60, missing=(30,)), SMALL)
