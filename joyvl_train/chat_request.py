"""The open prompt of a stream as Chat Completions take it, pictures as data URLs.

vLLM keeps the pictures that it has seen by the name that each was sent with (`uuid`): where a
request is `named`, a picture that the server holds goes by its name alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from joyvl_train.conversation import messages
from joyvl_train.llm import image_part, text_part
from joyvl_train.stream import Stream


def chat(
    stream: Stream, system: str = "", *, names: bool = False, held: Set[str] = frozenset()
) -> list[dict[str, Any]]:
    """The open prompt of a stream in the form of Chat Completions; pictures that are `held` go by
    their names alone."""
    turns = stream.turns
    frames = [frame for turn in turns for frame in turn.frames]
    return with_pictures(messages(stream.memory_text, turns, system), frames, names, held)


def with_pictures(
    chat_: Sequence[Mapping[str, Any]],
    frames: Iterable[Any],
    names: bool = False,
    held: Set[str] = frozenset(),
) -> list[dict[str, Any]]:
    """Chat messages with these pictures in their places."""
    left = iter(frames)
    told = []
    for message in chat_:
        content = message["content"]
        if not isinstance(content, str):
            content = [
                _picture(next(left), names, held)
                if part["type"] == "image"
                else text_part(part["text"])
                for part in content
            ]
        told.append({"role": message["role"], "content": content})
    return told


def names_of(stream: Stream) -> frozenset[str]:
    """The names of all pictures in a stream's open chunk."""
    return frozenset(name_of(frame) for turn in stream.turns for frame in turn.frames)


def _picture(frame: Any, names: bool, held: Set[str]) -> Mapping[str, Any]:
    if not names:
        return image_part(frame)
    name = name_of(frame)
    if name in held:
        return {"type": "image_url", "image_url": None, "uuid": name}
    return {**image_part(frame), "uuid": name}


def name_of(frame: bytes) -> str:
    """What a picture is called: by its bytes, so that two that are alike have one name."""
    return hashlib.blake2b(frame, digest_size=16).hexdigest()
