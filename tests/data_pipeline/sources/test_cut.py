"""Clips cut around what is annotated."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.candidates import Candidate, Refused, id_of
from data_pipeline.sources import charades_sta, qvhighlights
from data_pipeline.sources.cut import STAGE, cut_after, cut_around, part_of
from data_pipeline.sources.videos import Videos
from joyvl_train.timeline import Clip, Event, Timeline, actions
from tests.data_pipeline.sources.shapes import as_list
from tests.joyvl_train.videos import make_video


def annotated(
    duration: float | None, *due: tuple[float, float | None], offset: int = 0, asked: float = 2.0
) -> Candidate:
    events = [Event("q0", asked, "user", "Tell me.")]
    for n, (time, until) in enumerate(due):
        events.append(Event(f"r{n}", time, "assistant", f"Now {n}.", until=until, answers="q0"))
    clip = Clip("a", duration, video="a.mp4", offset=offset)
    return Candidate(id_of("a", due), Timeline(clip, "alerting", "made", tuple(events)))


def test_an_hour_is_cut_to_what_is_told_of_and_its_margins():
    (one,) = cut_around([annotated(3600.0, (3003.25, 3010.5))], 60, 30)
    start = one.timeline.clip.offset
    assert 3003 - 60 <= start <= 3003 - 30
    assert one.timeline.clip == Clip("a", 3041.0 - start, video="a.mp4", offset=start)
    query, response = one.timeline.events
    assert query.time == 2.0  # asked by the source itself, at the start of the clip
    assert (response.time + start, response.answers) == (3003.25, "q0")
    assert response.until is not None and response.until + start == 3010.5
    assert one.history[-1].stage == STAGE and f"{start} to 3041" in one.history[-1].detail
    assert one.status == "open"


def test_how_long_a_clip_has_run_tells_nothing_of_what_comes():
    every = [annotated(3600.0, (200.0 + n, None)) for n in range(300)]
    found = Counter(clip_second(one) for one in cut_around(every, 60, 30))
    assert set(found) == set(range(30, 61)) and max(found.values()) < 30
    assert list(cut_around(every, 60, 30)) == list(cut_around(every, 60, 30))
    # The least that may be asked for leaves room for the instruction, whatever is drawn.
    late = [annotated(3600.0, (200.0 + n, None), asked=3.0) for n in range(50)]
    assert {clip_second(one) for one in cut_around(late, 5, 1)} == {4, 5}


def test_what_lies_within_the_margins_stays_as_it_is():
    short, silent = annotated(80.0, (40.0, 50.0)), annotated(900.0)
    unknown, refused = annotated(None, (400.0, None)), Refused("x", "no times")
    given_in = [short, silent, unknown, refused]
    assert list(cut_around(given_in, 60, 30)) == given_in
    assert list(cut_after([short, unknown, refused], 30)) == [short, unknown, refused]
    scene = Timeline(Clip("s", 900.0, scene={"w": 1}), "alerting", "made", short.timeline.events)
    assert list(cut_around([replace(short, timeline=scene)], 5, 1))[0].timeline == scene


def test_a_question_keeps_all_that_came_before():
    (one,) = cut_after([annotated(3600.0, (3000.0, None), asked=3000.0)], 30)
    assert one.timeline.clip == Clip("a", 3031.0, video="a.mp4")
    assert [event.time for event in one.timeline.events] == [3000.0, 3000.0]


@settings(deadline=None, max_examples=200)
@given(
    length=st.floats(20, 5000),
    shares=st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0, 1)), min_size=1, max_size=4),
    before=st.integers(5, 100),
    after=st.integers(1, 100),
    offset=st.integers(0, 5000),
)
def test_labels_keep_their_second_of_the_video(length, shares, before, after, offset):
    seconds: dict[int, tuple[float, float]] = {}
    for place, held in shares:
        time = max(5.0, place * (length - 1))
        seconds.setdefault(int(time), (time, time + held * (length - time)))
    whole = annotated(length, *seconds.values(), offset=offset)
    (one,) = cut_around([whole], before, after)
    clip, first = one.timeline.clip, clip_second(whole)
    assert clip.duration is not None and clip.duration <= length
    moved = clip.offset - offset
    assert moved == 0 if first <= before else first - before <= moved <= first - before // 2
    for old, new in zip(whole.timeline.events[1:], one.timeline.events[1:], strict=True):
        assert new.time + moved == old.time and new.second + moved == old.second
        assert new.until is not None and new.until + moved == old.until
    last = max(event.held_seconds.stop for event in whole.timeline.events)
    assert clip.duration == min(length - moved, float(last + after - moved))
    assert actions(one.timeline)[first - moved] == actions(whole.timeline)[first]
    assert one.timeline.events[0].second < one.timeline.events[1].second
    assert (one == whole) == (one.id == whole.id)


def clip_second(one: Candidate) -> int:
    return min(event.second for event in one.timeline.of("assistant"))


def test_other_margins_make_other_clips_of_one_annotation():
    whole = annotated(3600.0, (3000.0, None))
    ids = {next(cut_around([whole], before, 30)).id for before in (10, 10, 40)}
    assert len(ids) == 2 and whole.id not in ids


def test_sources_are_cut_where_the_video_is_long(tmp_path):
    make_video(tmp_path / "V.mp4", [k / 2 for k in range(2 * 90)])
    lines = tmp_path / "c.txt"
    lines.write_text("V 70.0 75.0##a person sits down.\nV 80.0 99.0##a person gets up.\n")
    made = list(cut_around(charades_sta.read(lines, Videos(tmp_path)), 20, 5))
    for one, first, last in zip(made, (70, 80), (80.0, 90.0), strict=True):
        clip = one.timeline.clip
        assert first - 20 <= clip.offset <= first - 10 and clip.offset + clip.duration == last
    record = {"vid": "V", "query": "A dog.", "duration": 90, "relevant_windows": [[60, 64]]}
    (one,) = cut_around(
        qvhighlights.read(as_list(tmp_path / "q.json", [record]), Videos(tmp_path)), 20, 5
    )
    clip = one.timeline.clip
    assert 40 <= clip.offset <= 50 and clip.offset + clip.duration == 69.0
    assert one.timeline.of("user")[0].second <= 3


@pytest.mark.parametrize(("start", "stop", "length"), [(10, 20, 10.0), (10, 40, 20.5)])
def test_a_part_of_a_part_lies_in_the_same_video(start, stop, length):
    clip = Clip("a", 30.5, video="a.mp4", offset=100)
    assert part_of(clip, start, stop) == Clip("a", length, video="a.mp4", offset=100 + start)
