"""What rules and tools find wrong with a line, and what they can say nothing of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from PIL import Image

from data_pipeline.agents.detector import Found
from data_pipeline.agents.motion import Motion
from data_pipeline.agents.ocr import Line
from data_pipeline.claims import Thresholds, easy, misplaced, named, on_screen, refuted
from data_pipeline.corruption import damage
from data_pipeline.families.targets import Tools
from data_pipeline.sources.wordings import READ
from data_pipeline.world.streams import FAMILIES, WorldFrames, stream
from joyvl_train.timeline import Clip, Event, Timeline
from tests.data_pipeline.agents.tools import needs

BOX = (0.0, 0.0, 1.0, 1.0)


@dataclass
class Sees:
    """A detector and a reader that find in a picture what its first pixel's red stands for."""

    found: dict[int, str]
    key: str = "sees@1"
    letters: str = ""

    def __call__(self, picture: Image.Image) -> list[Found]:
        label = self.found.get(picture.getpixel((0, 0))[0])
        return [Found(label, 0.9, BOX)] if label else []


class Reads(Sees):
    def __call__(self, picture: Image.Image) -> Sequence[Line]:  # type: ignore[override]
        text = self.found.get(picture.getpixel((0, 0))[0])
        return [Line(text, 0.9, BOX)] if text else []

    def can_read(self, text: str) -> bool:
        return text.isascii()


def pictures(*reds: int) -> list[tuple[int, Image.Image]]:
    return [(n, Image.new("RGB", (64, 48), (red, 90, 90))) for n, red in enumerate(reds)]


def said(text: str, asked: str = "Tell me.", family: str = "alerting") -> tuple[Timeline, Event]:
    line = Event("a", 3.0, "assistant", text, answers="q")
    timeline = Timeline(Clip("v", 9.0), family, "made", (Event("q", 0.0, "user", asked), line))
    return timeline, line


def reason(text: str, tools: Tools, reds: Sequence[int], **given: str) -> str | None:
    timeline, line = said(text, **given)
    wrong = refuted(timeline, line, "en", pictures(*reds), tools)
    return None if wrong is None else wrong[0]


def test_things_that_are_named_must_be_found() -> None:
    tools = Tools(detects=Sees({1: "dog"}))
    assert reason("A dog appeared.", tools, [0, 0, 0, 1]) is None
    assert reason("A dog appeared.", tools, [1, 0, 0, 0]) == "not in the picture"
    assert reason("A cat appeared.", tools, [0, 0, 1, 1]) == "not in the picture"
    # Nothing is said of what the detector doesn't know, of what is not there, or of long ago.
    assert reason("A unicorn appeared.", tools, [0, 0]) is None
    assert reason("The cat left.", tools, [0, 0]) is None
    assert reason("A cat.", tools, [0, 0], family="qa") is None


def test_texts_on_the_screen_must_be_read() -> None:
    tools = Tools(reads=Reads({1: "EXIT"}))
    assert reason('The sign says "EXIT".', tools, [0, 0, 1]) is None
    assert reason('The sign says "EXIT".', tools, [0, 0, 0]) == "text not on screen"
    assert reason("Exit", tools, [0, 0], asked=READ[0]) == "text not on screen"
    assert reason('The sign says "выход".', tools, [0, 0]) is None  # it can't read that
    # What was said before is quoted, not read.
    assert reason('You said "EXIT".', tools, [0, 0], asked='Say "exit" to me.') is None


def test_what_moves_must_move() -> None:
    tools = Tools(motion=Motion())
    still, moving = pictures(9, 9, 9, 9), pictures(9, 9, 9, 9)
    moving[-1][1].paste((250, 250, 250), (10, 10, 40, 40))
    for shown, wrong in ((still, "nothing moves"), (moving, None)):
        timeline, line = said("A dog appeared.")
        found = refuted(timeline, line, "en", shown, tools)
        assert (found and found[0]) == wrong
        assert refuted(timeline, line, "fr", shown, tools) is None
    timeline, line = said("A dog appeared.")
    assert refuted(timeline, line, "en", moving, tools, Thresholds(still=0.9)) is not None
    assert refuted(timeline, line, "en", [], tools) is None


def test_thresholds_are_the_callers() -> None:
    timeline, line = said('The sign says "EXIT".')
    tools = Tools(reads=Reads({1: "EXTT", 2: "EXIT"}))
    shown = pictures(2, 0, 1)
    assert refuted(timeline, line, "en", shown, tools, Thresholds(unread=0.7)) is None
    assert refuted(timeline, line, "en", shown, tools, Thresholds(unread=0.9)) is not None
    assert refuted(timeline, line, "en", shown, tools, Thresholds(unread=0.9, pictures=3)) is None


def test_what_is_read_out_must_not_have_stood_there_the_second_before() -> None:
    tools = Tools(reads=Reads({1: "EXIT", 2: "EXIT", 0: ""}))
    timeline, line = said("EXIT", READ[0])
    for shown, wrong in (((0, 0, 0, 1), None), ((0, 0, 1, 2), "text on screen before")):
        seen = pictures(*shown)
        found = refuted(timeline, line, "en", seen, tools)
        assert (found and found[0]) == wrong
    above = Thresholds(read_before=1.1)
    assert refuted(timeline, line, "en", seen, tools, above) is None
    # A line that only quotes it may come while it stands there.
    timeline, line = said('The sign says "EXIT".')
    assert refuted(timeline, line, "en", seen, tools) is None


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Two men and a fridge.", ["person", "refrigerator"]),
        ("A teddy bear and a hot dog.", ["hot dog", "teddy bear"]),
        ("Nobody is there.", []),
        ("An orange kite.", ["kite"]),
    ],
)
def test_labels_in_a_line(text: str, labels: list[str]) -> None:
    assert named(text) == labels


def test_the_text_of_a_line() -> None:
    assert on_screen(*said("Mind the gap.", READ[0])) == "Mind the gap."
    assert on_screen(*said('It reads "GO".')) == "GO"
    assert on_screen(*said("A dog appeared.")) == ""


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("What colour is the car?", True),
        ("What is in the picture now?", True),
        ("Do you see a dog?", True),
        ("Add 3 and 4.", True),
        ("What is 2 times 4821?", False),
        ("What is the height in metres of the tower of Paris?", False),
        ("Plan a picnic in Rome.", False),
        ("What is the person in view famous for?", False),
    ],
)
def test_easy_questions(question: str, wanted: bool) -> None:
    assert easy(question) is wanted


def test_rules_find_nothing_wrong_with_the_world() -> None:
    for seed in range(8):
        for family in FAMILIES:
            timeline = stream(family, seed, "train")
            for event in timeline.of("assistant"):
                assert misplaced(timeline, event, "en") is None, event


def test_rules_find_what_answers_the_future_and_what_is_easy() -> None:
    timeline, line = said("A dog.")
    early = replace(timeline, events=(timeline.events[0], replace(line, time=0.0)))
    late = replace(early, events=(replace(timeline.events[0], time=2.0), early.events[1]))
    assert misplaced(early, early.events[1], "en") is None
    assert (misplaced(late, late.events[1], "en") or "")[0] == "before what it answers"
    handed = 0
    for seed in range(30):
        damaged = damage(stream("qa", seed, "train", kind="present"), "easy delegation")
        if damaged is not None:
            wrong = next(e for e in damaged.timeline.events if e.id == damaged.event)
            handed += misplaced(damaged.timeline, wrong, "en") is not None
            assert misplaced(damaged.timeline, wrong, "ja") is None
    assert handed >= 8


@needs("ocr")
def test_words_of_the_world_are_read_for_real() -> None:
    from data_pipeline.agents.ocr import Ocr

    tools = Tools(reads=Ocr())
    timeline, line = said('It says "Milch".')
    blank = [(3, Image.new("RGB", (200, 100), "white"))]
    assert (refuted(timeline, line, "en", blank, tools) or "")[0] == "text not on screen"


def test_pictures_of_the_world_pass_through_the_tools() -> None:
    """Motion sees most comings of the world, where the background stands still."""
    tools = Tools(motion=Motion())
    refused = lines = 0
    for seed in range(3):
        timeline = stream("alerting", seed, "train", kind="appear", backgrounds=("plain",))
        frames = WorldFrames(timeline, 96)
        for event in timeline.of("assistant"):
            seconds = range(max(0, event.second - 4), event.second + 1)
            shown = [(second, frames.frames(second)[-1]) for second in seconds]
            lines += 1
            refused += refuted(timeline, event, "en", shown, tools) is not None
    assert lines >= 6 and refused == 0
