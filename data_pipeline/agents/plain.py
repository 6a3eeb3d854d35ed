"""An agent on a small model that writes no JSON: plain questions, yes and no as words.

What another agent is asked in one prompt with its conditions is put as a few plain questions about
single pictures (`plain_looks`), each in several wordings; the answers are counted. It stands
wherever an agent that gives a verdict does:

    agents = {name: PlainAgent(name, client) for name in PLAIN}
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any

from data_pipeline.agents import shown
from data_pipeline.agents.agent import Agent, Unverified
from data_pipeline.agents.event_lines import SINCE
from data_pipeline.agents.plain_looks import (
    FIELDS,
    FOLDER,
    Look,
    acknowledges,
    annotation_looks,
    line_looks,
    looks,
    wordings,
)
from data_pipeline.agents.prompts import Field, load
from data_pipeline.agents.shown import Pictures
from joyvl_train.config import UserError
from joyvl_train.content import says, tokens
from joyvl_train.conversation import clean
from joyvl_train.llm import Answer, BudgetError, Client, LLMError, text_part

PLAIN = (
    "dense_precheck",
    "grounding_checker",
    "window_verifier",
    "local_verifier",
    "global_verifier",
)
"""The agents whose question can be put plainly."""

_NOTHING = re.compile(r"\b(?:nothing|none|empty)\b", re.IGNORECASE)
_MOST_TOKENS = 40


class PlainAgent(Agent):
    """`judge` and `data` as of an `Agent`, by plain questions.

    names: whether a thing is there is asked by "what is there?", and its name must be among those
    said; else by yes or no. least: the share of wordings whose answer must be the wanted one;
    least_before: the same of looks to the `over` seconds that end `back` before a line's own, on
    average; 0 leaves these out. The defaults are those that `benchmarks/verifiers.py` chose for the
    small base beside its tools, on tuning streams.

    An answer that is neither yes nor no counts for nothing; a look of which all answers are such is
    "unparsed", a line that no plain question fits "unsure".
    """

    def __init__(
        self,
        name: str,
        client: Client,
        *,
        names: bool = False,
        least: float = 0.4,
        least_before: float = 0.4,
        back: int = 1,
        over: int = 1,
        folder: Path = FOLDER,
        **settings: Any,
    ) -> None:
        if name not in PLAIN:
            raise UserError(f"agent {name!r} can't be asked plainly, only {', '.join(PLAIN)}")
        for share in (least, least_before):
            if not 0 <= share <= 1:
                raise ValueError(f"least {least!r}, least_before {least_before!r}: from 0 to 1")
        if back < 1 or over < 1:
            raise ValueError(f"back {back}, over {over}: 1 second or more")
        super().__init__(load(name), client, **{"max_tokens": _MOST_TOKENS, **settings})
        self.names, self.back, self.over = names, back, over
        self.least, self.least_before = least, least_before
        self._wordings = {kind: wordings(kind, folder) for kind in FIELDS}
        told = repr((names, back, over, least, least_before, sorted(self._wordings.items())))
        self._key = f"plain_{name}@{hashlib.sha256(told.encode()).hexdigest()[:8]}"

    @property
    def key(self) -> str:
        return self._key

    @property
    def judges_silence(self) -> bool:
        """That nothing is to be said, no look at single things can tell."""
        return False

    async def data(
        self,
        fields: Mapping[str, Field],
        pictures: Pictures = (),
        *,
        marked: Collection[int] = (),
        sample: int = 0,
    ) -> dict[str, Any]:
        """The verdict on all looks, the first that fails named. `Unverified` where there is none to
        be had; `BudgetError`, `AgentDown`."""
        found = self._looks(fields, pictures)
        if found is None:
            raise Unverified("unsure", "no plain question asks this", self.key)
        seconds = dict(pictures)
        done = 0
        for before, group in groupby(found, key=lambda look: look.before):
            looked = list(group)
            if before:
                looked = [k for k in looked if k.second in seconds] if self.least_before else []
            shares = []
            for look in looked:
                shares.append(await self._share(look, seconds, sample))
                done += 1
                if not before and shares[-1] < self.least:
                    return _failed(look, shares[-1])
            if before and shares and (share := sum(shares) / len(shares)) < self.least_before:
                return _failed(looked[0], share)
        return {"reason": f"{done} looks", "verdict": "yes"}

    def _looks(self, fields: Mapping[str, Field], pictures: Pictures) -> tuple[Look, ...] | None:
        """What to find out; None where it can't be asked plainly."""
        self.prompt.fill(fields, self.most_chars)  # the fields are those of the prompt, and bounded
        told: Any = fields
        match self.name:
            case "dense_precheck":
                found = looks(_target(told["target"]), pictures[-1][0], begins=False)
            case "grounding_checker":
                found = looks(told["text"], told["second"], begins=False)
            case "window_verifier":
                found = looks(told["response"], told["second"], back=self.back, over=self.over)
            case "local_verifier":
                if acknowledges(told["text"]):
                    return ()
                since = any(SINCE in line for line in told["earlier"])
                given = told["second"], told["text"], told["instruction"]
                found = line_looks(*given, self.back, self.over, begins=not since)
            case _:
                lines = told["annotation"]
                return annotation_looks(lines, told["start"], told["stop"], self.back, self.over)
        return found or None

    async def _share(self, look: Look, seconds: Mapping[int, Any], sample: int) -> float:
        """The share of answers that are the wanted one; `Unverified` where none can be read, or
        the picture is not there."""
        if look.second not in seconds:
            raise Unverified("unsure", f"no picture of second {look.second}", self.key)
        picture = [(look.second, seconds[look.second])]
        right = read = 0
        last = ""
        for question in self._questions(look):
            last = await self._said(question, picture, sample)
            found = self._read(look, last)
            if found is not None:
                read += 1
                right += found
        if not read:
            raise Unverified("unparsed", f"{look.told()}: {clean(last)[:100]!r}", self.key)
        return right / read

    def _questions(self, look: Look) -> list[str]:
        given = {name: clean(value) for name, value in look.given}
        if look.kind == "asked":
            return [given["question"]]
        kind = "names" if self.names and look.kind == "there" else look.kind
        return [Template(line).substitute(given) for line in self._wordings[kind]]

    def _read(self, look: Look, answer: str) -> bool | None:
        """Whether an answer is the wanted one; None where it is no answer."""
        words = tokens(answer)
        if not words:
            return None
        if not isinstance(look.wanted, str):
            return all(says(word, answer) for word in look.wanted)
        if self.names and look.kind == "there":
            noun = " ".join(tokens(dict(look.given)["a"])).removeprefix("some ")
            there = says(noun, answer) and not _NOTHING.search(answer)
            return there is (look.wanted == "yes")
        said = {"yes", "no"} & set(words[:1])
        return look.wanted in said if said else None

    async def _said(self, question: str, picture: Pictures, sample: int) -> str:
        """The model's words; the question comes first and no time is told, as in its training."""
        seen = shown.parts(picture, 1, self.picture_side)
        content = [text_part(question), *(part for part in seen if part["type"] != "text")]
        try:
            answer = await self._sent([{"role": "user", "content": content}], None, sample)
        except BudgetError:
            raise
        except LLMError as error:
            raise Unverified("agent failed", str(error)[:300], self.key) from error
        assert isinstance(answer, Answer), "nothing is parsed without a schema"
        return answer.text


def _failed(look: Look, share: float) -> dict[str, Any]:
    return {"reason": f"{look.told()}, by {share:.2f} of the answers", "verdict": "no"}


def _target(text: str) -> str:
    """A target as a line: with an article, where it has none."""
    target = text.strip().rstrip(".")
    return target if looks(target, 0) else f"a {target}"
