"""An agent: a prompt, a schema for its answer, a model behind a client, and a budget."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from data_pipeline.agents import shown
from data_pipeline.agents.prompts import Field, Prompt
from data_pipeline.agents.shown import Pictures
from joyvl_train.config import UserError
from joyvl_train.conversation import clean, cut
from joyvl_train.llm import (
    Answer,
    Budget,
    BudgetError,
    Client,
    LLMError,
    Refused,
    Schema,
    Unparsed,
    Unreachable,
    text_part,
)

_DETAIL = 300
_SURROGATE = re.compile("[\ud800-\udfff]")


class Unverified(Exception):
    """An agent could not settle what it was asked: the candidate is kept apart, never admitted.

    `reason` is "agent failed" (no answer came), "unparsed" (none that fits the schema) or "unsure".
    """

    def __init__(self, reason: str, detail: str, agent: str) -> None:
        super().__init__(f"{agent}: {reason}: {detail}")
        self.reason, self.detail, self.agent = reason, detail, agent


class AgentDown(UserError):
    """So many questions on end got no answer that going on would only spoil candidates."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier found. `reason` is the model's own, cleaned and cut to a line."""

    yes: bool
    reason: str


class Agent:
    """Asks one model one kind of question.

    budget: what it may spend in all; max_tokens: of one answer (None: as its form says);
    most_pictures and picture_side bound what it is shown, most_chars each of its fields;
    most_failures: questions on end without an answer after which the run ends (None: never), so
    that a server that is down is mended and the run started again, and its candidates are not
    written off. Where nobody listens there any more it ends after the first.

    after: called when a question has ended, well or not, on the thread of the questions.
    """

    def __init__(
        self,
        prompt: Prompt,
        client: Client,
        *,
        budget: Budget | None = None,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        most_pictures: int = 64,
        picture_side: int = 512,
        most_chars: int = 8000,
        most_failures: int | None = 16,
    ) -> None:
        self.prompt, self.client = prompt, client
        self.budget = budget or Budget()
        self.budget.owner = self.budget.owner or f"agent {prompt.name}"
        self.max_tokens = max_tokens or prompt.form.max_tokens
        self.temperature = temperature
        self.most_pictures, self.picture_side = most_pictures, picture_side
        self.most_chars, self.most_failures = most_chars, most_failures
        self._asked = self._unparsed = self._failed = self._on_end = 0
        self._answered = False
        self._seconds = 0.0
        self.after: Callable[[], None] = _nothing

    @property
    def name(self) -> str:
        return self.prompt.name

    @property
    def judges_silence(self) -> bool:
        """Whether it can tell that nothing is to be said."""
        return True

    @property
    def key(self) -> str:
        """Name and version, "window_verifier@1f0c33a9", for a candidate's history."""
        return self.prompt.key

    def counts(self) -> dict[str, float]:
        """What was asked so far, and what it cost. `calls` are requests sent, further tries
        included; `cached` answers cost nothing; `seconds` are those that each question took,
        waiting for its turn among them, one beside the other."""
        usage = self.budget.usage
        return {
            "asked": self._asked,
            "calls": usage.requests,
            "cached": usage.cached,
            "unparsed": self._unparsed,
            "failed": self._failed,
            "tokens": usage.tokens,
            "seconds": self._seconds,
            "cost": usage.cost,
        }

    async def ask(
        self,
        fields: Mapping[str, Field],
        pictures: Pictures = (),
        *,
        marked: Collection[int] = (),
        sample: int = 0,
    ) -> Answer | Unparsed:
        """The model's answer; an `Answer`'s `data` fits the schema.

        Texts and pictures come from outside and are bounded (`Prompt.fill`, `shown.parts`; a
        `TimelineError` where they can't be). Pictures of a second in `marked` are always shown.
        Another `sample` draws another answer. Raises `LLMError` where none came, `BudgetError`
        where the next could cost too much, and `AgentDown`.
        """
        question = text_part(self.prompt.fill(fields, self.most_chars))
        seen = shown.parts(pictures, self.most_pictures, self.picture_side, marked)
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": self.prompt.system},
            {"role": "user", "content": [*seen, question]},
        ]
        return await self._sent(messages, self.prompt.form.schema, sample)

    async def _sent(
        self, messages: list[dict[str, Any]], schema: Schema | None, sample: int
    ) -> Answer | Unparsed:
        """One question, counted, with what it may cost and how often it may fail."""
        self._asked += 1
        started = time.monotonic()
        try:
            answer = await self.client.ask(
                messages,
                schema=schema,
                max_tokens=self.max_tokens,
                temperature=self.temperature,
                sample=sample,
                budget=self.budget,
            )
        except BudgetError:
            raise
        except LLMError as error:
            self._failed += 1
            # A question that is refused tells of the endpoint while that has answered none.
            self._on_end += not (isinstance(error, Refused) and self._answered)
            if self.most_failures is not None and isinstance(error, Unreachable):
                raise AgentDown(
                    f"agent {self.name}: nobody is there to ask; see to the endpoint and start the "
                    f"run again: {error}"
                ) from error
            if self.most_failures is not None and self._on_end >= self.most_failures:
                raise AgentDown(
                    f"agent {self.name}: {self._on_end} questions on end got no answer; see to the "
                    f"endpoint and start the run again: {error}"
                ) from error
            raise
        else:
            self._on_end = 0
            self._answered = self._answered or not answer.cached
            self._unparsed += isinstance(answer, Unparsed)
            return answer
        finally:
            self._seconds += time.monotonic() - started
            self.after()

    async def data(
        self,
        fields: Mapping[str, Field],
        pictures: Pictures = (),
        *,
        marked: Collection[int] = (),
        sample: int = 0,
    ) -> dict[str, Any]:
        """The data of the answer, which can be stored as UTF-8; its numbers are whole.

        `Unverified` where there is none; `BudgetError`, `AgentDown`.
        """
        try:
            answer = await self.ask(fields, pictures, marked=marked, sample=sample)
        except BudgetError:
            raise
        except LLMError as error:
            raise Unverified("agent failed", _line(str(error)), self.key) from error
        if isinstance(answer, Unparsed):
            raise Unverified("unparsed", _line(f"{answer.reason}: {answer.text}"), self.key)
        data: dict[str, Any] = _plain(answer.data)
        return data

    async def judge(
        self,
        fields: Mapping[str, Field],
        pictures: Pictures = (),
        *,
        marked: Collection[int] = (),
        sample: int = 0,
    ) -> Verdict:
        """Yes or no, from an agent whose answer has a verdict; "unsure" is `Unverified`."""
        return self.verdict(await self.data(fields, pictures, marked=marked, sample=sample))

    def verdict(self, data: Mapping[str, Any]) -> Verdict:
        """The verdict that lies in an answer's data; "unsure" is `Unverified`."""
        reason = _line(data.get("reason", ""))
        if data["verdict"] == "unsure":
            raise Unverified("unsure", reason, self.key)
        return Verdict(data["verdict"] == "yes", reason)


def _nothing() -> None:
    """Nobody watches what is spent."""


def _line(text: str) -> str:
    """A model's words as they may stand in a history."""
    return cut(clean(text), _DETAIL)


def _plain(data: Any) -> Any:
    """What a JSON schema lets by, though no one means it: a lone surrogate, 3.0 for 3."""
    if isinstance(data, str):
        return _SURROGATE.sub("\ufffd", data)
    if isinstance(data, float) and data.is_integer():
        return int(data)
    if isinstance(data, list):
        return [_plain(one) for one in data]
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    return data
