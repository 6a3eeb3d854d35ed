"""Published annotation forms, in and out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from joyvl_train.actions import Delegation, Response, Silence
from joyvl_train.frames import FrameError
from joyvl_train.published import (
    read_published,
    timeline_of,
)
from joyvl_train.records import Rejects, settle
from joyvl_train.timeline import Clip, Timeline, TimelineError, actions, to_json


def raw(*responses: dict, questions: list | None = None, **more) -> dict:
    asked = [{"content": "Tell me when it burns.", "time": "1"}] if questions is None else questions
    return {
        "video_name": "a.mp4",
        "video_path": "videos/a.mp4",
        "task_type": "Proactive Alert",
        "source": "made",
        "question": asked,
        "response": list(responses),
        **more,
    }


def said(content: str = "It burns.", time="5", **more) -> dict:
    return {"content": content, "time": time, **more}


def spoken(timeline: Timeline) -> list[tuple]:
    return [(e.time, e.text, e.until, e.repeat) for e in timeline.of("assistant")]


# The raw form.


def test_a_raw_record_becomes_a_timeline():
    timeline = timeline_of(raw(said(time="5.5")))
    query, response = timeline.events
    assert (query.time, query.role, query.text) == (1.0, "user", "Tell me when it burns.")
    assert (response.second, response.role, response.text) == (5, "assistant", "It burns.")
    assert response.answers == query.id
    assert (timeline.family, timeline.source) == ("proactive_alert", "made")
    assert timeline.clip == Clip("a.mp4", None, video="videos/a.mp4")


@pytest.mark.parametrize(
    ("time", "wanted"),
    [
        ("5", [(5, None, False)]),
        (5, [(5, None, False)]),
        (5.25, [(5.25, None, False)]),
        ("5,6,7", [(5, 8, True)]),
        (" 5 , 6 ", [(5, 7, True)]),
        ([5, 6, 7], [(5, 8, True)]),
        ("7,5,6", [(5, 8, True)]),
        ("5.5,6.2", [(5.5, 7, True)]),
        ("5,7,8,12", [(5, None, False), (7, 9, True), (12, None, False)]),
    ],
)
def test_consecutive_times_repeat_and_others_are_events_of_their_own(time, wanted):
    timeline = timeline_of(raw(said(time=time), duration=20))
    assert [(t, until, repeat) for t, _, until, repeat in spoken(timeline)] == wanted
    seconds = [t for t, action in enumerate(actions(timeline)) if action != Silence()]
    parts = time.split(",") if isinstance(time, str) else time if isinstance(time, list) else [time]
    assert seconds == sorted(math.floor(float(part)) for part in parts)


def test_a_response_with_a_span_is_due_at_its_end():
    record = raw({"content": "Red.", "st_time": 5.0, "end_time": 6.0, "time": ""})
    assert spoken(timeline_of(record)) == [(6.0, "Red.", None, False)]


def test_a_question_written_again_before_any_answer_is_one_query():
    twice = [{"content": "What is it?", "time": "0"}, {"content": "What is it?", "time": "4"}]
    timeline = timeline_of(raw(said(time="6"), questions=twice))
    assert [e.time for e in timeline.of("user")] == [0.0]
    assert timeline.meta["repeated_queries"] == 1
    again = timeline_of(raw(said(time="2"), said("Blue.", "6"), questions=twice))
    assert [e.time for e in again.of("user")] == [0.0, 4.0]
    assert [e.answers for e in again.of("assistant")] == ["q0", "q1"]


def test_what_a_response_answers_is_left_open_where_it_is_not_clear():
    asked = [{"content": "Tell me of fire.", "time": 0}, {"content": "Who is it?", "time": 3}]
    timeline = timeline_of(
        raw(said("Ann.", 3), said("Fire.", 6), said("Fire.", 9), questions=asked)
    )
    assert [e.answers for e in timeline.of("assistant")] == [None, None, None]


def test_line_breaks_are_folded():
    assert spoken(timeline_of(raw(said(" two\n lines "))))[0][1] == "two lines"


BAD_RAW = [
    ("time is no number", raw(said(time="soon"))),
    ("time is no number", raw(said(time="nan"))),
    ("time is no number", raw(said(time=float("nan")))),
    ("time is no number", raw(said(time=float("inf")))),
    ("time is no number", raw(said(time="1_0"))),
    ("time is no number", raw(said(time="5,,6"))),
    ("time is no number", raw(said(time="5-7"))),
    ("time is no number", raw(said(time=None))),
    ("time is no number", raw(said(time=""))),
    ("time is no number", raw(said(time=True))),
    ("time is no number", raw(said(time=[[5]]))),
    ("time is no number", raw(said(), questions=[{"content": "Who?"}])),
    ("time is no number", raw(said(), questions=[{**said("Who?", []), "end_time": []}])),
    ("time is no number", raw({**said(time=[]), "end_time": []})),
    ("time is no number", raw({**said(time=[]), "end_time": [], "event": {"id": "r"}})),
    (
        "time is no number",
        raw({**said(time=[]), "end_time": [], "event": {"id": "r", "time": 1}}, clip_offset=1),
    ),
    ("shape", raw(said(time="5.5", event={"id": "r", "time": 10**400}), clip_offset=1)),
    ("negative time", raw(said(time="-1"))),
    ("past the end", raw(said(time="1e300"))),
    ("past the end", raw(said(time=10**400))),
    ("past the end", raw(said(time="20"), duration=20.0)),
    ("past the end", raw(said(time="3"), questions=[said("Who?", "99")], duration=20)),
    ("past the end", raw(said(time="18,19,20"), duration=20)),
    ("two in one second", raw(said(time="5.1"), said("Smoke.", "5.9"))),
    ("two in one second", raw(said(time="5,5.5"))),
    ("two in one second", raw(said(time="5,6,7"), said("Smoke.", "6"))),
    ("empty text", raw(said(" "))),
    ("empty text", raw(said(), questions=[{"content": "\n", "time": 1}])),
    ("shape", raw(said(None))),
    ("shape", raw(said(["a"]))),
    ("shape", raw(questions="Who is it?")),
    ("shape", raw("It burns.")),
    ("format", raw(said("a </silence> b"))),
    ("format", raw(said("</response> a"))),
    ("not UTF-8", raw(said("\ud800"))),
    ("bad duration", raw(said(), duration="20")),
    ("bad duration", raw(said(), duration=0)),
    ("bad duration", raw(said(), duration=float("nan"))),
    ("ends before it starts", raw(said(time=5, until=3))),
    ("answers nothing", raw(said(), background=[said("7", 8, delegation=1)])),
    (
        "result before its delegation",
        raw(said(time=9, delegation="How many?"), background=[said("7", 8, delegation=1)]),
    ),
    ("unknown form", {"video": "a.mp4", "sentences": []}),
    ("unknown form", {}),
    ("no object", ["a"]),
    ("no object", None),
]


@pytest.mark.parametrize(("reason", "record"), BAD_RAW)
def test_raw_records_that_can_not_be_used_are_rejected_with_a_reason(reason, record):
    with pytest.raises(TimelineError) as error:
        timeline_of(record)
    assert error.value.reason == reason


def test_a_run_is_checked_when_the_length_is_known():
    timeline = timeline_of(raw(said(time="18,19,20")))
    with pytest.raises(TimelineError, match="past the end"):
        settle(timeline, Length(20))
    assert settle(timeline, Length(21)).clip.duration == 21.0


class Length:
    """Frames of which only the number of seconds matters."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def frames(self, second: int) -> tuple:
        return ()


# Chats.


def chat(*turns: tuple[str, str], **more) -> dict:
    messages = []
    for user, assistant in turns:
        messages += [
            {"role": "user", "content": user},
            {"role": "assistant", "content": assistant},
        ]
    images = sum(user.count("<image>") for user, _ in turns)
    return {
        "messages": messages,
        "images": [f"f/{k}.jpg" for k in range(images)],
        "video_name": "a.mp4",
        "task_type": "qa",
        "source": "made",
        **more,
    }


QUIET = "</silence>"


def test_a_chat_becomes_a_timeline():
    timeline = timeline_of(
        chat(
            (
                "What is 17 * 3?\n<0.0 seconds>\n<image><image>",
                "</response> A moment. </delegation> 17*3?",
            ),
            ("<1.0 seconds>\n<image><image>", QUIET),
            ("[Background 1] 51\n<2.0 seconds>\n<image><image>", "</response> 51."),
            ("<3.0 seconds>\n<image><image>", "</response> 51."),
        )
    )
    assert actions(timeline) == [
        Delegation("A moment.", "17*3?"),
        Silence(),
        Response("51."),
        Response("51."),
    ]
    (result,) = timeline.of("background")
    assert (result.text, result.time, result.answers) == ("51", 2.0, "r0")
    assert spoken(timeline)[1] == (2.0, "51.", 4.0, True)
    assert timeline.clip.images == tuple(f"f/{k}.jpg" for k in range(8))
    assert (timeline.frames_per_second, timeline.clip.duration) == (2.0, 4.0)


def test_seconds_left_out_and_short_ones_keep_their_places_empty():
    timeline = timeline_of(
        chat(
            ("<1.0 seconds>\n<image>", QUIET),
            ("<3.0 seconds>\n<image><image>", "</response> Now."),
        )
    )
    assert timeline.clip.images == ("", "", "", "f/0.jpg", "", "", "f/1.jpg", "f/2.jpg")
    assert timeline.clip.duration == 4.0


def test_turns_without_times_are_counted():
    timeline = timeline_of(chat(("Hi\n<image>", QUIET), ("<image>", "</response> Hello.")))
    assert [e.time for e in timeline.events] == [0.0, 1.0]


def test_the_system_prompt_and_the_opening_are_kept():
    record = chat(("<image>", QUIET), opening="Earlier: a dog.")
    record["messages"].insert(0, {"role": "system", "content": "Watch."})
    timeline = timeline_of(record)
    assert timeline.meta["system"] == "Watch." and timeline.opening == "Earlier: a dog."


def with_messages(*messages) -> dict:
    return {**chat(("<image>", QUIET)), "messages": list(messages)}


ONE = {"role": "user", "content": "<image>"}
TWO = {"role": "assistant", "content": QUIET}
LONG = "<86401.0 seconds>\n<image>"

BAD_CHAT = [
    ("images and turns differ", chat(("<image>", QUIET), images=[])),
    ("images and turns differ", chat(("<image>", QUIET), images=["a.jpg", "b.jpg"])),
    ("images and turns differ", chat(("<0.0 seconds>", QUIET), images=["a.jpg"])),
    ("format", chat(("<image>", "Hello"))),
    ("format", chat(("<image>", ""))),
    ("format", chat(("<image>", "</silence> well"))),
    ("format", chat(("<image>", "</response> a </delegation> b </delegation> c"))),
    ("turn of no second", chat(("<0.5 seconds>\n<image>", QUIET))),
    ("turn of no second", chat(("<0.0 seconds>\n<image>", QUIET), ("<image>", QUIET))),
    (
        "two in one second",
        chat(("<1.0 seconds>\n<image>", QUIET), ("<1.0 seconds>\n<image>", QUIET)),
    ),
    (
        "turns out of order",
        chat(("<1.0 seconds>\n<image>", QUIET), ("<0.0 seconds>\n<image>", QUIET)),
    ),
    ("past the end", chat((LONG, QUIET))),
    ("past the end", chat((f"<{'9' * 400}.0 seconds>\n<image>", QUIET))),
    ("past the end", chat((f"[Background {'9' * 5000}] x\n<0.0 seconds>\n<image>", QUIET))),
    ("past the end", chat((f"<{'9' * 400}s-{'9' * 400}s>\n<stream>", "</Silence>"))),
    ("answers nothing", chat(("[Background 1] 5\n<0.0 seconds>\n<image>", QUIET))),
    ("no pairs of turns", with_messages()),
    ("no pairs of turns", with_messages(ONE)),
    ("no pairs of turns", with_messages(TWO, ONE)),
    ("no pairs of turns", with_messages(ONE, TWO, ONE)),
    ("shape", with_messages("hello")),
    ("shape", with_messages({"role": "user", "content": None})),
    ("shape", {**chat(("<image>", QUIET)), "messages": {}}),
    ("shape", chat(("<image>", QUIET), images=[5])),
    ("shape", chat(("<image>", QUIET), images="a.jpg")),
    ("outside the folder", chat(("<image>", QUIET), images=["../a.jpg"])),
    ("outside the folder", chat(("<image>", QUIET), images=["/etc/passwd"])),
    ("bad frame rate", chat(("<image>" * 61, QUIET))),
]


@pytest.mark.parametrize(("reason", "record"), BAD_CHAT)
def test_chats_that_can_not_be_used_are_rejected_with_a_reason(reason, record):
    with pytest.raises((TimelineError, FrameError)) as error:
        timeline_of(record)
    assert error.value.reason == reason


def streamo(*turns: tuple[str, str]) -> dict:
    record = chat(*turns)
    del record["images"]
    return {**record, "videos": ["v/a.mp4"]}


def test_streamos_training_form_is_read():
    timeline = timeline_of(
        streamo(
            ("What is it?\n<0s-1s>\n<stream>", "</Silence>"),
            ("What is it?\n<1s-2s>\n<stream>", "</Standby>"),
            ("<2s-3s>\n<stream>", "</Response> A cat."),
            ("<3s-4s>\n<stream>", "</Silence>"),
        )
    )
    assert [(e.time, e.text) for e in timeline.events] == [(0.0, "What is it?"), (2.0, "A cat.")]
    assert timeline.clip == Clip("a.mp4", 4.0, video="v/a.mp4")
    for assistant in ("A cat.", "</Silence> no", "</Response>"):
        with pytest.raises(TimelineError) as error:
            timeline_of(streamo(("<0s-1s>\n<stream>", assistant)))
        assert error.value.reason == "format"
    with pytest.raises(TimelineError, match="turn of no second"):
        timeline_of(streamo(("<0s-2s>\n<stream>", "</Silence>")))


# Timelines as plain data.


def plain(**more) -> dict:
    event = {"id": "a", "time": 2.5, "role": "assistant", "text": "Fire.", "until": 4.0}
    return {
        "clip": {"id": "c", "video": "v/c.mp4"},
        "family": "alerting",
        "source": "made",
        "events": [event],
        **more,
    }


def test_timelines_as_plain_data_are_read_as_they_are():
    timeline = timeline_of(plain(meta={"id": 5}))
    assert spoken(timeline) == [(2.5, "Fire.", 4.0, False)] and timeline.meta == {"id": 5}
    assert timeline_of(json.loads(json.dumps(to_json(timeline)))) == timeline


BAD_PLAIN = [
    ("shape", plain(events=5)),
    ("shape", plain(events=["a"])),
    ("shape", plain(clip=[["id", "c"]])),
    ("shape", plain(clip={"id": 5})),
    ("shape", plain(clip={"id": "c", "images": "ab"})),
    ("shape", plain(clip={"id": "c", "scene": 5})),
    ("shape", plain(family=5)),
    ("shape", plain(meta=5)),
    ("shape", plain(colour="red")),
    ("shape", plain(events=[{**plain()["events"][0], "repeat": 1}])),
    ("shape", plain(events=[{**plain()["events"][0], "rule": {"kind": "exact", "facts": "ab"}}])),
    ("outside the folder", plain(clip={"id": "c", "images": ["/a.jpg"]})),
    ("result of no delegation", plain(events=[{**plain()["events"][0], "role": "background"}])),
    ("evaluation only", plain(meta={"use": "evaluation"})),
]


@pytest.mark.parametrize(("reason", "record"), BAD_PLAIN)
def test_plain_data_that_can_not_be_used_is_rejected_with_a_reason(reason, record):
    with pytest.raises(TimelineError) as error:
        timeline_of(record)
    assert error.value.reason == reason


def test_videos_of_plain_data_lie_in_the_root(tmp_path):
    with pytest.raises(FrameError, match="outside the folder"):
        timeline_of(plain(clip={"id": "c", "video": "../c.mp4"}), root=tmp_path)
    assert timeline_of(plain(), root=tmp_path).clip.video == "v/c.mp4"


# Files.


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_items_read_are_those_written_and_rejected(tmp_path):
    records = [record for _, record in BAD_RAW if _ != "not UTF-8"]
    records += [record for _, record in BAD_CHAT] + [raw(said()), chat(("<image>", QUIET))]
    path = write(tmp_path / "all.json", json.dumps(records))
    rejects = Rejects(tmp_path / "rejects.jsonl")
    assert len(list(read_published(path, rejects))) == 2
    assert rejects.total == len(records) - 2
    lines = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert len(lines) == rejects.total
    assert {line["reason"] for line in lines} == set(rejects.counts)
    assert len({line["item"] for line in lines}) == len(lines)


def test_published_samples_of_streamo_are_read():
    data = Path(__file__).parents[3] / "shared/data"
    if not data.is_dir():
        pytest.skip("the published samples are not at hand")
    rejects = Rejects()
    one, two = read_published(data / "streamo_raw_sample.json", rejects)
    assert (one.of("user")[0].time, one.of("assistant")[0].time) == (5.0, 6.0)
    (trained,) = read_published(data / "streamo_stream_sample.json", rejects)
    assert trained.of("assistant")[0].second == one.of("assistant")[0].second
    assert len(trained.of("user")) == 1 and not rejects.total


def test_a_run_started_again_writes_no_reject_twice(tmp_path):
    path = write(tmp_path / "x.json", json.dumps([raw(said(time="nan")), raw(said())]))
    for _ in range(2):
        rejects = Rejects(tmp_path / "r.jsonl")
        assert len(list(read_published(path, rejects))) == 1
        assert rejects.counts == {"time is no number": 1}
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 1


def test_memory_is_bounded_by_an_item(tmp_path):
    import tracemalloc

    path = tmp_path / "big.json"
    record = json.dumps(raw(said("x" * 10_000)))
    with path.open("w") as file:
        file.write("[" + ",".join([record] * 2000) + "]")
    assert path.stat().st_size > 20_000_000
    tracemalloc.start()
    assert sum(1 for _ in read_published(path, Rejects())) == 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000
