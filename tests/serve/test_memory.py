"""Keepers of memory: what each tells of a chunk, and what is found again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from joyvl_train.actions import Response, Silence
from joyvl_train.memory import Limits, Summary, log_summary
from joyvl_train.stream import Turn
from serve.consolidation import ModelSummary
from serve.memory import Said, Searched, Seen, block_of
from tests.serve.test_consolidation import Tells

TURNS = [
    Turn(t, (f"f{t}",), action=Response("A dog.") if t == 12 else Silence()) for t in range(25)
]
TOLD = ("A cat came.", "Nothing.", "The cat left.")


def test_what_was_seen_is_told_as_training_tells_it() -> None:
    left = list(TOLD)

    async def ask(question: str, frames: Sequence[Any]) -> str:
        return left.pop(0)

    text = asyncio.run(Seen(ask, frames=4).chunk(range(25), TURNS))
    assert text == ModelSummary(Tells(*TOLD), seconds=10, frames=4)(TURNS)  # type: ignore[arg-type]
    assert "A cat came." in text and "A dog." in text and not left


def test_what_was_said_needs_nobody() -> None:
    assert asyncio.run(Said().chunk(range(25), TURNS)) == log_summary(TURNS)
    assert Said().recall("Was there a dog?", 100) == ""


def test_lines_are_found_again_once_the_stream_has_forgotten_them() -> None:
    class Lines(Said):
        async def chunk(self, seconds: range, turns: Sequence[Turn]) -> str:
            return {0: "3 s: a red car came; 5 s: rain", 100: "103 s: a blue car left"}[
                seconds.start
            ]

    keeper = Searched(Lines())
    for start in (0, 100):
        asyncio.run(keeper.chunk(range(start, start + 100), ()))
    assert keeper.recall("When was the car red?", 100) == "3 s: a red car came"
    assert keeper.recall("When was the car red?", 50) == ""  # the stream still tells of it
    assert "blue" in keeper.recall("Tell me of the blue car", 300)
    assert keeper.recall("Elephants?", 300) == ""


def test_searched_lines_are_bounded() -> None:
    class Lines(Said):
        async def chunk(self, seconds: range, turns: Sequence[Turn]) -> str:
            return f"{seconds.start} s: thing number{seconds.start}"

    keeper = Searched(Lines(), most=5)
    for start in range(0, 2000, 100):
        asyncio.run(keeper.chunk(range(start, start + 100), ()))
    assert len(keeper._lines) == 5 and sum(keeper._known.values()) == 15
    assert len(keeper._known) == 11
    assert keeper.recall("number100", 9999) == "" and "number1900" in keeper.recall(
        "number1900", 9999
    )


def test_a_block_covers_its_summaries() -> None:
    summaries = [Summary(0, 90, "One."), Summary(90, 190, "Two.")]
    assert block_of(summaries, "Both.", Limits()) == Summary(0, 190, "Both.")
    assert block_of(summaries, " ", Limits()).text == "One. Two."
