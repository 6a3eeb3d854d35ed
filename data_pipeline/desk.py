"""What the stages of a family work with, made once a process."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from data_pipeline.agents.asking import each_asked
from data_pipeline.candidates import Candidate, Stage, each_open
from joyvl_train.config import UserError
from joyvl_train.frames import Frames
from joyvl_train.timeline import Timeline

if TYPE_CHECKING:
    from PIL import Image

    from data_pipeline.agents.agent import Agent


@dataclass(frozen=True)
class Desk:
    """frames: the pictures of a timeline's clip, decoded once for all stages; agents: by the name
    of their prompt; window: questions in flight; seed: of all that is drawn by chance.
    """

    frames: Callable[[Timeline], Frames]
    agents: Mapping[str, Agent] = field(default_factory=dict)
    window: int = 32
    seed: int = 0

    def agent(self, name: str) -> Agent:
        """The agent of this name. `UserError` where the run has none."""
        if name not in self.agents:
            raise UserError(
                f"no agent {name!r}: this family asks one; name an endpoint (agents.url=, "
                "agents.model=), or take another source"
            )
        return self.agents[name]

    def shown(
        self, timeline: Timeline, seconds: Sequence[int] | range
    ) -> list[tuple[int, Image.Image]]:
        """(second, its last picture) of those seconds of the clip that have one."""
        frames = self.frames(timeline)
        inside = [t for t in seconds if 0 <= t < frames.seconds]
        found = [(t, frames.frames(t)) for t in inside]
        return [(t, pictures[-1]) for t, pictures in found if pictures]

    def chance(self, candidate: Candidate, what: str) -> random.Random:
        """Random numbers that depend on the run's seed, the candidate and what they are for."""
        return random.Random(f"{self.seed} | {candidate.id} | {what}")

    def asking(self, name: str, do: Callable[[Candidate], Awaitable[Candidate]]) -> Stage:
        """A stage that asks agents about each open candidate, many at a time, in order."""

        def stage(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
            return each_asked(name, do, candidates, self.window)

        return stage

    def looking(self, name: str, do: Callable[[Candidate], Candidate]) -> Stage:
        """A stage that asks nobody."""

        def stage(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
            return each_open(name, do, candidates)

        return stage
