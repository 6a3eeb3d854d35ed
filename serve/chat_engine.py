"""A model behind an OpenAI-compatible endpoint as the engine of sessions.

Each second is one request: the chat of the chunk so far, pictures as JPEG data URLs. What comes
back is read by the strict grammar, as a model's own tokens are; a server that strips special tokens
is told not to (`skip_special_tokens`, as vLLM and our own server know it) where `raw` is set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from joyvl_train.actions import Action, ActionFormatError, parse_action
from joyvl_train.conversation import messages
from joyvl_train.llm import (
    Answer,
    BudgetError,
    Client,
    LLMError,
    Unparsed,
    image_part,
    text_part,
)
from joyvl_train.stream import Stream

_RAW = {"skip_special_tokens": False}


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What the endpoint said in a second."""

    text: str
    action: Action | None
    error: str | None
    truncated: bool = False


class ChatEngine:
    """Follows streams for sessions by asking `client`, all that are stepped together at once.

    Its client belongs to it alone. Not for use by several threads at once. The seed of a stream is
    sent with its requests. Where no answer came `strict` raises the `LLMError`; otherwise that
    second is malformed, with the reason "no answer".
    """

    def __init__(
        self,
        client: Client,
        *,
        system: str = "",
        max_new_tokens: int = 48,
        temperature: float = 0.0,
        raw: bool = False,
        strict: bool = False,
    ) -> None:
        self.system = system
        self._strict = strict
        self._client = client
        self._tokens, self._temperature = max_new_tokens, temperature
        self._extra: Mapping[str, Any] | None = _RAW if raw else None
        self._streams: dict[int, tuple[Stream, int]] = {}
        self._opened = 0
        self._runner = asyncio.Runner()

    def open(self, stream: Stream, seed: int | None = None) -> int:
        self._opened += 1
        self._streams[self._opened] = (stream, seed or 0)
        return self._opened

    def close(self, handle: int) -> None:
        del self._streams[handle]

    def step(self, handles: Sequence[int]) -> list[ChatReply]:
        """The replies of streams whose last turn is open. Raises `BudgetError` where a cap is
        reached."""
        return self._runner.run(self._step(handles))

    def end(self) -> None:
        """Lets go of the connections; nothing may be asked afterwards."""
        self._runner.run(self._client.close())
        self._runner.close()

    async def _step(self, handles: Sequence[int]) -> list[ChatReply]:
        found = await asyncio.gather(*(self._ask(*self._streams[h]) for h in handles))
        return list(found)

    async def _ask(self, stream: Stream, seed: int) -> ChatReply:
        try:
            answer = await self._client.ask(
                chat(stream, self.system),
                max_tokens=self._tokens,
                temperature=self._temperature,
                sample=seed,
                extra=self._extra,
            )
        except LLMError as error:
            if self._strict or isinstance(error, BudgetError):
                raise
            return ChatReply("", None, "no answer")
        return _read(answer)


def chat(stream: Stream, system: str = "") -> list[dict[str, Any]]:
    """The open prompt of a stream in the form of Chat Completions."""
    turns = stream.turns
    frames: Iterator[Any] = (frame for turn in turns for frame in turn.frames)
    told = []
    for message in messages(stream.memory_text, turns, system):
        content = message["content"]
        if not isinstance(content, str):
            content = [
                image_part(next(frames)) if part["type"] == "image" else text_part(part["text"])
                for part in content
            ]
        told.append({"role": message["role"], "content": content})
    return told


def _read(answer: Answer | Unparsed) -> ChatReply:
    text = answer.text.strip()
    try:
        return ChatReply(text, parse_action(text), None)
    except ActionFormatError as error:
        return ChatReply(text[:1000], None, error.reason)
