"""A checkpoint's chat template, cut into the fixed strings around the texts of its turns.

`joyvl_train.rendering` puts turns together from these, a segment at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from joyvl_train.processor import CheckpointError, Processor

TEXT_MARK = "qxTURNxq"
"""Stands for the text in a user turn's body (`user_body`)."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The fixed strings of a chat template around the texts of its turns."""

    opening: str  # before the first user turn, without a system message
    system: tuple[str, str]  # around the text of a system message
    user: str  # before a user turn's body
    prompt: str  # between a user turn's body and the generation prompt's end
    lead: str  # what an assistant turn writes before its text
    end: str  # the end-of-turn token
    rest: str  # what follows it


def apply_template(processor: Processor, turns: list[tuple[str, str]], prompt: bool = False) -> str:
    """The chat of these (role, text) turns; `prompt`: and the start of an assistant turn."""
    messages = [{"role": role, "content": [{"type": "text", "text": t}]} for role, t in turns]
    return processor.chat(messages, prompt)


def compile_template(processor: Processor) -> ChatTemplate:
    """The template of a checkpoint, read off chats of marks. `CheckpointError` where it does not
    read the same in every turn, or loses one's text."""
    users, answers = ["qxU0xq", "qxU1xq", "qxU2xq"], ["qxA0xq", "qxA1xq", "qxA2xq"]
    turns = [
        pair
        for u, a in zip(users, answers, strict=True)
        for pair in (("user", u), ("assistant", a))
    ]
    full = apply_template(processor, turns)
    marks = [mark for pair in zip(users, answers, strict=True) for mark in pair]
    pieces = []
    rest = full
    for mark in marks:
        before, found, rest = rest.partition(mark)
        if not found:
            raise CheckpointError(f"the chat template loses a turn's text: {full!r}")
        pieces.append(before)
    pieces.append(rest)
    first, ask0, sep1, ask1, sep2, ask2, last = pieces
    if not (ask0 == ask1 == ask2 and sep1 == sep2 and sep1.startswith(last.rstrip("\n"))):
        raise CheckpointError(f"the chat template does not read the same in every turn: {full!r}")
    prompted = apply_template(processor, turns[:1], prompt=True)
    prefix = first + marks[0]
    if not prompted.startswith(prefix) or not ask0.startswith(prompted[len(prefix) :]):
        raise CheckpointError(f"the chat template's generation prompt starts no turn: {prompted!r}")
    prompt = prompted[len(prefix) :]
    lead = ask0[len(prompt) :]
    end = next((s for s in processor.specials if sep1.startswith(s)), None)
    if end is None:
        raise CheckpointError(
            f"the chat template ends a turn with {sep1!r}, which is no special token"
        )
    with_system = apply_template(processor, [("system", "qxSYSxq"), *turns[:1]])
    before, found, after = with_system.partition("qxSYSxq")
    # A turn's head is what all user turns share: the longest common end of first and later heads.
    user = _common_end(first, sep1[len(end) :], after.partition(marks[0])[0] if found else first)
    after = after.partition(marks[0])[0].removesuffix(user)
    return ChatTemplate(
        opening=first.removesuffix(user),
        system=(before, after),
        user=user,
        prompt=prompt,
        lead=lead,
        end=end,
        rest=sep1[len(end) :].removesuffix(user),
    )


def _common_end(*texts: str) -> str:
    shortest = min(texts, key=len)
    for size in range(len(shortest), 0, -1):
        if all(text.endswith(shortest[-size:]) for text in texts):
            return shortest[-size:]
    return ""


def user_body(processor: Processor, template: ChatTemplate, images: int) -> str:
    """A user turn's body with `images` images; `TEXT_MARK` stands for its text, less the line
    break. `CheckpointError` where the template can't take so many."""
    content = [{"type": "text", "text": f"{TEXT_MARK}\n"}, *({"type": "image"},) * images]
    text = processor.chat([{"role": "user", "content": content}], True)
    head, tail = template.opening + template.user, template.prompt
    # Templates may word the head by what comes first; it must still be the same head.
    if not text.startswith(template.opening):
        raise CheckpointError(f"the chat template opens differently with images: {text!r}")
    body = text.removeprefix(head) if text.startswith(head) else ""
    if not body.endswith(tail) or TEXT_MARK not in body:
        raise CheckpointError(f"the chat template can't take text and {images} images: {text!r}")
    return body.removesuffix(tail)
