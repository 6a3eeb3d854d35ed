"""Commentary says what has just come, keeps quiet else, and drops what can't be seen."""

from __future__ import annotations

from dataclasses import replace

from data_pipeline.candidates import Candidate
from data_pipeline.families import commentary
from data_pipeline.sources.speech import SOURCE
from data_pipeline.sources.wordings import COMMENT
from joyvl_train.timeline import Event, Timeline
from tests.data_pipeline.families.made import footage, reasons, through, told, world
from tests.data_pipeline.oracle import Oracle
from tests.data_pipeline.truth import Truth


def test_a_commentary_tells_what_comes_when_it_comes() -> None:
    given = footage("commentary", world("alerting", range(6), seconds=24))
    with Oracle() as oracle:
        out = through(oracle, given, commentary.stages)
    made = told(out)
    assert len(made) >= 4
    for one in made:
        truth = Truth(one.timeline)
        (query,) = one.timeline.of("user")
        assert query.text in COMMENT
        last = query.second
        for event in one.timeline.of("assistant"):
            meant = truth.meant(event.text)
            assert meant and any(t.came == event.second for t in truth.things if meant.fits(t))
            assert event.second >= last and event.answers == query.id
            last = event.second + commentary.spoken_seconds(event.text)


def test_what_can_not_be_seen_is_not_said() -> None:
    given = footage("commentary", world("alerting", range(6), seconds=24))
    with Oracle(errs={"commentator": 0.5}) as oracle:
        out = through(oracle, given, commentary.stages)
        assert oracle.wrong["commentator"]
    assert any(one.work["dropped"] for one in out)
    for one in out:
        truth = Truth(one.timeline)
        assert all(truth.seen(e.text, e.second) for e in one.timeline.of("assistant"))
        assert f"{len(one.work['dropped'])} dropped" in one.history[1].detail


def test_too_little_said_is_no_commentary() -> None:
    given = footage("commentary", world("alerting", [0], seconds=24))
    quiet = {"commentator": lambda ask: {"speak": "no", "text": ""}}
    with Oracle(answers=quiet) as oracle:
        out = through(oracle, given, commentary.stages)
    assert reasons(out) == {"enough said: too little said": 1}


def spoken() -> Candidate:
    """Speech over a clip: the first line in two pieces, the last one about what is not there."""
    (clip,) = world("alerting", [1], seconds=24)
    truth = Truth(clip.timeline)
    first, *rest = [t for t in truth.things if t.came > 1 and truth.meant(t.a)]
    second = next(t for t in rest if t.came > first.came + 3)
    lines = [
        (first.came, f"Here comes {first.a}"),
        (first.came + 1.0, "at last."),
        (second.came + 0.2, f"And {second.a}."),
        (20.0, "A submarine surfaces."),
    ]
    events = [Event("q0", 0.2, "user", COMMENT[0])] + [
        Event(f"r{n}", at, "assistant", text, until=at + 0.9, answers="q0")
        for n, (at, text) in enumerate(lines)
    ]
    timeline = Timeline(clip.timeline.clip, "commentary", SOURCE, tuple(events))
    return replace(clip, timeline=timeline)


def test_speech_is_joined_up_and_grounded() -> None:
    with Oracle() as oracle:
        (one,) = through(oracle, [spoken()], commentary.stages)
    assert one.status == "open"
    assert [note.stage for note in one.history] == [
        "pictures", "sentences", "grounding", "enough said",
    ]  # fmt: skip
    texts = [event.text for event in one.timeline.of("assistant")]
    assert len(texts) == 2 and texts[0].endswith("at last.")
    assert one.work["dropped"] == [[20, "A submarine surfaces."]]


def test_subtitles_that_are_read_out_are_let_by() -> None:
    one = spoken()
    events = (replace(one.timeline.events[0], text="Read me the subtitles."),)
    read = replace(one, timeline=replace(one.timeline, events=(*events, *one.timeline.events[1:])))
    with Oracle() as oracle:
        assert through(oracle, [read], commentary.stages) == [read]
