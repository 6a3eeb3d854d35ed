"""A model behind an OpenAI-compatible endpoint, asked for one stream's second at a time.

Each second is one request: the chat of the chunk so far, pictures as JPEG data URLs. What comes
back is read by the strict grammar, as a model's own tokens are; a server that strips special tokens
is told not to (`skip_special_tokens`, as vLLM and our own server know it) where `raw` is set.

vLLM keeps the pictures that it has seen by the name that each was sent with (`uuid`). Where `names`
is set, a picture that was in an answered request goes by its name alone; a server that has lost it
says so, and gets all pictures once more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from PIL import Image

from joyvl_train.actions import (
    RESPONSE,
    SILENCE,
    Action,
    ActionFormatError,
    Response,
    parse_action,
)
from joyvl_train.chat_request import chat, names_of, with_pictures
from joyvl_train.conversation import qa_messages
from joyvl_train.llm import (
    Answer,
    BudgetError,
    Client,
    LLMError,
    Unparsed,
    Unreachable,
)
from joyvl_train.pictures import encode
from joyvl_train.stream import Stream


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What the endpoint said in a second; `error` is "no answer" where none came."""

    text: str
    action: Action | None
    error: str | None
    truncated: bool = False


NO_ANSWER = ChatReply("", None, "no answer")


@dataclass(slots=True)
class _Followed:
    stream: Stream
    seed: int
    bias: float = 0.0
    held: frozenset[str] = frozenset()  # names of the pictures that the server has


@dataclass(frozen=True, slots=True)
class ControlIds:
    """The endpoint's ids of the control tokens, by which a bias on silence is asked for."""

    silence: int
    response: int


@dataclass(slots=True)
class ChatModel:
    """Follows streams and asks `client` for each; it belongs to this model alone.

    The seed of a stream is sent with its requests. Where no answer came `strict` raises the
    `LLMError`; otherwise the reply is `NO_ANSWER`. control: needed for `lean`, None: it is refused;
    silence then ends a reply at once, which spares a vLLM one of two passes a silent second.
    """

    client: Client
    system: str = ""
    max_new_tokens: int = 48
    temperature: float = 0.0
    raw: bool = False
    strict: bool = False
    names: bool = False
    control: ControlIds | None = None
    cache: float | None = None
    """The share of prompt tokens that the server had in its prefix cache, as it was last told."""
    resent: int = 0
    """How often pictures were sent again because the server had lost them."""
    _streams: dict[int, _Followed] = field(default_factory=dict)
    _opened: int = 0

    def open(self, stream: Stream, seed: int | None = None) -> int:
        self._opened += 1
        self._streams[self._opened] = _Followed(stream, seed or 0)
        return self._opened

    def close(self, handle: int) -> None:
        del self._streams[handle]

    def lean(self, handle: int, silence_bias: float) -> None:
        """From its next reply on the stream has this much more on silence.

        It is taken off the token that begins a response, which no reply holds further on. Raises
        `ValueError` where the endpoint's ids aren't known.
        """
        if silence_bias and self.control is None:
            raise ValueError("the ids of the control tokens aren't known, so there is no bias")
        self._streams[handle].bias = silence_bias

    @staticmethod
    def frame(image: Image.Image) -> bytes:
        """A picture as it is kept in the stream: the JPEG that is sent."""
        return encode(image)

    async def reply(self, handle: int) -> ChatReply:
        """What the endpoint says to the open turn. Raises `BudgetError` where a cap is reached."""
        followed = self._streams[handle]
        asked = followed.stream
        shown = names_of(asked) if self.names else frozenset()
        held = followed.held & shown
        try:
            try:
                answer = await self._ask(followed, held)
            except LLMError as error:
                if not held or isinstance(error, BudgetError | Unreachable):
                    raise
                self.resent += 1
                answer = await self._ask(followed, frozenset())
        except LLMError as error:
            followed.held = frozenset()
            if self.strict or isinstance(error, BudgetError):
                raise
            return NO_ANSWER
        followed.held = shown
        return _read(answer)

    async def _ask(self, followed: _Followed, held: Set[str]) -> Answer | Unparsed:
        extra: dict[str, Any] = {"skip_special_tokens": False} if self.raw else {}
        if followed.bias and self.control is not None:
            extra["logit_bias"] = {str(self.control.response): -followed.bias}
        return await self.client.ask(
            chat(followed.stream, self.system, names=self.names, held=held),
            max_tokens=self.max_new_tokens,
            temperature=self.temperature,
            sample=followed.seed,
            extra=extra or None,
            # Silence is whole with its token: the server need not go on to the end of the turn.
            ends={self.control.silence: SILENCE} if self.control is not None else None,
        )

    async def ask(self, question: str, frames: Sequence[Any]) -> str:
        """The model's answer to a question about `frames`, outside every stream; "" for none."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        answer = await self.client.ask(
            [*system, *with_pictures(qa_messages(question, frames), frames, self.names)],
            max_tokens=self.max_new_tokens,
            temperature=0.0,
            extra={"skip_special_tokens": False} if self.raw else None,
        )
        action = _read(answer).action
        return action.text if isinstance(action, Response) else ""

    async def end(self) -> None:
        """Lets go of the connections; nothing may be asked afterwards."""
        await self.client.close()


@dataclass(frozen=True, slots=True)
class Cached:
    """Prompt tokens that a server has looked for in its prefix cache so far, and those it found."""

    asked: float
    found: float

    @property
    def share(self) -> float | None:
        return self.found / self.asked if self.asked else None


async def cached(url: str) -> Cached | None:
    """What a vLLM tells of its prefix cache; None where it doesn't."""
    place = f"{url.rstrip('/').removesuffix('/v1')}/metrics"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http,
            http.get(place) as answer,
        ):
            text = await answer.text() if answer.status == 200 else ""
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError):
        return None
    counts = [
        re.findall(rf"^vllm:prefix_cache_{name}_total\S* (\S+)$", text, re.M)
        for name in ("queries", "hits")
    ]
    return Cached(*(sum(map(float, each)) for each in counts)) if all(counts) else None


async def control_ids(url: str, model: str, key: str = "") -> ControlIds | None:
    """The ids of the control tokens of a model behind vLLM; None where they are no single tokens,
    or the server doesn't tell."""
    found = []
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    place = f"{url.rstrip('/').removesuffix('/v1')}/tokenize"
    timeout = aiohttp.ClientTimeout(total=10)
    try:
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:
            for token in (SILENCE, RESPONSE):
                asked = {"model": model, "prompt": token, "add_special_tokens": False}
                async with http.post(place, json=asked) as answer:
                    told = await answer.json(content_type=None) if answer.status == 200 else {}
                    found.append(told.get("tokens", []))
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
    if any(len(ids) != 1 for ids in found):
        return None
    return ControlIds(int(found[0][0]), int(found[1][0]))


def _read(answer: Answer | Unparsed) -> ChatReply:
    text = answer.text.strip()
    try:
        return ChatReply(text, parse_action(text), None)
    except ActionFormatError as error:
        return ChatReply(text[:1000], None, error.reason)
