"""The per-second action and its one text form.

Every second the assistant turn holds exactly one action. This module alone knows how an action is
written; it needs nothing but the standard library, so that any tool can import it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SILENCE = "</silence>"
RESPONSE = "</response>"
DELEGATION = "</delegation>"
CONTROL_TOKENS = (SILENCE, RESPONSE, DELEGATION)

_LINE_BREAKS = re.compile(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+\s*")


class ActionFormatError(ValueError):
    """A text that is no action. `reason` is one of a few fixed words that can be counted."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"not an action ({reason}): {text[:200]!r}")
        self.text = text
        self.reason = reason


def _check(text: str, what: str) -> None:
    if not text.strip():
        raise ActionFormatError(text, f"empty {what}")
    if text != text.strip():
        raise ActionFormatError(text, f"stray space around {what}")
    if _LINE_BREAKS.search(text):
        raise ActionFormatError(text, f"line break in {what}")
    if any(token in text for token in CONTROL_TOKENS):
        raise ActionFormatError(text, f"control token in {what}")


@dataclass(frozen=True, slots=True)
class Silence:
    """Say nothing in this second."""


@dataclass(frozen=True, slots=True)
class Response:
    """Speak `text` in this second."""

    text: str

    def __post_init__(self) -> None:
        _check(self.text, "response")


@dataclass(frozen=True, slots=True)
class Delegation:
    """Speak `note` and hand `question` to the background model; users are shown the note only."""

    note: str
    question: str

    def __post_init__(self) -> None:
        _check(self.note, "note")
        _check(self.question, "question")


Action = Silence | Response | Delegation


def fold(text: str) -> str:
    """`text` on one line: line breaks and the space around them become one space, ends stripped."""
    return _LINE_BREAKS.sub(" ", text).strip()


def format_action(action: Action) -> str:
    """The whole text of an assistant turn. `parse_action(format_action(a)) == a` for every action.

    >>> format_action(Delegation("Let me check.", "How many bolts are there?"))
    '</response> Let me check. </delegation> How many bolts are there?'
    """
    match action:
        case Silence():
            return SILENCE
        case Response(text):
            return f"{RESPONSE} {text}"
        case Delegation(note, question):
            return f"{RESPONSE} {note} {DELEGATION} {question}"


def parse_action(text: str) -> Action:
    """The action that `text` writes, by the strict grammar.

    Only a text that `format_action` could have written is taken; anything else raises
    `ActionFormatError` with a reason, and each caller has its own line for that.
    """
    if text == SILENCE:
        return Silence()
    if not text.strip():
        raise ActionFormatError(text, "empty")
    if text.startswith(SILENCE):
        raise ActionFormatError(text, "text after silence")
    if not text.startswith(RESPONSE):
        raise ActionFormatError(text, "no control token first")
    body = text[len(RESPONSE) :]
    if not body.startswith(" "):
        raise ActionFormatError(text, "no space after response token" if body else "empty response")
    body = body[1:]
    note, delegated, question = body.partition(DELEGATION)
    if not delegated:
        return _built(text, Response, body)
    if not note.endswith(" ") or not question.startswith(" "):
        raise ActionFormatError(text, "no space around delegation token")
    return _built(text, Delegation, note[:-1], question[1:])


def _built(text: str, kind: type[Response] | type[Delegation], *parts: str) -> Action:
    try:
        return kind(*parts)
    except ActionFormatError as error:
        raise ActionFormatError(text, error.reason) from None


def spoken(action: Action) -> str | None:
    """What the user is shown and judges read: the response, or the note of a delegation."""
    match action:
        case Silence():
            return None
        case Response(text):
            return text
        case Delegation(note, _):
            return note
