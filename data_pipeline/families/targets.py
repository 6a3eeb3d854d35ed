"""Targets of alerts as agents propose them, and what is wrong with one before a verifier is asked.

Each kind of target has rules of its own; tools that are given look at the pictures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from data_pipeline.agents import detector, ocr
from data_pipeline.agents.agent import Agent
from data_pipeline.agents.motion import Motion
from data_pipeline.agents.prompts import Field
from data_pipeline.agents.shown import Pictures
from data_pipeline.families.texts import (
    content_words,
    english,
    foretells,
    names_a_time,
    quoted,
    same,
)
from data_pipeline.sources.items import said_of
from joyvl_train import content
from joyvl_train.conversation import clean
from joyvl_train.timeline import MAX_SECONDS, TimelineError

MOST_WORDS = {"target": 14, "instruction": 40, "response": 30}

FIRST_PICTURES = 2
"""Pictures at the start of a window in which a target must not be seen yet."""

READ = 0.8
"""How well a text is read (`ocr.shows`) from which on it is there; below `UNREAD` it is not."""
UNREAD = 0.5

# What can be seen in nearly any picture, or says nothing of what it is.
_ANYTHING = frozenset(
    "something anything nothing everything thing things object objects item items stuff movement "
    "motion change changes event activity action scene view image picture frame video screen "
    "camera shape colour color shadow".split()
)
_SCENE = frozenset(
    "sky ground floor wall walls ceiling background foreground room street road grass water "
    "horizon landscape surface area place inside outside outdoors indoors".split()
)
_ANYONE = frozenset(
    "person people someone somebody anyone man men woman women human humans figure individual "
    "child children boy girl crowd".split()
)
_ABSENT = re.compile(r"\b(?:not|never|no longer|without|absent|gone)\b|n't\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """What an alert is about. `second` is None where it is never to be seen."""

    kind: str
    target: str
    second: int | None
    instruction: str
    response: str


def target_of(data: Mapping[str, Any], where: str) -> Target:
    """A target as an agent wrote it. `TimelineError` where it can't be said, or not then."""
    texts = {
        key: said_of(clean(data[key]), f"{where}: {key}") if key in data else ""
        for key in ("target", "instruction", "response")
    }
    second = data.get("second")
    if second is not None and second > MAX_SECONDS:
        raise TimelineError("time past a day", f"{where}: {str(second)[:20]} s")
    return Target(data["kind"], second=second, **texts)


def flaw(
    target: Target, window: range, others: Sequence[Target], language: str = "en"
) -> tuple[str, str] | None:
    """(reason, detail) of the first rule that a target breaks, None where it breaks none.

    window: the seconds that the agent was shown, the first that of the instruction; others: the
    targets of the same window that come before it.
    """
    for key, most in MOST_WORDS.items():
        words = len(content.tokens(getattr(target, key)))
        if words > most:
            return "too long", f"{key}: {words} words, at most {most}"
    if names_a_time(f"{target.target} {target.instruction}"):
        return "names a time", target.instruction
    if english(language) and foretells(target.instruction):
        return "gives it away", target.instruction
    if same(target.target, [other.target for other in others]):
        return "proposed twice", target.target
    if english(language) and (reason := _broken(target)):
        return reason, f"{target.kind}: {target.target}"
    if target.second is not None:
        if target.second not in window:
            return "outside the window", f"{target.second} s"
        if target.second < window.start + FIRST_PICTURES:
            return "in the first pictures", f"{target.second} s"
        named = content_words(target.target)
        if english(language) and not any(content.says(word, target.response) for word in named):
            return "not named", f"{target.target!r} in {target.response!r}"
    return None


def _broken(target: Target) -> str | None:
    """The rule of its kind that a target breaks."""
    words = content_words(target.target)
    if not words or set(words) <= _ANYTHING:
        return "too generic"
    if _ABSENT.search(target.target):
        return "nothing to be seen"
    match target.kind:
        case "object":
            return "part of the scene" if set(words) <= _SCENE | _ANYTHING else None
        case "person":
            return "too generic" if set(words) <= _ANYONE else None
        case "action" | "state":
            # Who does it, or what changes, and what: a bare verb or adjective fits too much.
            return "too generic" if len(words) < 2 else None
        case "text":
            return None if len(ocr.squeezed(quoted(target.target))) >= 2 else "no text"
    return None


class Detects(Protocol):
    """A detector of objects, such as `agents.detector.Detector`."""

    @property
    def key(self) -> str: ...

    def __call__(self, picture: Image.Image) -> Sequence[detector.Found]: ...


class Reads(Protocol):
    """A reader of text, such as `agents.ocr.Ocr`."""

    @property
    def key(self) -> str: ...

    def __call__(self, picture: Image.Image) -> Sequence[ocr.Line]: ...


@dataclass(frozen=True)
class Tools:
    """The tools that a run has; they reject what a model then need not be asked about."""

    motion: Motion | None = None
    detects: Detects | None = None
    reads: Reads | None = None


def label_of(target: str) -> str:
    """The detector's label that a target is, and no more than that; empty where it is none.

    >>> label_of("a dog"), label_of("a red car")
    ('dog', '')
    """
    words = " ".join(content.tokens(target))
    return words if words in detector.LABELS else ""


def seen_before(target: Target, pictures: Pictures, tools: Tools) -> tuple[str, str, str] | None:
    """(reason, detail, tool) where a tool tells that a target is not what it is proposed as: it is
    there before its second, or a text can't be read then.

    A detector that finds nothing says nothing: it misses what is small.
    """
    label, text = label_of(target.target), quoted(target.target)
    for second, picture in pictures:
        assert isinstance(picture, Image.Image), "pictures of the clip"
        early = target.second is None or second < target.second
        if tools.detects is not None and label and early:
            if any(one.label == label for one in tools.detects(picture)):
                return "seen earlier", f"second {second}", tools.detects.key
        if tools.reads is not None and target.kind == "text" and text:
            read = ocr.shows(tools.reads(picture), text)
            if early and read >= READ:
                return "seen earlier", f"second {second}", tools.reads.key
            if second == target.second and read < UNREAD:
                return "no text", f"{text!r} is not read in second {second}", tools.reads.key
    return None


async def proposed(
    agent: Agent, window: range, kinds: Sequence[str], most: int, language: str, pictures: Pictures
) -> list[dict[str, Any]]:
    """What the agent proposes for a window, `most` at most, as plain data."""
    fields: dict[str, Field] = {
        "start": window.start,
        "stop": window[-1],
        "kinds": list(kinds),
        "most": most,
        "language": language,
    }
    data = await agent.data(fields, pictures)
    return list(data["targets"])
