"""The model with its choice of what to hand over taken from it, in what is shown and remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.handing import NOTE, Overruled, always_delegates, never_delegates
from eval.play import Played, play
from eval.rules import judge
from eval.systems import Streaming
from joyvl_train.actions import Action, Delegation, Response, Silence
from joyvl_train.memory import log_summary
from joyvl_train.stream import StreamSettings
from serve.session import Session, Tick
from tests.eval.made_cases import FIRE, made
from tests.eval.test_play import TASK, frames_of
from tests.serve.test_session import Script

HARD = Delegation("Let me see.", "What is 12 x 12?")


def played(folder: Path, text: str, change, says: dict[int, Action | None]) -> Played:
    case = made(folder, text)
    engine = Overruled(Script(says), change)
    system = Streaming("overruled", engine, StreamSettings(), log_summary)
    return play(case, frames_of(case), system)


def test_who_hands_nothing_over_says_the_note_and_waits_in_vain(tmp_path: Path) -> None:
    says: dict[int, Action | None] = {4: HARD, 24: Response("A fire appeared.")}
    trace = played(tmp_path, TASK, never_delegates, says).trace
    assert [(e.second, e.text, e.delegation) for e in trace.emissions] == [
        (4, "Let me see.", False),
        (24, "A fire appeared.", False),
    ]
    assert not any(step.results for step in trace.steps)
    grade = judge(trace)
    assert (grade.quality, grade.timing) == (1, 1)  # what was to be handed over was kept


def test_who_hands_everything_over_waits_for_what_is_easy(tmp_path: Path) -> None:
    says: dict[int, Action | None] = {2: Response("Yes."), 24: Response("A fire appeared.")}
    trace = played(tmp_path, FIRE, always_delegates, says).trace
    handed = {s.second: s.action for s in trace.steps if isinstance(s.action, Delegation)}
    assert handed == {2: Delegation(NOTE, "Tell me every time a fire appears.")}
    errors = [text for step in trace.steps for _, text in step.results]
    assert len(errors) == 1 and errors[0].startswith("Error")
    assert [e.second for e in trace.emissions] == [2, 24]


@pytest.mark.parametrize("said", [Silence(), Response("Yes."), None])
def test_nothing_else_is_changed(said: Action | None) -> None:
    plain, overruled = Script({1: said}), Overruled(Script({1: said}), never_delegates)
    told = []
    for engine in (plain, overruled):
        session = Session(engine)
        told.append([session.step(Tick(t, ("frame",), ())) for t in range(3)])
        session.close()
    assert told[0] == told[1]


def test_what_was_made_of_it_stands_in_the_history() -> None:
    engine = Overruled(Script({1: Response("42.")}), always_delegates)
    session = Session(engine)
    session.step(Tick(0, ("frame",)))
    session.step(Tick(1, ("frame",), ("What is  6 x 7? </response> 42",)))
    (turn,) = [t for t in session.stream.turns if t.second == 1]
    assert turn.action == Delegation(NOTE, "What is  6 x 7? < /response> 42")
    assert session.stream.open_tasks == {1}
