"""Questions on videos, with options and without."""

from __future__ import annotations

import pytest

from data_pipeline.candidates import Candidate, Refused
from data_pipeline.sources import video_qa
from data_pipeline.sources.videos import Videos
from joyvl_train.content import right
from tests.data_pipeline.sources.shapes import VIDEO_QA, as_list
from tests.joyvl_train.videos import make_video

CHOICE, OPEN = VIDEO_QA


def read(tmp_path, *records, videos=None):
    return list(video_qa.read(as_list(tmp_path / "qa.json", list(records)), videos))


@pytest.mark.parametrize("answer", ["blue", "B", "b", "(B)", "B.", "B. blue", "B) blue", 1])
def test_a_choice_is_answered_by_its_text_and_right_by_letter_too(tmp_path, answer):
    (one,) = read(tmp_path, {**CHOICE, "answer": answer})
    asked, said = one.timeline.events
    assert asked.text == "Which colour is the car? A. red. B. blue."
    assert (said.text, asked.second, said.second) == ("blue", 12, 12)
    assert right(said.rule, said.text, "B") and right(said.rule, said.text, "Blue.")
    assert not right(said.rule, said.text, "red")


def test_letters_that_options_bring_along_are_not_doubled(tmp_path):
    options = ["A. red", "(B) blue", "C: green"]
    one, two = read(
        tmp_path,
        {**CHOICE, "options": options},
        {**CHOICE, "options": [*options, "grey"], "answer": "grey"},
    )
    assert one.timeline.events[0].text == "Which colour is the car? A. red. B. blue. C. green."
    assert "D. grey." in two.timeline.events[0].text and "A. A. red." in two.timeline.events[0].text


def test_a_text_that_is_a_letter_is_taken_as_the_text(tmp_path):
    (one,) = read(tmp_path, {**CHOICE, "options": ["B", "A"], "answer": "B"})
    assert one.timeline.events[1].text == "B" and right(one.timeline.events[1].rule, "B", "A. B")


def test_a_question_on_the_whole_video_is_asked_in_its_last_second(tmp_path):
    make_video(tmp_path / "a.mp4", [k / 5 for k in range(37)])
    told = {**OPEN, "duration": None, "video": "a.mp4"}
    (one,) = read(tmp_path, OPEN)
    assert [e.second for e in one.timeline.events] == [29, 29]
    (probed,) = read(tmp_path, told, videos=Videos(tmp_path))
    assert [e.second for e in probed.timeline.events] == [7, 7]
    (none,) = read(tmp_path, told)
    assert none.reason == "no time"


def test_an_answer_may_come_later(tmp_path):
    (one,) = read(tmp_path, {**OPEN, "time": "0:05", "answer_time": 9.9, "language": "de"})
    assert [e.second for e in one.timeline.events] == [5, 9] and one.language == "de"


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("no such option", {"answer": "green"}),
        ("no such option", {"answer": 2}),
        ("no such option", {"answer": -1}),
        ("no such option", {"answer": "C"}),
        ("no such option", {"answer": "A. blue"}),
        ("no such option", {"options": ["red", "red"], "answer": "red"}),
        ("shape", {"answer": True}),
        ("shape", {"answer": None}),
        ("shape", {"options": "ab"}),
        ("shape", {"options": [1, 2]}),
        ("empty text", {"question": " "}),
        ("no video", {"video": ""}),
        ("bad duration", {"duration": 0}),
        ("bad duration", {"duration": float("nan")}),
        ("past the end", {"duration": 12}),
        ("time is no number", {"time": "noon"}),
        ("answer before its question", {"answer_time": 11}),
        ("shape", {"family": 5}),
    ],
)
def test_records_that_can_not_be_used_are_refused(tmp_path, reason, change):
    bad, fine = read(tmp_path, {**CHOICE, **change}, CHOICE)
    assert isinstance(bad, Refused) and bad.reason == reason
    assert isinstance(fine, Candidate)
