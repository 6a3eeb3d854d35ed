"""What asking a model may cost, what it did cost, and how it fails.

A `Budget` holds with many requests in flight: each sets aside the most that it can use before it is
sent, and counts what it used when it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from joyvl_train import llm_wire as wire
from joyvl_train.config import UserError


class LLMError(UserError):
    """The endpoint gave no answer: refused for good, or still failing after every try."""


class Unreachable(LLMError):
    """Nobody listens where the model should answer, after every try: it isn't the question."""


class Refused(LLMError):
    """The endpoint takes no such question (400, 413, 422): others it may well answer."""


class BudgetError(LLMError):
    """The next request could pass the cap on tokens or cost; nothing was sent."""


@dataclass(slots=True)
class Usage:
    """What a client did so far. `cost` is in the currency of the endpoint's prices.

    Tokens are those that the endpoint tells; of an answer of which it tells none, the most that it
    can have used.
    """

    requests: int = 0
    cached: int = 0
    retried: int = 0
    unparsed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(slots=True)
class Budget:
    """What may be spent at most, and what was; None is no cap.

    A client has one for its life; who asks through it may have one of their own (`Client.ask`).
    Each try sets its upper bound aside before it is sent (`hold`), so that a cap holds with many in
    flight; where too much is set aside it waits. `owner` stands in front of what its `BudgetError`
    says.
    """

    max_requests: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    owner: str = ""
    usage: Usage = field(default_factory=Usage)
    _held: int = 0
    _held_tokens: int = 0
    _held_cost: float = 0.0

    def check(self, tokens: int, cost: float) -> None:
        """`BudgetError` where one more request of this size could pass a cap."""
        usage, owner = self.usage, f"{self.owner}: " if self.owner else ""
        mend = "raise the cap and start again"
        if self.max_requests is not None and usage.requests >= self.max_requests:
            raise BudgetError(
                f"{owner}{usage.requests} of {self.max_requests} requests are sent; {mend}"
            )
        if self.max_tokens is not None and usage.tokens + tokens > self.max_tokens:
            raise BudgetError(
                f"{owner}{usage.tokens} of {self.max_tokens} tokens are used; the next request may "
                f"need {tokens}; {mend}"
            )
        if self.max_cost is not None and usage.cost + cost > self.max_cost:
            raise BudgetError(
                f"{owner}{usage.cost:.4f} of {self.max_cost} is spent; the next request may cost "
                f"{cost:.4f}; {mend}"
            )

    def has_room(self, tokens: int, cost: float) -> bool:
        """Whether that much can be set aside beside what is, whatever that comes to."""
        used, spent = self.usage.tokens + self._held_tokens, self.usage.cost + self._held_cost
        fits = self.max_tokens is None or used + tokens <= self.max_tokens
        return fits and (self.max_cost is None or spent + cost <= self.max_cost)

    def hold(self, tokens: int, cost: float) -> None:
        """Set aside what one request may use, and count the request."""
        self.usage.requests += 1
        self._held += 1
        self._held_tokens += tokens
        self._held_cost += cost

    def release(self, tokens: int, cost: float) -> None:
        """The request has ended: what it used is counted, what it might have used is free."""
        self._held -= 1
        self._held_tokens -= tokens
        # Sums of fractions leave a rest.
        self._held_cost = self._held_cost - cost if self._held else 0.0

    def spend(self, completion: wire.Completion, cost: float) -> None:
        self.usage.prompt_tokens += completion.prompt_tokens
        self.usage.completion_tokens += completion.completion_tokens
        self.usage.cost += cost


async def room(budgets: Sequence[Budget], tokens: int, cost: float) -> None:
    """Waits until so much can be set aside; `BudgetError` where it can't be had at all."""
    while True:
        for budget in budgets:
            budget.check(tokens, cost)
        if all(budget.has_room(tokens, cost) for budget in budgets):
            return
        await asyncio.sleep(0.02)  # others are in flight, and most use far less than they may
