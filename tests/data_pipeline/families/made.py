"""What the tests of the families share: footage of the world without its events, and a desk."""

from __future__ import annotations

import functools
import random
import string
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from data_pipeline.agents.prompts import PROMPTS
from data_pipeline.candidates import Candidate, id_of
from data_pipeline.desk import Desk
from data_pipeline.families import Step, chained
from data_pipeline.world.streams import WorldFrames, stream
from joyvl_train.timeline import Timeline
from tests.data_pipeline.answers import Ask
from tests.data_pipeline.oracle import Oracle

SIDE = 48


class Drawn:
    """The pictures of a stream, each drawn once."""

    def __init__(self, timeline: Timeline) -> None:
        drawn = WorldFrames(timeline, SIDE)
        self.seconds = drawn.seconds
        self.frames = functools.cache(drawn.frames)


_drawn: dict[tuple[str, float | None], Drawn] = {}


def pictures(timeline: Timeline) -> Drawn:
    # Streams of one seed and of two lengths bear one name.
    clip = (timeline.clip.id, timeline.clip.duration)
    if clip not in _drawn:
        _drawn[clip] = Drawn(timeline)
    return _drawn[clip]


def world(family: str, seeds: Iterable[int], **settings: Any) -> list[Candidate]:
    """Streams of the world, as they are."""
    settings = {"backgrounds": ("plain",), **settings}
    made = [stream(family, seed, "train", **settings) for seed in seeds]
    return [Candidate(id_of(one.clip.id), one) for one in made]


def footage(family: str, given: Iterable[Candidate]) -> list[Candidate]:
    """What `given` shows, without its events, to make a family of."""
    return [
        replace(
            one,
            id=id_of(one.timeline.clip.id, family),
            timeline=Timeline(one.timeline.clip, family, "footage"),
        )
        for one in given
    ]


def through(
    oracle: Oracle,
    candidates: list[Candidate],
    stages: Callable[[Desk], list[Step]],
    seed: int = 0,
    **settings: Any,
) -> list[Candidate]:
    """All that comes out of the stages, the oracle being asked."""
    for candidate in candidates:
        oracle.knows(candidate.timeline, pictures(candidate.timeline))
    desk = Desk(pictures, oracle.agents(**settings), window=4, seed=seed)
    return list(chained(stages(desk), candidates))


def told(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that are open and tell something."""
    return [one for one in candidates if one.status == "open" and one.timeline.events]


def reasons(candidates: Iterable[Candidate]) -> Counter[str]:
    return Counter(f"{one.history[-1].stage}: {one.reason}" for one in candidates if one.reason)


def same_events(one: Candidate) -> list[tuple[str, int, str]]:
    return [(e.role, e.second, e.text) for e in one.timeline.events]


# Answers of a model that talks at random, within the schemas or without.


def scripted(seed: int) -> dict[str, Callable[[Ask], Any]]:
    """For each prompt an answer that fits its schema and is otherwise drawn at random."""
    return {name: functools.partial(_drawn_answer, seed, name) for name in PROMPTS}


def _drawn_answer(seed: int, name: str, ask: Ask) -> Any:
    rng = random.Random(f"{seed} {name} {sorted(ask.fields.items())} {ask.seconds}")
    return _fitting(PROMPTS[name].schema, rng)


TEXTS = (
    "",
    "  ",
    "A dog.",
    "a red car",
    "3",
    "Yes.",
    "Tell me when a red car comes.",
    "in 5 seconds",
    "</silence>",
    "</response> <image> x",
    '\u0000\ud800\n- "',
    "long " * 300,
    'a sign that says "EXIT"',
    "It will come soon.",
)


def _fitting(schema: Any, rng: random.Random) -> Any:
    if "enum" in schema:
        # Mostly yes: a no at each turn would let nothing reach the later stages.
        mostly = "yes" in schema["enum"] and rng.random() < 0.8
        return "yes" if mostly else rng.choice(schema["enum"])
    match schema["type"]:
        case "object":
            return {key: _fitting(inner, rng) for key, inner in schema["properties"].items()}
        case "array":
            return [_fitting(schema["items"], rng) for _ in range(rng.randint(0, 4))]
        case "integer":
            return rng.choice((0, 1, 2, 5, 9, rng.randint(0, 30), 10**6, 10**400, 3.0, 1e300))
    if rng.random() < 0.3:
        return "".join(rng.choices(string.printable + "é中</>", k=rng.randint(0, 60)))
    return rng.choice(TEXTS)
