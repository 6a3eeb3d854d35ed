"""Tables of events: rows of one video and instruction become one timeline."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.candidates import Candidate, Refused
from data_pipeline.sources import events
from data_pipeline.sources.videos import Videos
from data_pipeline.sources.wordings import EACH
from joyvl_train.config import UserError
from joyvl_train.timeline import Rule
from tests.data_pipeline.sources.shapes import EVENTS, as_lines, as_list
from tests.joyvl_train.videos import make_video


def table(path: Path, *lines: str, end: str = "\n") -> Path:
    path.write_bytes(end.join(lines).encode() + end.encode())
    return path


def split(results) -> tuple[list[Candidate], list[tuple[str, str]]]:
    results = list(results)
    refused = [(one.where, one.reason) for one in results if isinstance(one, Refused)]
    return [one for one in results if isinstance(one, Candidate)], refused


def said(one: Candidate) -> list[tuple]:
    return [(e.time, e.until, e.text) for e in one.timeline.of("assistant")]


def test_rows_of_one_instruction_are_one_timeline(tmp_path):
    path = table(
        tmp_path / "e.csv",
        "video,start,end,text,instruction,note",
        "yard/gate.mp4,12.5,18,A van stops.,Tell me of vans.,x",
        'hall.mp4,3,,"Someone falls, hard",Tell me of falls.,',
        "./yard/gate.mp4,1:05,00:01:10.5,Another van,Tell me of vans.,",
    )
    made, refused = split(events.read(path, licence="own", language="en"))
    assert not refused and [one.timeline.clip.video for one in made] == [
        "yard/gate.mp4",
        "hall.mp4",
    ]
    vans, falls = made
    assert said(vans) == [(12.5, 18, "A van stops."), (65, 70.5, "Another van.")]
    assert said(falls) == [(3, None, "Someone falls, hard.")]
    asked = vans.timeline.of("user")
    assert [e.text for e in asked] == ["Tell me of vans."] and asked[0].second < 12
    assert {e.rule for e in vans.timeline.of("assistant")} == {Rule("similarity")}
    assert vans.work["items"] == ["e.csv line 2", "e.csv line 4"]
    assert (vans.licence, vans.timeline.family, vans.use) == ("own", "alerting", "train")


def test_without_instructions_each_text_has_its_own(tmp_path):
    made, refused = split(events.read(as_list(tmp_path / "e.json", EVENTS)))
    assert not refused and len(made) == 2
    vans, falls = made
    assert [t for t, _, _ in said(vans)] == [12.5, 65.0]
    assert vans.timeline.of("user")[0].text in {w.format(what="A van stops.") for w in EACH}
    assert falls.timeline.family == "safety"
    again, _ = split(events.read(as_lines(tmp_path / "e.jsonl", EVENTS)))
    assert [one.timeline for one in again] == [one.timeline for one in made]
    assert [one.id for one in again] == [one.id for one in made]


def test_an_id_follows_from_the_rows_and_not_from_their_place(tmp_path):
    head = "video,start,text,instruction"
    rows = ["a.mp4,5,x,Say.", "b.mp4,5,y,Say.", "a.mp4,9,z,Say."]
    one, _ = split(events.read(table(tmp_path / "1.csv", head, *rows)))
    two, _ = split(events.read(table(tmp_path / "2.csv", head, *reversed(rows))))
    assert {c.id: c.timeline for c in one} == {c.id: c.timeline for c in two}


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_as_spreadsheets_write_them(tmp_path, mark, end):
    lines = [mark.join(row) for row in (("Video", "START", "text "), ("a.mp4", "5", "x"))]
    path = table(tmp_path / "e.csv", "\ufeff" + lines[0], lines[1], end=end)
    (one,), _ = split(events.read(path))
    assert said(one) == [(5, None, "X.")]


def test_a_broken_row_takes_no_other_with_it(tmp_path):
    path = table(
        tmp_path / "e.csv",
        "video,start,end,text,instruction",
        "a.mp4,5,7,one,Say.",
        "a.mp4,nan,7,two,Say.",
        "a.mp4,5.9,7,three,Say.",
        "a.mp4,8,7,four,Say.",
        "a.mp4,9,10,</silence>,Say.",
        'a.mp4,9,10,"open,Say.',
        "a.mp4,11,12,five,Say.,,",
        "a.mp4,,12,six,Say.",
        "a.mp4",
        ",13,14,seven,Say.",
        "../a.mp4,13,14,eight,Say.",
        "a.mp4,5,7,one,Say.",
        "a.mp4,15,1e9,nine,Say.",
        "a.mp4,13,14,ten,Say.",
    )
    (one,), refused = split(events.read(path))
    assert [text for _, _, text in said(one)] == ["One.", "Ten."]
    assert dict(refused) == {
        "e.csv line 3": "time is no number",
        "e.csv line 4": "two in one second",
        "e.csv line 5": "ends before it starts",
        "e.csv line 6": "format",
        "e.csv line 7": "not CSV",
        "e.csv line 8": "shape",
        "e.csv line 9": "time is no number",
        "e.csv line 10": "time is no number",
        "e.csv line 11": "no video",
        "e.csv line 12": "outside the folder",
        "e.csv line 13": "said already",
        "e.csv line 14": "past the end",
    }


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ("video,start", "add text"),
        ("a,b", "add video, start, text"),
        ("video,start,text,start", "leave one start"),
        ("", "add video"),
    ],
)
def test_a_table_without_its_columns_is_told_in_a_line(tmp_path, head, told):
    with pytest.raises(UserError, match=told):
        list(events.read(table(tmp_path / "e.csv", head)))


def test_with_the_videos_at_hand_broken_ones_refuse_their_rows(tmp_path):
    make_video(tmp_path / "a.mp4", [k / 5 for k in range(40)])
    (tmp_path / "b.mp4").write_bytes(b"x" * 100)
    rows = ["a.mp4,2,20,x", "a.mp4,8,9,x", "b.mp4,1,2,x", "b.mp4,3,4,x", "c.mp4,1,2,x"]
    path = table(tmp_path / "e.csv", "video,start,end,text", *rows)
    (one,), refused = split(events.read(path, Videos(tmp_path)))
    assert one.timeline.clip.duration == pytest.approx(8.0)
    assert [reason for _, reason in refused] == [
        "past the end",
        "not a video",
        "not a video",
        "missing file",
    ]


rows = st.fixed_dictionaries(
    {
        "video": st.sampled_from(["a.mp4", "b.mp4", "../c.mp4"]),
        "start": st.integers(-1, 9) | st.floats(0, 9) | st.sampled_from(["x", None]),
        "text": st.sampled_from(["A dog", "a dog", "A cat", ""]),
    },
    optional={"end": st.integers(0, 12), "instruction": st.sampled_from(["Say.", "Tell."])},
)


@settings(deadline=None, max_examples=60)
@given(st.lists(rows, max_size=25))
def test_each_row_is_in_one_timeline_or_refused(tmp_path_factory, given_in):
    path = as_list(tmp_path_factory.mktemp("e") / "e.json", given_in)
    made, refused = split(events.read(path))
    told = [where for one in made for where in one.work["items"]] + [w for w, _ in refused]
    assert sorted(told) == sorted(f"e.json item {n}" for n in range(len(given_in)))
    assert sum(len(said(one)) for one in made) == len(given_in) - len(refused)


def test_memory_does_not_grow_with_the_table(tmp_path):
    path = tmp_path / "e.csv"

    def peak(count: int) -> int:
        with path.open("w") as file:
            file.write("video,start,text,instruction\n")
            file.writelines(f"{n % (count // 5)}.mp4,{n},{'x' * 500},Say.\n" for n in range(count))
        tracemalloc.start()
        assert sum(isinstance(one, Candidate) for one in events.read(path)) == count // 5
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2000)  # what is made once, such as compiled patterns
    few = peak(200)
    assert peak(2000) < 1.3 * few + 200_000


def test_rows_are_gathered_where_there_is_room(tmp_path):
    table = tmp_path / "events.csv"
    table.write_text("video,start,text\na.mp4,1,A van stops.\nb.mp4,2,A van leaves.\nx\n")
    room = tmp_path / "run"
    results = events.read(table, room=room)
    next(results)  # the rows have been read by the time that the first timeline comes
    assert [path.name for path in room.iterdir()] == [".events.sqlite"]
    assert len(list(results)) == 2
    assert list(room.iterdir()) == []
