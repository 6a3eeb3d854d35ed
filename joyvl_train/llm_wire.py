"""What `joyvl_train.llm` sends and gets, in bytes: what to trust, when to try again, what it costs.

An endpoint may answer with anything. What is no chat completion is `NotACompletion`, never a crash.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import openai

MAX_BODY = 1 << 24
"""Bytes of one answer; more is no completion, and isn't read to its end."""

IMAGE_TOKENS = 2000
"""Upper bound taken for one image when a request's cost is set aside before it is sent."""


class NotACompletion(ValueError):
    """The endpoint answered with something that is no chat completion."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The text of the first choice, and the tokens that the endpoint says it used."""

    text: str
    prompt_tokens: int
    completion_tokens: int


def read_completion(body: bytes, ends: Mapping[int, str] | None = None) -> Completion:
    """The completion that `body` holds. No choice, or one without text, is an empty text.

    ends: texts of tokens that end an answer, which the server leaves out and vLLM tells the id of.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise NotACompletion(f"no JSON: {body[:80]!r}") from None
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list):
        raise NotACompletion(f"no choices: {body[:80]!r}")
    message = choices[0].get("message") if choices and isinstance(choices[0], dict) else None
    text = message.get("content") if isinstance(message, dict) else None
    if choices and not isinstance(message, dict):
        raise NotACompletion(f"a choice without a message: {body[:80]!r}")
    if text is not None and not isinstance(text, str):
        raise NotACompletion(f"a message whose content is no text: {body[:80]!r}")
    stop = choices[0].get("stop_reason") if choices else None
    if ends and type(stop) is int and stop in ends:  # JSON's true is no id
        text = (text or "") + ends[stop]
    usage = data.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    # A lone surrogate, which JSON can spell, can't be written to a file.
    text = (text or "").encode("utf-8", "replace").decode("utf-8")
    return Completion(text, _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))


async def bound_body(response: Any) -> None:
    """A hook of the HTTP client, before a body is read: one of more than `MAX_BODY` bytes breaks
    off as `NotACompletion`, whatever its status. So does a compressed one, which nobody asked for:
    a few bytes of it could be any number."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise NotACompletion("a compressed body, where none was asked for")

    # Of the kind that it was: the HTTP library takes no other.
    class Bounded(type(response.stream)):  # type: ignore[misc]
        def __init__(self, stream: Any) -> None:
            self._whole = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for chunk in self._whole:
                size += len(chunk)
                if size > MAX_BODY:
                    raise NotACompletion(f"a body of more than {MAX_BODY} bytes")
                yield chunk

        async def aclose(self) -> None:
            await self._whole.aclose()

    response.stream = Bounded(response.stream)


def _count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def said(error: openai.OpenAIError) -> str:
    """What went wrong, however much of it the endpoint sent."""
    cause = f" ({str(error.__cause__)[:100]})" if str(error.__cause__ or "") else ""
    return f"{type(error).__name__}: {str(error)[:300]}{cause}"


def worth_another(error: openai.APIConnectionError | openai.APIStatusError) -> bool:
    """Whether a further try may help."""
    import openai

    if isinstance(error, openai.APIConnectionError):
        return True
    if error.code == "insufficient_quota":  # sent as 429, and waiting does not help
        return False
    return error.status_code in (408, 409, 429) or error.status_code >= 500


def is_refusal(error: openai.OpenAIError) -> bool:
    """Whether it is the question that is not taken."""
    import openai

    return isinstance(error, openai.APIStatusError) and error.status_code in (400, 413, 422)


def nobody_there(error: openai.APIConnectionError | openai.APIStatusError) -> bool:
    """Whether no connection could be had at all: no question can be the cause of that."""
    # By name: which HTTP library stands below differs from version to version.
    return type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")


def asked_wait(error: openai.APIConnectionError | openai.APIStatusError) -> float | None:
    """Seconds that the server asked for, within reason; None where it asked for none."""
    import openai

    if not isinstance(error, openai.APIStatusError):
        return None
    try:
        seconds = float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(max(seconds, 0.0), 120.0) if math.isfinite(seconds) else None


def prompt_bound(messages: Sequence[Mapping[str, Any]]) -> int:
    """No fewer tokens than the prompt has: a token a byte of text, `IMAGE_TOKENS` an image."""
    total = 0
    for message in messages:
        content = message.get("content") or ""
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        total += 16
        for part in parts:
            is_text = part.get("type") == "text"
            total += len(part["text"].encode()) if is_text else IMAGE_TOKENS
    return total
