"""(memory text, turns) -> chat messages: one form for training, rollouts and serving.

A user turn is, in this order: background lines, query, time, images; an assistant turn is one
action. Text from outside passes `clean`, so that it never forms a control string, an image
placeholder or another special token, nor a line of this format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from joyvl_train.actions import (
    Action,
    Delegation,
    Response,
    Silence,
    fold,
    format_action,
)

if TYPE_CHECKING:
    from joyvl_train.stream import Turn

_OPENING_BRACKET = re.compile(r"<(?=\S)")
_OPEN_END = re.compile(r"[\s<]+\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NEXT = "Next."
_BACKGROUND = "[Background"
_RESULT = re.compile(r"\[Background (\d{1,6})\] (.*\S)")


def clean(text: str) -> str:
    """`text` on one line, with nothing in it that a tokenizer or this format takes for a marker.

    Every "<" gets a space after it, a leading "[Background" becomes "[ Background", and a lone
    surrogate, which no tokenizer can encode, becomes U+FFFD. `clean(clean(x)) == clean(x)`.

    >>> clean("see </s>\\nand <|im_end|>")
    'see < /s> and < |im_end|>'
    """
    text = _OPENING_BRACKET.sub("< ", fold(_SURROGATE.sub("\ufffd", text)))
    return "[ " + text[1:] if text.startswith(_BACKGROUND) else text


def cut(text: str, chars: int) -> str:
    """The first `chars` characters of a cleaned text; what is cut off shows as an ellipsis.

    What `clean` made safe stays safe: the cut never leaves a "<" at the end.
    """
    if len(text) <= chars:
        return text
    return _OPEN_END.sub("", text[: chars - 1]) + "…"


def frame_marks(predicted: Sequence[bool]) -> str:
    """A mark for each frame where one of them shows a change alone: `~`, or of three of which the
    first is whole `=~~`; "" where all are whole."""
    return "".join("~" if change else "=" for change in predicted) if any(predicted) else ""


def time_line(second: int, predicted: Sequence[bool] = ()) -> str:
    """The time of a turn, as the model reads it: `<7.0 seconds>`; the frames' marks follow."""
    return f"<{second:.1f} seconds> {frame_marks(predicted)}".rstrip()


def user_content(turn: Turn) -> list[dict[str, str]]:
    """The parts of a user turn: one text part, then one image part a frame.

    The text is `[Background n] digest\\nquery\\n<t.0 seconds>\\n`, each line only where there is
    one; several queries of one second, and notes after them, stand on one line, joined by a space.
    """
    lines = [f"{_BACKGROUND} {number}] {clean(digest)}" for number, digest in turn.results]
    query = " ".join(filter(None, map(clean, (*turn.queries, *turn.notes))))
    if query:
        lines.append(query)
    lines.append(time_line(turn.second, turn.predicted))
    text = "".join(f"{line}\n" for line in lines)
    return [{"type": "text", "text": text}, *({"type": "image"} for _ in turn.frames)]


def assistant_text(action: Action) -> str:
    """The whole text of an assistant turn in a prompt or a target.

    This is `format_action`, with the texts cleaned: a response may come from an annotation or from
    a model that spelt out a special token, and must not become one when it is read back.
    """
    match action:
        case Response(text):
            return format_action(Response(clean(text)))
        case Delegation(note, question):
            return format_action(Delegation(clean(note), clean(question)))
        case Silence():
            return format_action(action)


def system_text(memory_text: str, system: str = "") -> str:
    """The text of the system message: the system prompt, then the memory; "" where there is none.

    `memory_text` is taken as it is: `joyvl_train.memory.memory_text` has cleaned its parts.
    """
    return "\n\n".join(filter(None, (system.strip(), memory_text.strip())))


def messages(memory_text: str, turns: Iterable[Turn], system: str = "") -> list[dict[str, Any]]:
    """The chat of one chunk. The last turn may be open (no action): then it is a prompt.

    The images of the chat are the turns' frames, in order. Raises `ValueError` where a turn before
    the last has no action.
    """
    chat: list[dict[str, Any]] = []
    opening = system_text(memory_text, system)
    if opening:
        chat.append({"role": "system", "content": opening})
    unanswered: int | None = None
    for turn in turns:
        if unanswered is not None:
            raise ValueError(f"second {unanswered} has no action, but second {turn.second} follows")
        chat.append({"role": "user", "content": user_content(turn)})
        if turn.action is None:
            unanswered = turn.second
        else:
            chat.append({"role": "assistant", "content": assistant_text(turn.action)})
    return chat


def split_context(context: str) -> tuple[str, list[str]]:
    """(memory text, background lines) of a turn-based sample's context.

    Lines of the form `[Background n] digest` are results, which stand in the user turn as in a
    stream; all others are memory text, which stands in the system message as in a stream.
    """
    memory: list[str] = []
    results: list[str] = []
    for line in context.splitlines():
        result = _RESULT.match(line)
        if result:
            results.append(f"{_BACKGROUND} {result[1]}] {clean(result[2])}")
        elif clean(line):
            memory.append(clean(line))
    return "\n".join(memory), results


def next_content(question: str = "", predicted: bool = False) -> list[dict[str, str]]:
    """The parts of a further user turn of a turn-based sample: one more frame, no time line, and
    a question of its own where the first one is not asked anew. predicted: the frame shows a
    change alone, and is marked so."""
    lines = filter(None, (clean(question) or _NEXT, frame_marks([predicted])))
    text = "".join(f"{line}\n" for line in lines)
    return [{"type": "text", "text": text}, {"type": "image"}]


def qa_messages(
    question: str,
    frames: Sequence[Any],
    answer: str | None = None,
    context: str = "",
    before: Sequence[str] = (),
    further: Sequence[str] = (),
    predicted: Sequence[bool] = (),
) -> list[dict[str, Any]]:
    """The chat of a turn-based sample: memory text, one user turn without a time line, its answer.

    The user turn is the background lines of the context, the question, then one image part a frame.
    The answer is written as a response, so that a model taught by it speaks the grammar; None makes
    a prompt. Where there are answers `before` it, each frame is a turn of its own; the question
    stands in the first, and each other one asks it anew, or what `further` holds for it.
    predicted: of each of these frames, whether it shows a change alone; the first never does.
    """
    if not clean(question):
        raise ValueError("a turn-based sample needs a question, got an empty one")
    if before and len(frames) != len(before) + 1:
        raise ValueError(f"{len(before) + 1} turns of a frame each, but {len(frames)} frames")
    if further and len(further) != len(before):
        raise ValueError(f"{len(before)} turns after the first, but {len(further)} questions")
    memory, results = split_context(context)
    if any(predicted[: 1 if before else None]):
        raise ValueError("the frames of a question's first turn are whole")
    text = "".join(f"{line}\n" for line in (*results, clean(question)))
    shown = frames[:1] if before else frames
    content = [{"type": "text", "text": text}, *({"type": "image"} for _ in shown)]
    chat: list[dict[str, Any]] = [{"role": "system", "content": memory}] if memory else []
    chat.append({"role": "user", "content": content})
    asked_next = further or [""] * len(before)
    changes = predicted[1:] or [False] * len(before)
    for said, asked, change in zip(before, asked_next, changes, strict=True):
        chat.append({"role": "assistant", "content": assistant_text(Response(clean(said)))})
        chat.append({"role": "user", "content": next_content(asked, change)})
    if answer is not None:
        text = assistant_text(Response(clean(answer)))
        chat.append({"role": "assistant", "content": text})
    return chat
