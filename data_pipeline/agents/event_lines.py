"""A turn of an annotation as a line that a verifier reads, and reads back.

5 s: user: Is there a dog now?
7 s, again every second until 9 s: assistant: A dog is there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from joyvl_train.timeline import Event

SINCE = ", and again every second since"
"""Marks the line of what is said again now."""

_LINE = re.compile(r"(\d+) s[^:]*: (user|background|assistant): (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class EventLine:
    """What such a line tells."""

    second: int
    role: str
    text: str


def line_of(event: Event) -> str:
    """The line of a turn."""
    until = f", again every second until {event.held_seconds.stop} s" if event.repeat else ""
    return f"{event.second} s{until}: {event.role}: {said_in(event)}"


def line_since(event: Event) -> str:
    """The line of a repeated turn, as those hear it who don't know when it will end."""
    return f"{event.second} s{SINCE}: {event.role}: {said_in(event)}"


def said_in(event: Event) -> str:
    """What is said in it, and what is handed over."""
    if event.question is None:
        return event.text
    return f"{event.text} [hands over: {event.question}]"


def read_line(line: str) -> EventLine | None:
    """What a line of `line_of` tells; None of any other, such as what was said before the video."""
    match = _LINE.fullmatch(line)
    return None if match is None else EventLine(int(match[1]), match[2], match[3])
