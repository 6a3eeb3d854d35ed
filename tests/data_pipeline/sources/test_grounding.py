"""Charades-STA, ActivityNet Captions and QVHighlights: spans of time with sentences -> alerts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipeline.candidates import Candidate, Refused
from data_pipeline.sources import activitynet, charades_sta, qvhighlights
from data_pipeline.sources.videos import Videos
from data_pipeline.sources.wordings import EACH, LATEST_ASK, ONCE, pick
from joyvl_train.actions import Response, Silence
from joyvl_train.config import UserError
from joyvl_train.timeline import Clip, Rule, actions
from tests.data_pipeline.sources.shapes import ACTIVITYNET, QVHIGHLIGHTS, as_lines, as_list
from tests.joyvl_train.videos import make_video


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def reasons(results: list[Candidate | Refused]) -> list[str | None]:
    return [one.reason if isinstance(one, Refused) else None for one in results]


def lines(tmp_path: Path, *told: str, videos: Videos | None = None) -> list[Candidate | Refused]:
    path = write(tmp_path / "sta.txt", "\n".join(told) + "\n")
    return list(charades_sta.read(path, videos))


def test_a_line_of_charades_becomes_an_alert_that_is_held(tmp_path):
    (one,) = lines(tmp_path, "AB12C 24.296875 30.40625##person turn a light on.")
    timeline = one.timeline
    asked, said = timeline.events
    assert timeline.clip == Clip("AB12C", None, video="AB12C.mp4")
    assert (timeline.family, timeline.source, one.use) == ("alerting", "Charades-STA", "train")
    assert asked.role == "user" and asked.second <= LATEST_ASK and asked.second < said.second
    assert asked.text == pick(ONCE, one.id).format(what="person turn a light on.")
    assert (said.second, said.text) == (24, "Person turn a light on.")
    assert said.held_seconds == range(24, 31) and not said.repeat
    assert (said.answers, said.rule) == (asked.id, Rule("similarity"))
    assert one.work["items"] == ["sta.txt line 1"]


@pytest.mark.parametrize(
    ("start", "second"), [("0.0", 0), ("0.999", 0), ("1.0", 1), ("3.999999", 3), ("4", 4)]
)
def test_an_event_is_due_in_the_second_that_it_starts_in(tmp_path, start, second):
    (one,) = lines(tmp_path, f"A {start} 6.0##a dog barks")
    due = [t for t, action in enumerate(actions(one.timeline, 8)) if action != Silence()]
    assert due == [second]
    assert actions(one.timeline, 8)[second] == Response("A dog barks.")
    asked = one.timeline.of("user")[0].second
    assert asked < second or second == asked == 0


def test_one_timeline_a_video_and_sentence_and_words_that_stay(tmp_path):
    told = [f"A {n}.5 9##a thing {n} falls" for n in range(8)]
    first, again = lines(tmp_path, *told), lines(tmp_path, *told)
    assert first == again and len({one.id for one in first}) == 8
    assert len({one.timeline.events[0].text.split(":")[0] for one in first}) > 2


def test_lines_that_can_not_be_used_are_refused_one_by_one(tmp_path):
    text = (
        b"\xef\xbb\xbfA 1 2##first\r\n\r\nA 1 2\nA 1##x\nA 1 2 3##x\nA one 2##x\nA nan 2##x\n"
        b"A 1 inf##x\nA -1 2##x\nA 3 2##x\nA 1 1e300##x\nA 1 2##  \nA 1 2##\xff\n"
        b"A 1 2##a </silence> b\n../A 1 2##x\n/A 1 2##x\nhttp://x/A 1 2##x\nA.zip/b 1 2##x\n"
        b"A 1_0 20##x\nB 1 2##last"
    )
    results = list(charades_sta.read(write(tmp_path / "sta.txt", text)))
    assert reasons(results) == [
        None,
        *["shape"] * 3,
        *["time is no number"] * 3,
        "negative time",
        "ends before it starts",
        "past the end",
        "empty text",
        "not UTF-8",
        "format",
        *["outside the folder"] * 2,
        "no local file",
        "inside an archive",
        "time is no number",
        None,
    ]
    assert [one.where for one in results if isinstance(one, Refused)][0] == "sta.txt line 3"


def test_with_the_videos_at_hand_their_length_counts(tmp_path):
    make_video(tmp_path / "A.mp4", [k / 5 for k in range(40)])
    write(tmp_path / "B.mp4", b"no video")
    told = ["A 2 5##x", "A 7.5 30##x", "A 8.5 9##x", "B 1 2##x", "C 1 2##x"]
    results = lines(tmp_path, *told, videos=Videos(tmp_path))
    assert reasons(results) == [None, None, "past the end", "not a video", "missing file"]
    assert results[0].timeline.clip.duration == pytest.approx(8.0)
    assert actions(results[1].timeline)[7] == Response("X.")


def test_a_file_that_is_not_there_is_told_in_a_line(tmp_path):
    for read in (charades_sta.read, activitynet.read, qvhighlights.read):
        with pytest.raises(UserError, match="can't be read"):
            list(read(tmp_path / "none.json"))
    with pytest.raises(UserError, match="no folder of videos"):
        Videos(tmp_path / "none")


# ActivityNet Captions.


def members(tmp_path: Path, data: object) -> list[Candidate | Refused]:
    return list(activitynet.read(write(tmp_path / "an.json", json.dumps(data))))


def test_each_pair_of_activitynet_is_an_item(tmp_path):
    one, two, three = members(tmp_path, ACTIVITYNET)
    assert one.timeline.clip == Clip("v_one", 61.5, video="v_one.mp4")
    said = one.timeline.of("assistant")
    assert [(e.second, e.until, e.text) for e in said] == [(0, 20.0, "A man paints a wall.")]
    assert two.timeline.of("assistant")[0].text == "He cleans the brush."
    assert two.work["items"] == ["an.json video 0 'v_one' sentence 1"]
    assert three.timeline.clip.duration == 30


def test_videos_of_activitynet_that_can_not_be_used_are_refused_pair_by_pair(tmp_path):
    fine = {"duration": 30, "timestamps": [[1, 2], [3, 4]], "sentences": ["a", "b"]}
    data = {
        "uneven": {**fine, "sentences": ["a"]},
        "empty": {**fine, "timestamps": [], "sentences": []},
        "late": {**fine, "timestamps": [[1, 2], [30, 31]]},
        "text": {**fine, "sentences": "ab"},
        "none": None,
        "odd": {**fine, "timestamps": [[2, 1], [1]]},
        "long": {**fine, "duration": "30"},
        "../up": fine,
        "": fine,
    }
    assert reasons(members(tmp_path, data)) == [
        *["spans and sentences differ"] * 2,
        "nothing in it",
        None,
        "past the end",
        "shape",
        "no object",
        "ends before it starts",
        "shape",
        *["bad duration"] * 2,
        *["outside the folder"] * 2,
        *["no video"] * 2,
    ]


def test_a_file_of_activitynet_that_is_cut_off_tells_so(tmp_path):
    text = json.dumps(ACTIVITYNET)
    results = list(activitynet.read(write(tmp_path / "an.json", text[:-40])))
    assert reasons(results) == [None, None, "cut off"]
    with pytest.raises(UserError, match="no JSON object"):
        list(activitynet.read(as_list(tmp_path / "list.json", [1])))


# QVHighlights.


def test_each_window_of_qvhighlights_is_a_held_response(tmp_path):
    one, two = qvhighlights.read(as_lines(tmp_path / "q.jsonl", QVHIGHLIGHTS))
    said = one.timeline.of("assistant")
    assert [(e.second, e.until) for e in said] == [(2, 6), (100, 130)]
    assert {e.text for e in said} == {"A cook slices onions."}
    assert one.timeline.clip == Clip("abcDEF_60.0_210.0", 150, video="abcDEF_60.0_210.0.mp4")
    assert one.timeline.of("user")[0].text == pick(EACH, one.id).format(
        what="A cook slices onions."
    )
    assert one.timeline.meta == {"qid": 11}
    assert [e.second for e in two.timeline.events] == [0, 0]


def test_windows_that_touch_are_one_state(tmp_path):
    record = {**QVHIGHLIGHTS[0], "relevant_windows": [[10, 20], [4, 6], [20, 30], [24, 26]]}
    (one,) = qvhighlights.read(as_lines(tmp_path / "q.jsonl", [record]))
    said = one.timeline.of("assistant")
    assert [(e.time, e.until) for e in said] == [(4, 6), (10, 30)]
    assert one.timeline.meta["merged_spans"] == 2


def test_records_of_qvhighlights_that_can_not_be_used_are_refused(tmp_path):
    changes = [
        {"relevant_windows": None},
        {"relevant_windows": []},
        {"relevant_windows": [[1, 2, 3]]},
        {"relevant_windows": [[1, float("nan")]]},
        {"relevant_windows": [[150, 152]]},
        {"query": ""},
        {"vid": 5},
        {"duration": True},
    ]
    records = [{**QVHIGHLIGHTS[0], **change} for change in changes]
    results = list(qvhighlights.read(as_lines(tmp_path / "q.jsonl", [*records, "x"])))
    assert reasons(results) == [
        *["no windows"] * 2,
        "shape",
        "time is no number",
        "past the end",
        "empty text",
        "no video",
        "bad duration",
        "no object",
    ]
