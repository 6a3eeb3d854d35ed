"""Subtitles and recognized speech: lines at their exact times, pauses as silence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.candidates import Candidate, Refused
from data_pipeline.sources import speech, subtitles
from data_pipeline.sources.speech import Utterance, commentary, utterances
from data_pipeline.sources.subtitles import cues_of
from data_pipeline.sources.videos import Videos
from data_pipeline.sources.wordings import COMMENT, READ, TRANSLATE
from joyvl_train.config import UserError
from joyvl_train.timeline import Clip, TimelineError
from joyvl_train.video import FrameError
from tests.joyvl_train.videos import make_video

SRT = """1
00:00:01,200 --> 00:00:03,900
<i>Hello</i> there,
{\\an8}who are you?

2
00:00:05,000 --> 00:00:06,000  X1:40 Y1:20
I&#39;m <font color="red">Ann</font>.

"""
VTT = """WEBVTT - a talk
Kind: captions

STYLE
::cue { color: red }

NOTE made by hand
over two lines

intro
00:01.200 --> 00:03.900 align:start line:0
<v Ann><c.loud>Hello</c> <00:00:02.000>there, who are you?

01:00:05.000 --> 01:00:06.000
I'm Ann.
"""


def file(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def said(one: Candidate) -> list[tuple]:
    return [(e.time, e.until, e.text) for e in one.timeline.of("assistant")]


def reasons(results) -> list[str]:
    return [one.reason for one in results if isinstance(one, Refused)]


def blocks(*told: tuple[float, float, str]) -> str:
    def clock(x: float) -> str:
        return f"00:00:{x:06.3f}".replace(".", ",")

    return "".join(
        f"{n}\n{clock(start)} --> {clock(end)}\n{text}\n\n"
        for n, (start, end, text) in enumerate(told, 1)
    )


def test_srt_becomes_lines_at_their_times(tmp_path):
    (one,) = subtitles.read(file(tmp_path / "talk.en.srt", SRT))
    assert said(one) == [(1.2, 3.9, "Hello there, who are you?"), (5.0, 6.0, "I'm Ann.")]
    asked = one.timeline.of("user")[0]
    assert asked.text in READ and asked.second <= 1
    assert one.timeline.clip == Clip("talk.mp4", None, video="talk.mp4")
    assert one.timeline.family == "commentary" and not one.timeline.meta
    assert one.work["items"] == ["talk.en.srt cue 0", "talk.en.srt cue 1"]


def test_webvtt_becomes_lines_at_their_times(tmp_path):
    (one,) = subtitles.read(file(tmp_path / "talk.vtt", VTT), task="comment")
    assert said(one) == [(1.2, 3.9, "Hello there, who are you?"), (3605.0, 3606.0, "I'm Ann.")]
    assert one.timeline.of("user")[0].text in COMMENT


@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_marks_and_line_ends_make_no_difference(tmp_path, code, end):
    path = file(tmp_path / "talk.srt", SRT.replace("\n", end).encode(code))
    assert said(next(subtitles.read(path)))[1] == (5.0, 6.0, "I'm Ann.")


def test_a_translation_of_what_is_heard_is_due_when_it_has_been_said(tmp_path):
    path = file(tmp_path / "talk.srt", blocks((1.2, 3.9, "Hallo."), (5, 7, "Wer ist da?")))
    (one,) = subtitles.read(path, task="translate", due="end", language="de")
    assert said(one) == [(3.9, None, "Hallo."), (7.0, None, "Wer ist da?")]
    assert [e.second for e in one.timeline.of("assistant")] == [3, 7]
    assert one.timeline.of("user")[0].text in {w.format(language="German") for w in TRANSLATE}
    assert (one.timeline.family, one.language) == ("translation", "de")


def test_cues_in_one_second_are_shifted_while_shown_or_refused_and_counted(tmp_path):
    path = file(
        tmp_path / "talk.srt",
        blocks(
            (1.1, 1.4, "One."),
            (1.5, 2.5, "Two."),
            (1.6, 1.9, "Three."),
            (4.0, 9.0, "Four."),
            (6.0, 7.0, "Five."),
            (6.9, 8.0, "Five."),
        ),
    )
    *refused, one = sorted(subtitles.read(path), key=lambda r: isinstance(r, Candidate))
    assert said(one) == [
        (1.1, 1.4, "One."),
        (2.0, 2.5, "Two."),
        (4.0, 9.0, "Four."),
        (6.0, 7.0, "Five."),
    ]
    assert one.timeline.meta == {"shifted_cues": 1, "overlapping_cues": 1}
    assert reasons(refused) == ["two in one second", "said already"]


def test_cues_that_can_not_be_used_are_refused_one_by_one(tmp_path):
    text = (
        "1\n00:00:01,000 --> 00:00:02,000\nFine.\n\n"
        "2\n00:00:03,000 --> 00:00:02,000\nBackwards.\n\n"
        "3\n00:00:aa --> 00:00:05,000\nNo time.\n\n"
        "4\n00:00:06,000 -->\nNo end.\n\n"
        "5\n00:00:07,000 --> 00:00:08,000\n<i> </i>\n\n"
        "6\n00:00:09,000 --> 00:00:10,000\n&lt;/silence&gt; now\n\n"
        "a stray line\n\n"
        "7\n00:00:11,000 --> 00:00:12,000\nNo line\n8\n00:00:13,000 --> 00:00:14,000\nbetween.\n"
    )
    results = list(subtitles.read(file(tmp_path / "talk.srt", text)))
    assert reasons(results) == [
        "ends before it starts",
        "time is no number",
        "time is no number",
        "empty text",
        "format",
        "no times",
    ]
    assert [text for _, _, text in said(results[-1])] == ["Fine.", "No line", "between."]


def test_files_without_cues_or_a_video_are_refused(tmp_path):
    subs, videos = tmp_path / "subs", tmp_path / "videos"
    (subs / "a").mkdir(parents=True)
    (videos / "a").mkdir(parents=True)
    make_video(videos / "a/talk.mkv", [k / 5 for k in range(22)])
    file(subs / "a/talk.en.srt", SRT)
    file(subs / "a/talk.vtt", "WEBVTT\n\n")
    file(subs / "bad.srt", b"\xff\xff\xff")
    file(subs / "other.srt", SRT)
    file(subs / "notes.txt", "x")
    results = list(subtitles.read(subs, Videos(videos)))
    assert reasons(results) == ["past the end", "nothing in it", "no video", "no video"]
    (one,) = (r for r in results if isinstance(r, Candidate))
    assert one.timeline.clip.video == "a/talk.mkv" and len(said(one)) == 1
    alone = list(subtitles.read(subs))
    assert reasons(alone) == ["nothing in it", "not UTF-8"]
    with pytest.raises(UserError, match="doesn't exist"):
        list(subtitles.read(tmp_path / "none.srt"))


def test_the_last_words_end_with_the_clip(tmp_path):
    make_video(tmp_path / "talk.mp4", [k / 5 for k in range(20)])
    file(tmp_path / "talk.srt", blocks((2.5, 4.0, "Bye.")))
    (one,) = subtitles.read(tmp_path / "talk.srt", Videos(tmp_path), due="end")
    assert one.timeline.clip.seconds == 4 and said(one)[0][0] == 3.0


@given(st.text(st.sampled_from("0123:,.->\n \r<>&;Wx</silence>"), max_size=200))
def test_any_text_is_read_to_its_end(text):
    for one in cues_of(text, "x.srt"):
        assert one.where.startswith("x.srt cue ")


# Speech.


def test_sentences_are_joined_and_pauses_are_silence():
    segments = [
        (0.4, 1.6, "The red car"),
        (1.8, 3.0, "takes the lead."),
        (3.1, 4.0, "What a race!"),
        (4.2, 4.7, "And"),
        (7.5, 9.0, "now it"),
        (9.1, 11.0, "is over."),
    ]
    (one,) = commentary(Clip("race", 12.0, video="race.mp4"), segments)
    assert said(one) == [
        (0.4, 3.0, "The red car takes the lead."),
        (3.1, 4.0, "What a race!"),
        (4.2, 4.7, "And"),
        (7.5, 11.0, "now it is over."),
    ]
    assert one.timeline.family == "commentary" and one.timeline.of("user")[0].second == 0
    assert len(one.work["items"]) == len(segments)


def test_what_begins_in_one_second_is_one_utterance():
    (one,) = commentary(Clip("c"), [(1.0, 1.3, "Go!"), (1.4, 1.9, "Go!"), (2.5, 3, "Go!")])
    assert said(one) == [(1.0, 1.9, "Go! Go!"), (2.5, 3, "Go!")]
    (one,) = commentary(Clip("c"), [(1.0, 1.3, "走"), (1.4, 1.9, "吧")], language="zh")
    assert said(one) == [(1.0, 1.9, "走吧")]


def test_speech_without_full_stops_is_parted_in_the_end():
    segments = [(2.0 * n, 2.0 * n + 1.9, "and on") for n in range(20)]
    (one,) = commentary(Clip("c"), segments, longest=10)
    assert all(until - time <= 10 for time, until, _ in said(one)) and len(said(one)) == 4


def test_segments_that_can_not_be_used_are_refused_one_by_one():
    bad = [
        (3, 2, "x"),
        (float("nan"), 2, "x"),
        (1, 2, ""),
        (1, 2),
        "abc",
        None,
        (1, 2, "a </response>"),
        (9.0, 9.5, "late"),
        (-1, 2, "x"),
        (1, None, "x"),
    ]
    *refused, one = commentary(Clip("c", 9.0), [*bad, (1.0, 2.0, "Fine.")])
    assert reasons(refused) == [
        "ends before it starts",
        "time is no number",
        "empty text",
        "shape",
        "shape",
        "shape",
        "format",
        "past the end",
        "negative time",
        "time is no number",
    ]
    assert said(one) == [(1.0, 2.0, "Fine.")]


def test_a_folder_of_videos_with_their_speech(tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        make_video(tmp_path / name, [k / 5 for k in range(20)])
    (tmp_path / "d.mp4").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "more").symlink_to(tmp_path)
    heard = {"a.mp4": [(0.5, 2, "Hello.")], "b.mp4": []}

    def transcribe(path: Path):
        if path.name not in heard:
            raise FrameError("no sound", path.name)
        return iter(heard[path.name])

    one, *refused = speech.read(Videos(tmp_path), transcribe, language="en")
    assert said(one) == [(0.5, 2, "Hello.")] and one.timeline.clip.seconds == 4
    assert [(r.where, r.reason) for r in refused] == [
        ("b.mp4", "no speech"),
        ("c.mp4", "no sound"),
        ("d.mp4", "not a video"),
        ("more", "link to a folder"),
    ]


@pytest.mark.parametrize(("language", "text"), [("en", "a b."), ("ko", "a b."), ("ja", "ab.")])
def test_segments_are_joined_as_their_language_is_written(language, text):
    (one,) = commentary(Clip("c", 9.0), [(1.0, 2.0, "a"), (2.1, 3.0, "b.")], language)
    assert said(one) == [(1.0, 3.0, text)]


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.srt")
    (tmp_path / "more").symlink_to(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    found = list(subtitles.read(tmp_path))
    assert reasons(found) == ["link to a folder", "no regular file"]


spans = st.tuples(
    st.floats(0, 60, allow_nan=False), st.floats(0, 5), st.sampled_from(["a", "b.", "c?"])
)


@given(st.lists(spans, max_size=30))
def test_no_word_is_lost_and_no_second_begins_two(told):
    given_in = [Utterance(s, s + d, text, (f"{n}",)) for n, (s, d, text) in enumerate(told)]
    joined = utterances(given_in)
    seconds = [int(one.start) for one in joined]
    assert seconds == sorted(set(seconds))
    assert sorted(i for one in joined for i in one.items) == sorted(
        str(n) for n in range(len(told))
    )
    assert sum(len(one.text.split()) for one in joined) == len(told)
    assert all(one.stop >= one.start for one in joined)


def test_a_refusal_of_the_recognizer_is_no_crash(tmp_path):
    make_video(tmp_path / "a.mp4", [0, 0.5, 1])

    def transcribe(path: Path):
        raise TimelineError("too long", path.name)

    (one,) = speech.read(Videos(tmp_path), transcribe)
    assert isinstance(one, Refused) and one.reason == "too long"
