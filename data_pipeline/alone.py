"""A desk in a run without agents: what only they can do is left out, all else is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from data_pipeline.agents.agent import Agent
from data_pipeline.candidates import Candidate, Stage
from data_pipeline.desk import Desk


class NoAgent(Exception):
    """A stage asked for an agent where there is none."""


@dataclass(frozen=True)
class Alone(Desk):
    """Stages that ask let a candidate by, as it is, where they come to need an agent for it.

    It is for candidates that are whole without: what an agent would have to write must not come.
    """

    def agent(self, name: str) -> Agent:
        raise NoAgent(name)

    def asking(self, name: str, do: Callable[[Candidate], Awaitable[Candidate]]) -> Stage:
        async def one(candidate: Candidate) -> Candidate:
            try:
                return await do(candidate)
            except NoAgent:
                return candidate

        return super().asking(name, one)
