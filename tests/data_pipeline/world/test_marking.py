"""What is asked for in a stream, and which of its image tokens show it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.world import scene as world_scene
from data_pipeline.world import stills
from data_pipeline.world.cells import COLOUR_LABELS, name_labels
from data_pipeline.world.marking import MemoryMarks, named, sought_in, stream_marks
from data_pipeline.world.streams import frame_times, stream
from joyvl_train.actions import Response
from joyvl_train.checkpoint import load
from joyvl_train.marks import UNKNOWN
from joyvl_train.rendering import Renderer
from joyvl_train.timeline import Timeline

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    """Of the kept base, whose names are tokens."""
    return Renderer(load(ROOT / "models/tiny")[1])


def of_kind(family: str, kind: str, count: int = 12) -> list[Timeline]:
    return [stream(family, seed, "train", kind=kind) for seed in range(count)]


def shown(timeline: Timeline, second: int) -> set[tuple[str, str]]:
    scene = world_scene.from_json(timeline.clip.scene or {})
    (time,) = frame_times(1, scene.duration, second)
    return {(track.picture, track.colour) for track, _ in scene.visible(time)}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Tell me when a red car or two dogs come.", [("car", "red"), ("dog", "")]),
        ("Is the traffic light green?", [("traffic light", "")]),
        ("An automobile, please.", [("car", "")]),
        ("What is there now?", []),
        ("Work out 3 plus 4 for the carpet.", []),
    ],
)
def test_a_text_names_pictures_by_any_of_their_names(
    text: str, wanted: list[tuple[str, str]]
) -> None:
    assert list(named(text, "drawn")) == wanted


def test_what_is_to_be_looked_out_for_is_marked_where_it_is() -> None:
    there = 0
    for timeline in of_kind("alerting", "appear"):
        asked = int(timeline.events[0].time)
        [(name, _)] = sought_in(timeline, asked, "drawn")
        for second in range(int(timeline.clip.seconds or 0)):
            marks = stream_marks(timeline, [second], 96, "drawn")
            assert marks.shape == (9,)
            if second < asked:
                assert set(marks) == {UNKNOWN}
            else:
                visible = any(name == each for each, _ in shown(timeline, second))
                assert marks.max() == visible, (timeline.clip.id, second)
                there += visible
    assert there > 50


def test_one_colour_alone_is_marked() -> None:
    apart = 0
    for timeline in of_kind("alerting", "colour"):
        sought = sought_in(timeline, int(timeline.clip.seconds or 0) - 1, "drawn")
        [(name, colour)] = sought
        assert colour
        for second in range(4, int(timeline.clip.seconds or 0)):
            here = shown(timeline, second)
            marks = stream_marks(timeline, [second], 96, "drawn")
            assert marks.max() == ((name, colour) in here)
            apart += (name, colour) not in here and name in {each for each, _ in here}
    assert apart > 10


def test_a_question_answered_at_once_holds_for_its_second_alone() -> None:
    seen = 0
    for timeline in of_kind("qa", "present"):
        asked = {int(e.time): e.text for e in timeline.events if e.role == "user"}
        for second in range(int(timeline.clip.seconds or 0)):
            wanted = named(asked.get(second, ""), "drawn")
            assert sought_in(timeline, second, "drawn") == wanted
            seen += bool(wanted)
    assert seen > 20


def test_seconds_are_marked_one_after_the_other() -> None:
    (timeline,) = of_kind("alerting", "either", 1)
    whole = stream_marks(timeline, range(8), 96, "drawn")
    apart = [stream_marks(timeline, [second], 96, "drawn") for second in range(8)]
    assert np.array_equal(whole, np.concatenate(apart))
    assert all(len(a) == len(b) for a, b in itertools.pairwise(apart))


def test_names_are_marked_that_memory_text_holds(renderer: Renderer) -> None:
    held = lacking = 0
    for seed in range(40):
        sample = stills.still(seed, "train", kind="recall_talk")
        rendered = renderer.render_question(
            sample.question,
            sample.frames(32),
            Response(sample.answer),
            sample.context,
            "",
            [Response(said) for said in sample.before],
            sample.further,
        )
        marks = MemoryMarks(renderer.tokenizer, "drawn")(rendered)[:, 0]
        ids = np.asarray(rendered.ids)
        assert set(marks[ids == renderer.processor.image_id]) <= {UNKNOWN}
        memory = {name for name, _ in named(sample.context, "drawn")}
        for span in rendered.spans:
            if span.role != "user" or span.kind != "text":
                continue
            # A turn's text stands in two spans, before its frame and after it.
            found = marks[span.start : span.stop]
            text = renderer.tokenizer.decode(ids[span.start : span.stop])
            told = [int(name in memory) for name, _ in named(text, "drawn")]
            assert found[found != UNKNOWN].tolist() == told, text
            held, lacking = held + sum(told), lacking + len(told) - sum(told)
    assert held > 60 and lacking > 10


def test_without_memory_text_no_name_is_marked(renderer: Renderer) -> None:
    rendered = renderer.render_question("Is there a dog?", [], Response("No dog."))
    assert set(MemoryMarks(renderer.tokenizer, "drawn")(rendered).ravel()) == {UNKNOWN}


def test_labels_tell_of_the_line_that_names_a_thing(renderer: Renderer) -> None:
    memory = "Earlier:\n0 to 200 s: 7 s: A red car came.; 36 s: A dog came.; 142 s: The moon came."
    memory += "; 150 s: The dog left."
    asked, answered = "When did the dog come?", "The dog came at 36 s."
    rendered = renderer.render_question(asked, [], Response(answered), memory)
    marking = MemoryMarks(renderer.tokenizer, "drawn")
    marks = marking(rendered)
    names = name_labels("drawn")
    car, dog, moon = (names.index(name) for name in ("car", "dog", "moon"))
    red = COLOUR_LABELS.index("red")
    found = [
        (renderer.tokenizer.decode([token]).strip(), row.tolist())
        for token, row in zip(rendered.ids, marks, strict=True)
        if (row != UNKNOWN).any()
    ]
    there = [1, 3, 6, 10, 0, car, moon, UNKNOWN]
    assert found == [
        ("car", [0, 7, 10, 10, red, 0, UNKNOWN, UNKNOWN]),
        ("dog", [0, 3, 6, 10, 0, car, UNKNOWN, UNKNOWN]),
        ("moon", [0, 1, 4, 2, 0, dog, UNKNOWN, UNKNOWN]),
        ("dog", [1, *[UNKNOWN] * 7]),
        ("dog", there),
        ("dog", there),
        ("6", [*[UNKNOWN] * 7, dog]),
    ]
    fields = [row[1:] for _, row in found]
    assert all(
        label < classes
        for row in fields
        for label, classes in zip(row, marking.fields, strict=True)
    )


def test_an_instruction_before_a_line_is_not_told_what_the_line_tells(renderer: Renderer) -> None:
    memory = "Earlier:\n0 to 60 s: 3 s user: Tell me when the dog or a red car comes.; "
    memory += "3 s assistant: A dog.; 7 s: A red car appeared.; 36 s assistant: A dog came."
    rendered = renderer.render_question("When did the dog come?", [], Response("At 36 s."), memory)
    marks = MemoryMarks(renderer.tokenizer, "drawn")(rendered)
    (system,) = (span for span in rendered.spans if span.role == "system")
    named_at = [n for n in range(system.start, system.stop) if marks[n, 0] != UNKNOWN]
    assert marks[named_at, 0].tolist() == [0, 0, 1, 1, 1]
    assert marks[named_at, 1:4].tolist() == [
        *[[UNKNOWN] * 3] * 3,
        [7, 10, 10],
        [3, 6, 10],
    ]


def test_of_a_second_of_four_digits_no_digit_is_told(renderer: Renderer) -> None:
    asked, memory = "When did the dog come?", "999 s: A red car came.\n1234 s: A dog came."
    rendered = renderer.render_question(asked, [], Response("The car at 999 s."), memory)
    marks = MemoryMarks(renderer.tokenizer, "drawn")(rendered)
    colours = [COLOUR_LABELS.index(colour) for colour in ("red", "")]
    told = {tuple(row[1:5]) for row in marks.tolist() if row[4] != UNKNOWN}
    assert told == {(9, 9, 9, colours[0]), (*[UNKNOWN] * 3, colours[1])}


def test_a_second_in_which_two_things_came_stands_for_neither(renderer: Renderer) -> None:
    memory = "7 s: A red car came.\n7 s: A dog came.\n9 s: The moon came."
    asked, answered = "What came at 7 s?", "At 9 s the moon came."
    rendered = renderer.render_question(asked, [], Response(answered), memory)
    marks = MemoryMarks(renderer.tokenizer, "drawn")(rendered)
    assert set(marks[:, -1]) == {UNKNOWN, name_labels("drawn").index("moon")}


def test_a_number_is_a_second_where_it_is_said_to_be(renderer: Renderer) -> None:
    memory = "7 s: A red car came.\n36 s: A dog came."
    marking = MemoryMarks(renderer.tokenizer, "drawn")
    for asked, seconds in {
        "What came at 36 s?": 1,
        "At 36 seconds, what came?": 1,
        "What did you see come at second 36?": 1,
        "What is 36 plus 7?": 0,
        "How many are 7?": 0,
    }.items():
        marks = marking(renderer.render_question(asked, [], None, memory))
        assert (marks[:, -1] != UNKNOWN).sum() == seconds, asked
