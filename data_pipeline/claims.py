"""What a line says that needs no model to be looked up: by rule, when it comes and whether it hands
over what is easy; by a tool, a text on the screen, a thing by its name, movement."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from PIL import Image

from data_pipeline.agents import detector, ocr
from data_pipeline.agents.shown import Pictures
from data_pipeline.families.targets import UNREAD, Reads, Tools
from data_pipeline.families.texts import english, quoted
from data_pipeline.sources.wordings import READ
from joyvl_train import content
from joyvl_train.timeline import Event, Timeline

NOW = ("alerting", "commentary")
"""Families whose lines tell of what is to be seen as they are said; in others a line may answer
about something long gone."""

RULES = "rules"
"""Stands in a history where a tool's key would."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where a tool's finding counts against a line.

    still: share of a picture below which nothing moves in it; unread: how well a text is read
    (`ocr.shows`) below which it is not on the screen; read_before: how well a text that is to be
    read out as it appears is read in the second before, from which on it comes late; above 1 it is
    not looked for there. pictures: the last ones before a line's end of second in which what it
    tells of may be found.
    """

    still: float = 0.002
    unread: float = UNREAD
    read_before: float = 0.9
    pictures: int = 2


USUAL = Thresholds()

# A delegation of these is of no use: who watches sees it, or knows it at once.
_AT_A_GLANCE = re.compile(
    r"(?:is|are) there (?:an?|any|some)\b.*|(?:do|can) you see\b.*|"
    r"what (?:is|do you see|can be seen|is there)(?: in the picture| in view| on (?:the )?screen|"
    r" there| to see)?(?: right)?(?: now| at the moment)?|(?:what|which) colou?r\b.*",
    re.IGNORECASE,
)
_SUM = re.compile(r"\b(?:plus|add|sum|and|minus|times|make)\b|[+*-]", re.IGNORECASE)
_SMALL_NUMBER, _SHORT = 10, 10

# Names of which a line may mean something else: a colour, a verb, a part of another name.
_AMBIGUOUS = frozenset(("orange", "remote", "tie", "train", "mouse", "keyboard", "sink", "book"))
_CALLED = {
    "person": "person|people|man|men|woman|women|boy|girl|child|children|player|worker",
    "bicycle": "bicycle|bike",
    "motorcycle": "motorcycle|motorbike",
    "airplane": "airplane|plane|aeroplane",
    "couch": "couch|sofa",
    "tv": "tv|television",
    "cell phone": "cell phone|phone|smartphone",
    "refrigerator": "refrigerator|fridge",
    "donut": "donut|doughnut",
}
_NOT_THERE = re.compile(
    r"\b(?:no|not|never|nobody|nothing|none|without|left|leaves|gone|away|disappeared|empty)\b"
    r"|n't\b",
    re.IGNORECASE,
)
_MOVES = re.compile(
    r"\b(?:mov|walk|run|ran\b|driv|drove\b|fly|flies\b|flew\b|jump|fall|fell\b|roll|swim|danc|"
    r"pass|enter|arriv|appear|com(?:e|es|ing)\b|came\b|leav|left\b|goes\b|going\b|went\b|throw|"
    r"threw\b|kick|swing|spin|turn(?:s|ing)\b)",
    re.IGNORECASE,
)

Refuted = tuple[str, str, str]
"""Reason, detail, and the key of the tool that says so."""


@runtime_checkable
class Letters(Protocol):
    """A reader that knows which texts it can't be asked about, such as `agents.ocr.Ocr`."""

    def can_read(self, text: str) -> bool: ...


def misplaced(timeline: Timeline, event: Event, language: str) -> Refuted | None:
    """What is wrong with a line by rule: it answers what comes later, hands over what is easy."""
    cause = next((e for e in timeline.events if e.id == event.answers), None)
    if cause is not None and cause.second > event.second:
        detail = f"{event.text!r} answers what comes at {cause.second} s"
        return "before what it answers", detail, RULES
    if event.question is not None and english(language) and easy(event.question):
        return "too easy to hand over", event.question, RULES
    return None


def easy(question: str) -> bool:
    """Whether a question is answered by a glance at the picture, or is a sum of small numbers.

    >>> easy("Is there a dog now?"), easy("What is 3 plus 4?"), easy("What is 345 times 12?")
    (True, True, False)
    """
    asked = question.strip().rstrip("?.! ")
    numbers = content.numbers(asked)
    if any(abs(number) > _SMALL_NUMBER for number in numbers):
        return False
    sum_of_two = len(numbers) == 2 and _SUM.search(asked) and len(asked.split()) <= _SHORT
    return bool(sum_of_two) or _AT_A_GLANCE.fullmatch(asked) is not None


def refuted(
    timeline: Timeline,
    event: Event,
    language: str,
    pictures: Pictures,
    tools: Tools,
    thresholds: Thresholds = USUAL,
) -> Refuted | None:
    """What a tool finds wrong with a line, from the pictures of the seconds up to its own; None
    where nothing is, or nothing can be said."""
    seen = [picture for _, picture in pictures if isinstance(picture, Image.Image)]
    if not seen:
        return None
    last = seen[-thresholds.pictures :]
    now = timeline.family in NOW and english(language)
    if tools.motion is not None and now and _MOVES.search(event.text) and len(seen) > 1:
        most = max(list(tools.motion(seen))[-len(last) :])
        if most < thresholds.still:
            return "nothing moves", f"{event.text!r}: {most:.4f} of the picture", tools.motion.key
    text = on_screen(timeline, event)
    if tools.reads is not None and text and _readable(tools.reads, text):
        read = max(ocr.shows(tools.reads(picture), text) for picture in last)
        if read < thresholds.unread:
            return "text not on screen", f"{text!r}: {read:.2f} of it read", tools.reads.key
        before = _just_before(timeline, event, pictures)
        if before is not None and thresholds.read_before <= 1:
            read = ocr.shows(tools.reads(before), text)
            if read >= thresholds.read_before:
                detail = f"{text!r}: {read:.2f} of it read a second before"
                return "text on screen before", detail, tools.reads.key
    wanted = named(event.text) if now else []
    if tools.detects is not None and wanted:
        found = {one.label for picture in last for one in tools.detects(picture)}
        missing = [label for label in wanted if label not in found]
        if missing:
            return "not in the picture", f"no {' and no '.join(missing)}", tools.detects.key
    return None


def _just_before(timeline: Timeline, event: Event, pictures: Pictures) -> Image.Image | None:
    """The picture of the second before a line that reads out what appears; None for other lines,
    and where it was asked for in that second."""
    asked = next((e for e in timeline.of("user") if e.id == event.answers), None)
    if asked is None or asked.text not in READ or asked.second >= event.second:
        return None
    found = dict(pictures).get(event.second - 1)
    return found if isinstance(found, Image.Image) else None


def _readable(reads: Reads, text: str) -> bool:
    return not isinstance(reads, Letters) or reads.can_read(text)


def on_screen(timeline: Timeline, event: Event) -> str:
    """The text that a line says is on the screen; empty where it says so of none.

    It is all of the line where texts are to be read out, else what stands in quotes, unless it
    quotes what was said before.
    """
    asked = {e.id: e.text for e in timeline.of("user")}.get(event.answers or "", "")
    if asked in READ:
        return event.text
    text = quoted(event.text)
    earlier = [timeline.opening, *(e.text for e in timeline.events if e.time < event.time)]
    return "" if any(text.casefold() in said.casefold() for said in earlier) else text


def named(text: str) -> list[str]:
    """The labels of the detector that a line says are there.

    >>> named("A dog and two men appeared."), named("No dog is there."), named("An orange car.")
    (['dog', 'person'], [], ['car'])
    """
    if _NOT_THERE.search(text):
        return []
    labels = sorted(detector.LABELS - _AMBIGUOUS)
    said = [label for label in labels if content.says(_CALLED.get(label, label), text)]
    # "A hot dog" and "a teddy bear" are no dog and no bear.
    return [a for a in said if not any(a != b and content.says(a, b) for b in said)]
