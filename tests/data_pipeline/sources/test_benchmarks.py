"""OVO-Bench and StreamingBench: what is due when, what counts as right, and never in training."""

from __future__ import annotations

import json

import pytest

from data_pipeline.candidates import Refused
from data_pipeline.sources import ovo_bench, published, streamingbench
from joyvl_train.content import right
from joyvl_train.published import read_published, timeline_of
from joyvl_train.records import Rejects
from joyvl_train.timeline import TimelineError, to_json
from joyvl_train.timing import onset
from tests.data_pipeline.sources.shapes import (
    OVO,
    OVO_CLUE,
    OVO_REALTIME,
    OVO_REPETITIONS,
    OVO_STEPS,
    STREAMINGBENCH,
    as_list,
)


def ovo(tmp_path, *records):
    return list(ovo_bench.read(as_list(tmp_path / "ovo.json", list(records))))


def test_a_realtime_question_is_answered_in_its_second_by_letter_or_text(tmp_path):
    (one,) = ovo(tmp_path, OVO_REALTIME)
    asked, said = one.timeline.events
    assert (asked.second, said.second, one.timeline.family) == (54, 54, "qa")
    assert asked.text == "Which number is on the door? A. 7. B. 12. C. 21."
    for answer in ("12", "B", "B.", "b. 12", "It is 12."):
        assert right(said.rule, said.text, answer), answer
    for answer in ("7", "A", "21", "C. 12", "B or C"):
        assert not right(said.rule, said.text, answer), answer


def test_a_clue_is_waited_for(tmp_path):
    (one,) = ovo(tmp_path, OVO_CLUE)
    assert [(e.role, e.second) for e in one.timeline.events] == [("user", 297), ("assistant", 308)]
    assert one.timeline.meta["test_info"] == OVO_CLUE["test_info"]
    assert one.timeline.of("assistant")[0].text == "She hides it."


def test_each_step_is_named_at_its_start_and_held(tmp_path):
    (one,) = ovo(tmp_path, OVO_STEPS)
    asked, *said = one.timeline.events
    assert asked.second == 0 and "change a bulb" in asked.text
    assert "take out the old bulb; put in the new one" in asked.text
    assert [(e.second, e.until, e.text) for e in said] == [
        (25, 30, "Take out the old bulb."),
        (31, 49, "Put in the new one."),
    ]


def test_repetitions_are_counted_when_each_has_ended(tmp_path):
    (one,) = ovo(tmp_path, OVO_REPETITIONS)
    said = one.timeline.of("assistant")
    assert [(e.second, e.text) for e in said] == [(5, "1."), (13, "2."), (18, "3.")]
    assert right(said[1].rule, said[1].text, "That makes two.")
    assert not right(said[1].rule, said[1].text, "Three.")


def test_benchmarks_are_for_evaluation_and_training_refuses_them(tmp_path):
    made = ovo(tmp_path, *OVO)
    made += streamingbench.read(as_list(tmp_path / "s.json", STREAMINGBENCH))
    assert {one.use for one in made} == {"evaluation"} and len(made) == 5
    for one in made:
        plain = json.loads(json.dumps(to_json(one.timeline)))
        with pytest.raises(TimelineError, match="evaluation only"):
            timeline_of(plain)
        assert timeline_of(plain, evaluation=True) == one.timeline
    rejects = Rejects()
    assert published.write_published(made, tmp_path / "out.json", rejects) == 5
    assert list(read_published(tmp_path / "out.json", rejects)) == []
    assert rejects.counts == {"evaluation only": 5}
    assert {one.use for one in published.read(tmp_path / "out.json")} == {"evaluation"}


@pytest.mark.parametrize(
    ("reason", "record"),
    [
        ("no such option", {**OVO_REALTIME, "gt": 3}),
        ("no such option", {**OVO_REALTIME, "gt": True}),
        ("no such option", {**OVO_REALTIME, "gt": -1}),
        ("shape", {**OVO_REALTIME, "options": None}),
        ("time is no number", {**OVO_REALTIME, "realtime": None}),
        ("answer before its question", {**OVO_CLUE, "clue_time": 296}),
        ("time is no number", {k: v for k, v in OVO_CLUE.items() if k != "ask_time"}),
        ("starts and ends differ", {**OVO_STEPS, "end_time": [30]}),
        ("spans and steps differ", {**OVO_STEPS, "all_steps": ["one"]}),
        ("two in one second", {**OVO_STEPS, "start_time": [25, 25.5]}),
        ("starts and ends differ", {**OVO_REPETITIONS, "start_times": [], "end_times": []}),
        (
            "two in one second",
            {**OVO_REPETITIONS, "start_times": [0, 6, 7], "end_times": [5, 13, 13]},
        ),
        ("ends before it starts", {**OVO_REPETITIONS, "end_times": [5, 13, 14]}),
        ("unknown form", {"video": "a.mp4", "question": "Who?"}),
        ("no video", {**OVO_CLUE, "video": None}),
        ("outside the folder", {**OVO_CLUE, "video": "../a.mp4"}),
        ("nested too deeply", {**OVO_CLUE, "test_info": json.loads("[" * 60 + "]" * 60)}),
        ("not JSON", {**OVO_CLUE, "id": float("nan")}),
        ("no object", [OVO_CLUE]),
    ],
)
def test_records_that_can_not_be_used_are_refused(tmp_path, reason, record):
    (one,) = ovo(tmp_path, record)
    assert isinstance(one, Refused) and one.reason == reason


def test_a_proactive_output_is_right_within_two_seconds(tmp_path):
    (one,) = streamingbench.read(as_list(tmp_path / "s.json", STREAMINGBENCH))
    asked, said = one.timeline.events
    assert (asked.second, said.second, said.text) == (618, 625, "Go")
    assert onset(said).window == range(623, 628)
    assert one.timeline.clip.video == "videos/sample_1_proactive.mp4"
    assert right(said.rule, said.text, "Now: go!") and not right(said.rule, said.text, "Gone")


def test_a_record_with_several_questions_is_one_item(tmp_path):
    (question,) = STREAMINGBENCH[0]["questions"]
    two = {**STREAMINGBENCH[0], "questions": [question, {**question, "time_stamp": "10:20"}]}
    bad = {**two, "questions": [question, {**question, "time_stamp": "10:61"}]}
    late = {**two, "questions": [{**question, "time_stamp": "00:10:26"}]}
    none = {**two, "questions": []}
    bar = {**two, "questions": [{**question, "ground_truth_output": "|"}]}
    results = list(streamingbench.read(as_list(tmp_path / "s.json", [two, bad, late, none, bar])))
    first, second, *refused, last = results
    assert first.work["items"] == second.work["items"] and first.id != second.id
    assert [e.second for e in second.timeline.events] == [620, 625]
    assert [one.reason for one in refused] == [
        "time is no number",
        "answer before its question",
        "nothing in it",
    ]
    said = last.timeline.of("assistant")[0]
    assert right(said.rule, said.text, "|") and not right(said.rule, said.text, "x")
