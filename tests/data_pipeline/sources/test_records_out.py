"""Published records as candidates, and our timelines out in the published form and back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.candidates import Candidate, Refused, id_of
from data_pipeline.sources import published, world
from data_pipeline.sources.published import raw_text, write_published
from joyvl_train.corpus import open_corpus
from joyvl_train.published import read_published, timeline_of
from joyvl_train.records import Rejects
from joyvl_train.timeline import Clip, Event, Rule, Timeline, TimelineError, actions
from tests.data_pipeline.sources.shapes import (
    PUBLISHED,
    RAW,
    STREAMO_RAW,
    STREAMO_STREAM,
    as_lines,
    as_list,
)
from tests.joyvl_train.videos import make_video


def test_every_published_form_is_read_as_training_reads_it(tmp_path):
    path = as_list(tmp_path / "all.json", PUBLISHED)
    made = list(published.read(path, licence="CC-BY-4.0"))
    assert all(isinstance(one, Candidate) and one.status == "open" for one in made)
    assert [one.timeline for one in made] == list(read_published(path, Rejects()))
    assert made[0].licence == "CC-BY-4.0" and made[0].work["items"] == ["all.json item 0"]
    assert len({one.id for one in made}) == len(PUBLISHED)


def test_streamo_is_due_at_the_end_of_its_span_in_both_forms(tmp_path):
    raw, stream = published.read(as_lines(tmp_path / "s.jsonl", [STREAMO_RAW, STREAMO_STREAM]))
    assert raw.timeline.of("assistant")[0].second == 6
    assert [(e.role, e.second) for e in stream.timeline.events] == [("user", 0), ("assistant", 3)]
    span = {"content": "Ann.", "st_time": 2.0, "end_time": 3.0, "time": ""}
    as_raw = timeline_of({**STREAMO_RAW, "response": [span]})
    assert as_raw.of("assistant")[0].second == stream.timeline.of("assistant")[0].second


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/etc/passwd", "outside the folder"),
        ("../a.mp4", "outside the folder"),
        ("a/../../b.mp4", "outside the folder"),
        ("..\\a.mp4", "outside the folder"),
        ("C:/a.mp4", "outside the folder"),
        ("~/a.mp4", "outside the folder"),
        ("https://x.org/a.mp4", "no local file"),
        ("file:a.mp4", "no local file"),
        ("a/b file:///c.mp4", "no local file"),
        ("concat:a|b", "no local file"),
        ("a.zip", "inside an archive"),
        ("a.tar.gz/b.mp4", "inside an archive"),
        ("a.ZIP::b.mp4", "inside an archive"),
        ("a.zip!b.mp4", "inside an archive"),
        ("a\0.mp4", "odd path"),
        ("a" * 300, "odd path"),
        ("\udcff.mp4", "not UTF-8"),
    ],
)
def test_videos_that_lie_elsewhere_are_refused(tmp_path, path, reason):
    records = [{**RAW, "video_path": path}, {**RAW, "video_path": "Part: a..b/c.mp4"}]
    refused, fine = published.read(as_list(tmp_path / "x.json", records))
    assert isinstance(refused, Refused) and refused.reason == reason
    assert isinstance(fine, Candidate)


def test_pictures_that_lie_elsewhere_are_refused(tmp_path):
    turn = [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": "</silence>"}]
    records = [{"messages": turn, "images": [p]} for p in ("http://x/a.jpg", "a.zip/a.jpg", "/a")]
    results = list(published.read(as_list(tmp_path / "x.json", records)))
    found = ["no local file", "inside an archive", "outside the folder"]
    assert [one.reason for one in results] == found


def test_with_the_videos_at_hand_records_are_held_against_them(tmp_path):
    make_video(tmp_path / "a.mp4", [k / 5 for k in range(40)])
    make_video(tmp_path / "b.mp4", [k / 5 for k in range(100)])
    records = [{**RAW, "video_path": name} for name in ("a.mp4", "b.mp4")]
    short = {**RAW, "video_path": "b.mp4", "duration": 15.0}
    path = as_list(tmp_path / "x.json", [*records, short])
    late, fine, part = published.read(path, published.Videos(tmp_path))
    assert late.reason == "past the end"
    assert fine.timeline.clip.duration == pytest.approx(20.0)
    assert part.timeline.clip.duration == 15.0


# Out again.

words = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=8)
times = st.floats(0, 3, allow_nan=False).map(lambda x: round(x, 3))
rules = st.builds(Rule, st.sampled_from(["exact", "key_facts"]), st.lists(words).map(tuple))


@st.composite
def timelines(draw):
    """Whatever a timeline can hold in plain data, texts being on one line."""
    seconds = draw(st.integers(1, 12))
    due = draw(st.lists(st.integers(0, seconds - 1), unique=True, max_size=5))
    events: list[Event] = []
    more = {"early": st.none() | st.integers(0, 3), "late": st.none() | st.integers(0, 3)}
    for n, second in enumerate(due):
        time = second + draw(st.sampled_from([0, 0.25, 0.5, 0.1, 1 / 3, 1 - 2**-40]))
        until = draw(st.none() | st.integers(second + 1, seconds) | st.just(second + 1 + 1e-9))
        question = draw(st.none() | words)
        repeat = until is not None and question is None and draw(st.booleans())
        told = {name: draw(values) for name, values in more.items()}
        rule = draw(st.none() | rules)
        event = Event(
            f"r{n}", time, "assistant", draw(words), question, until, repeat, None, rule, **told
        )
        events.append(event)
        if question is not None and second + 1 < seconds and draw(st.booleans()):
            when = float(draw(st.integers(second + 1, seconds - 1)))
            events.append(Event(f"b{n}", when, "background", draw(words), answers=event.id))
    for n in range(draw(st.integers(0, 3))):
        time = draw(st.floats(0, seconds - 0.01).map(lambda x: round(x, 3)))
        events.append(Event(f"q{n}", min(time, seconds - 0.001), "user", draw(words)))
    ids = [event.id for event in events]
    events = [
        replace(e, answers=draw(st.none() | st.sampled_from(ids))) if e.role == "assistant" else e
        for e in draw(st.permutations(events))
    ]
    where = draw(
        st.sampled_from(
            [{}, {"video": "v/a.mp4"}, {"images": ("", "a/1.jpg")}, {"scene": {"w": [1]}}]
        )
    )
    meta = draw(st.dictionaries(words, st.integers() | words, max_size=2))
    opening = draw(st.just("") | words)
    # What the published form tells from the video's start is told from the clip's here.
    offset = 0 if "scene" in where else draw(st.sampled_from([0, 7, 3000]))
    length = draw(st.none() | st.sampled_from([float(seconds), seconds - 0.01 / 3]))
    if length is not None and any(event.time >= length for event in events):
        length = float(seconds)
    clip = Clip(draw(words), length, **where, offset=offset)
    family, source = draw(words), draw(words)
    return Timeline(
        clip,
        family,
        source,
        tuple(events),
        draw(st.sampled_from([1.0, 2.0])),
        opening,
        meta=meta,
    )


@settings(deadline=None, max_examples=300)
@given(timelines())
def test_our_records_go_out_in_the_published_form_and_come_back_equal(timeline):
    try:
        text = raw_text(timeline)
    except TimelineError as error:
        # Such a repeat, past the end, or a text that is no action, training refuses as well.
        assert error.reason in ("past the end", "format"), error
        return
    back = timeline_of(json.loads(text))
    assert back == timeline
    assert actions(back, 12) == actions(timeline, 12)


def test_the_published_fields_alone_tell_what_is_said_when():
    events = (
        Event("ask", 0, "user", "Tell me while it burns."),
        Event("on", 2.5, "assistant", "It burns.", until=6.0, repeat=True, answers="ask"),
        Event("new", 4, "assistant", "It grows.", answers="ask", late=3),
    )
    timeline = Timeline(Clip("c", 9.0, video="c.mp4"), "alerting", "made", events)
    record = json.loads(raw_text(timeline))
    assert [entry["time"] for entry in record["response"]] == ["2.5,3,5", "4"]
    for entry in record["question"] + record["response"]:
        del entry["event"]
    record.pop("timeline", None)
    assert actions(timeline_of(record)) == actions(timeline)


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        {"language": 1},
        {"licence": ""},
        {"summaries": "text"},
        {"summaries": [[0, 4]]},
        {"summaries": [[0, 4.5, "text"]]},
        {"summaries": [[0, True, "text"]]},
        {"summaries": [[0, 4, " "]]},
        {"more": 1},
    ],
)
def test_what_a_record_tells_beside_its_timeline_is_looked_at(told, tmp_path):
    ask = Event("ask", 0, "user", "What is it?")
    record = json.loads(raw_text(Timeline(Clip("c", 9.0, video="c.mp4"), "qa", "made", (ask,))))
    path = tmp_path / "data.json"
    for item, kind in ((record, Candidate), ({**record, "record": told}, Refused)):
        path.write_text(json.dumps([item]))
        (found,) = published.read(path)
        assert isinstance(found, kind)
    assert found.reason in ("shape", "no object", "empty text")


def test_published_times_are_the_videos_and_ours_the_clips():
    events = (
        Event("ask", 1.25, "user", "Tell me while it burns."),
        Event("on", 2.5, "assistant", "It burns.", until=6.0, repeat=True, answers="ask"),
        Event("out", 7, "assistant", "It is out.", until=8.5, answers="ask"),
    )
    timeline = Timeline(Clip("c", 9.0, video="c.mp4", offset=3000), "alerting", "made", events)
    record = json.loads(raw_text(timeline))
    assert [entry["time"] for entry in record["question"]] == ["3001.25"]
    assert [entry["time"] for entry in record["response"]] == ["3002.5,3003,3004,3005", "3007"]
    assert record["response"][1]["until"] == 3008.5
    assert (record["clip_offset"], record["duration"]) == (3000, 3009.0)
    for bad in (-1, 1.5, "3000", True, 10**6, 3008):
        with pytest.raises(TimelineError):
            timeline_of({**record, "clip_offset": bad})
    # Who knows nothing of clips reads a record of the whole video.
    for entry in (record, *record["question"], *record["response"]):
        for ours in ("clip_offset", "event", "timeline"):
            entry.pop(ours, None)
    whole = timeline_of(record)
    assert whole.clip == Clip("c", 3009.0, video="c.mp4")
    assert actions(whole)[3000:] == actions(timeline)


def test_all_families_of_the_world_come_back_equal_and_training_reads_them(tmp_path):
    made = list(world.read(18, seed=3, seconds=12))
    rejects = Rejects()
    assert write_published(made, tmp_path / "out.json", rejects) == 18 and not rejects.total
    back = list(published.read(tmp_path / "out.json"))
    assert [one.timeline for one in back] == [one.timeline for one in made]
    corpus = open_corpus(tmp_path / "out.json", cache_dir=tmp_path / "cache")
    assert len(corpus) == 18
    assert [corpus.timeline(n) for n in range(18)] == [one.timeline for one in made]


def test_what_the_form_can_not_hold_is_rejected_not_changed(tmp_path):
    def candidate(timeline: Timeline) -> Candidate:
        return Candidate(id_of(timeline.clip.id), timeline)

    def asked(text: str, **more) -> Timeline:
        return Timeline(Clip("c"), "qa", "made", (Event("q", 0, "user", text),), **more)

    given_in = [
        candidate(asked("Who\nis it?")),
        candidate(asked("Who?", meta={"kept": (1, 2)})),
        candidate(asked("Who?", meta={"bad": {1, 2}})),
        candidate(asked("\ud800")),
        candidate(asked("Who?")).rejected("window", "no event"),
        candidate(asked("Who?")),
    ]
    rejects = Rejects()
    assert write_published(given_in, tmp_path / "out.json", rejects) == 1
    assert rejects.counts == {
        "not in the published form": 2,
        "not JSON": 1,
        "not UTF-8": 1,
        "rejected": 1,
    }
    (back,) = published.read(tmp_path / "out.json")
    assert back.timeline == given_in[-1].timeline
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json"]


def event(**more) -> dict:
    said = {"content": "It burns.", "time": "5,6", "event": {"id": "a", **more}}
    return {**RAW, "response": [said]}


@pytest.mark.parametrize(
    ("reason", "record"),
    [
        ("shape", {**RAW, "response": [{"content": "x", "time": 5, "event": 5}]}),
        ("shape", event()),
        ("shape", event(repeat=True)),
        ("shape", event(repeat=1, until=7)),
        ("shape", event(repeat=True, until=5.5)),
        ("shape", event(repeat=True, until=7, colour="red")),
        ("shape", event(repeat=True, until=7, id="")),
        ("shape", event(repeat=True, until=7, answers=[])),
        ("shape", event(repeat=True, until=7, rule="exact")),
        ("shape", event(repeat=True, until=7, rule={"kind": "exact", "facts": "x"})),
        ("unknown rule", event(repeat=True, until=7, rule={"kind": []})),
        ("bad window", event(repeat=True, until=7, early=10**400)),
        ("time is no number", event(repeat=True, until=float("inf"))),
        ("time past a day", event(repeat=True, until=10**400)),
        ("answers nothing", event(repeat=True, until=7, answers="b")),
        ("shape", {**RAW, "timeline": []}),
        ("shape", {**RAW, "timeline": {"order": ["q0"]}}),
        ("shape", {**RAW, "timeline": {"order": 5}}),
        ("shape", {**RAW, "timeline": {"meta": []}}),
        ("shape", {**RAW, "timeline": {"family": 5}}),
        ("shape", {**RAW, "timeline": {"scene": []}}),
        ("shape", {**RAW, "timeline": {"images": "ab"}}),
        ("shape", {**RAW, "timeline": {"x": 1}}),
        ("bad frame rate", {**RAW, "timeline": {"frames_per_second": "1"}}),
        ("several frame sources", {**RAW, "timeline": {"images": ["a.jpg"]}}),
        ("outside the folder", {**RAW, "timeline": {"images": ["/a.jpg"]}, "video_path": ""}),
    ],
)
def test_extensions_that_make_no_sense_are_rejected(reason, record):
    with pytest.raises(TimelineError) as error:
        timeline_of(record)
    assert error.value.reason == reason
