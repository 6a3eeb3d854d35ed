"""What a model said in one second, read off the tokens that were drawn."""

from __future__ import annotations

from dataclasses import dataclass

from joyvl_train.actions import Action, ActionFormatError, parse_action
from joyvl_train.rendering import Renderer
from joyvl_train.sampling import Draw


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said in one second.

    text: the whole text, without the end-of-turn token. action: what it says by the grammar; None
    where it is malformed, and then `error` is the reason. A text cut at the token limit
    (`truncated`) is closed where it was cut and read like any other. tokens: the ids generated, the
    end-of-turn id included. prompt_tokens: how long the whole prompt was. logprobs: per token,
    under the distribution at the engine's temperature (1 where greedy), before top-p; empty unless
    the engine was asked for details. gaps: likewise, how far the best log-probability lay above the
    second best.
    """

    text: str
    action: Action | None
    error: str | None
    tokens: tuple[int, ...]
    truncated: bool
    prompt_tokens: int
    logprobs: tuple[float, ...] = ()
    gaps: tuple[float, ...] = ()


def read_reply(renderer: Renderer, draw: Draw, prompt_tokens: int) -> Reply:
    """The reply that `draw` makes to a prompt of so many tokens."""
    tokens = draw.tokens[:-1] if draw.ended else draw.tokens
    text = renderer.read(tokens)
    if not draw.ended:
        # A cut may fall after a space or within a character, which is not the model's fault.
        text = text.rstrip("\ufffd").rstrip()
    action, error = None, None
    try:
        action = parse_action(text)
    except ActionFormatError as problem:
        error = problem.reason
    return Reply(
        text=text,
        action=action,
        error=error,
        tokens=tuple(draw.tokens),
        truncated=not draw.ended,
        prompt_tokens=prompt_tokens,
        logprobs=tuple(draw.logprobs),
        gaps=tuple(draw.gaps),
    )
