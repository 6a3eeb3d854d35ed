"""Memory of what was seen: which pictures are asked about, and what is kept of the answers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from joyvl_train.actions import Response, Silence
from joyvl_train.memory import log_summary
from joyvl_train.stream import Turn
from serve.consolidation import HAPPENED, ModelSummary
from tests.serve.test_session import Said


class Tells:
    """Says what is set, prompt by prompt, and notes what it was shown."""

    system = "Watch."

    def __init__(self, *said: str) -> None:
        self.shown: list[tuple[str, ...]] = []
        self.renderer = self
        self._said = said

    def render_question(self, question, frames, context="", system=""):
        assert (question, system) == (HAPPENED, "Watch.")
        self.shown.append(tuple(frames))
        return question

    def generate_batch(self, prompts: Sequence[str], *, seeds: Sequence[int]) -> list[Said]:
        assert list(seeds) == list(range(len(prompts)))
        return [Said(text, Response(text) if text else None) for text in self._said]


def turns(start: int, stop: int, said: dict[int, str] | None = None) -> list[Turn]:
    said = said or {}
    return [
        Turn(t, (f"f{t}",), action=Response(said[t]) if t in said else Silence())
        for t in range(start, stop)
    ]


def test_each_stretch_is_shown_with_the_last_frame_of_the_one_before() -> None:
    engine = Tells("A dog appeared.", "Nothing changed.", "The dog left.")
    summary = ModelSummary(engine, seconds=10, frames=4)(turns(0, 25))
    assert engine.shown == [
        ("f0", "f3", "f6", "f9"),
        ("f9", "f12", "f16", "f19"),
        ("f19", "f21", "f22", "f24"),
    ]
    assert summary == "0 s: A dog appeared.; 19 s: The dog left."


def test_what_was_said_stands_beside_what_was_seen() -> None:
    spoken = turns(0, 10, {4: "Hello."})
    told = ModelSummary(Tells("A dog appeared."))(spoken)
    assert told == f"0 s: A dog appeared.; {log_summary(spoken)}"
    assert ModelSummary(Tells(""))(spoken) == log_summary(spoken)  # malformed
    assert ModelSummary(Tells("Nothing."))(turns(0, 10)) == "Nothing was said."
    assert ModelSummary(Tells())([]) == "Nothing was said."


def test_it_has_an_end_and_does_not_repeat_itself() -> None:
    engine = Tells(*["A dog appeared."] * 3, "x" * 80, "y" * 80)
    told = ModelSummary(engine, seconds=10, chars=120)(turns(0, 50))
    assert len(told) <= 120 and "y" * 80 in told and "x" not in told
    engine = Tells("A dog appeared.", "A dog appeared.")
    assert ModelSummary(engine)(turns(0, 20)) == "0 s: A dog appeared."


def test_seconds_and_frames_must_be_some() -> None:
    for wrong in ({"seconds": 0}, {"frames": 0}):
        with pytest.raises(ValueError, match="must be 1 or more"):
            ModelSummary(Tells(), **wrong)
    one = Tells("A dog appeared.")
    ModelSummary(one, frames=1)(turns(0, 10))
    assert one.shown == [("f9",)]
