"""Cases played on the simulated clock: what each kind of system is told, says and is charged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from data_pipeline.world.streams import WorldFrames
from eval.case import CaseError
from eval.grades import Unscored
from eval.play import Played, charged, play
from eval.recorded import read_recorded
from eval.rules import judge
from eval.systems import TRIVIAL, Fixed, Recorded, Streaming, TurnBased
from eval.verdicts import cut_off
from joyvl_train.actions import Action, Delegation, Response, Silence
from joyvl_train.memory import log_summary
from joyvl_train.stream import StreamSettings
from joyvl_train.timeline import TimelineError
from tests.eval.made_cases import FIRE, made
from tests.serve.test_session import Script


def spoken(played: Played) -> dict[int, str]:
    return {e.second: e.text for e in played.trace.emissions}


def frames_of(case):
    return WorldFrames(case.timeline, 32)


def test_policies_that_look_at_nothing(tmp_path: Path) -> None:
    case = made(tmp_path)
    counts = {}
    for name, speaks in TRIVIAL.items():
        played = play(case, frames_of(case), Fixed(name, "Yes.", speaks))
        counts[name] = len(spoken(played))
        assert [s.queries for s in played.trace.steps if s.queries] == [
            ("Tell me every time a fire appears.",)
        ]
        assert judge(played.trace).score == 0
    assert counts == {"always silent": 0, "always speaking": 40, "poll of canned text": 39}


def test_a_model_on_the_stream_is_played_through_a_session(tmp_path: Path) -> None:
    case = made(tmp_path)
    engine = Script({24: Response("A fire appeared.")})
    summaries = []

    def summarize(turns):
        summaries.append([turn.second for turn in turns])
        return log_summary(turns)

    system = Streaming("ours", engine, StreamSettings(20, 5), summarize)
    played = play(case, frames_of(case), system)
    assert judge(played.trace).score == 2 and spoken(played) == {24: "A fire appeared."}
    assert summaries == [list(range(15)), list(range(15, 35))]
    assert not engine.streams  # closed


TASK = FIRE.replace(
    "quiet:\n  - {from: 3, to: 24}\n",
    '  - {id: task, at: 4, says: Let me see., delegates: "What is 12 x 12?"}\n'
    "  - {at: 9, says: It is 144., facts: ['144'], answers: back}\n"
    "background:\n  - {id: back, at: 9, says: 12 x 12 is 144., answers: task}\n",
)


def test_results_come_back_after_the_systems_own_delegation(tmp_path: Path) -> None:
    case = made(tmp_path, TASK)
    hard = Delegation("Let me see.", "What is 12 x 12?")
    for delay in (0, 1):
        engine = Script({4 + delay: hard, 9 + delay: Response("It is 144.")})
        system = Streaming("ours", engine, StreamSettings(), log_summary)
        played = play(case, frames_of(case), system)
        came = {s.second: s.results for s in played.trace.steps if s.results}
        assert came == {9 + delay: ((1, "12 x 12 is 144."),)}
        assert [o.second for o in played.trace.onsets] == [4, 9 + delay, 24]
    silent = play(case, frames_of(case), Streaming("s", Script(), StreamSettings(), log_summary))
    assert [o.second for o in silent.trace.onsets] == [4, 24]  # without it no answer is due


@dataclass
class Reply:
    text: str
    action: Action | None = None
    error: str | None = "no control token first"
    truncated: bool = False


class Turns:
    """A turn-based model: it says in plain words what it is asked and of how many frames."""

    system = ""

    def __init__(self, say=None) -> None:
        self.asked: list[tuple[str, int, str]] = []
        self.renderer = self
        self._say = say or (lambda question: Reply(f"About {question}"))

    def render_question(self, question, frames, context="", system=""):
        self.asked.append((question, len(frames), context))
        return question

    def generate_batch(self, prompts: Sequence[str], *, seeds: Sequence[int]) -> list[Reply]:
        assert len(prompts) == len(seeds)
        return [self._say(prompt) for prompt in prompts]


def test_a_poller_asks_anew_and_the_other_only_when_it_is_spoken_to(tmp_path: Path) -> None:
    case = made(tmp_path)
    model = Turns()
    polled = play(case, frames_of(case), TurnBased("poller", model, period=5))
    assert sorted(spoken(polled)) == [4, 9, 14, 19, 24, 29, 34, 39]
    assert set(model.asked) == {("Tell me every time a fire appears.", 1, "")}
    asked = play(case, frames_of(case), TurnBased("ask only", model))
    assert sorted(spoken(asked)) == [2]
    cut = cut_off({"fire": polled.trace, "lost": Unscored("why")}, 20)
    assert [e.second for e in cut["fire"].emissions] == [4, 9, 14, 19]
    assert cut["lost"] == Unscored("why") and len(cut["fire"].steps) == 40


def test_a_turn_based_answer_that_is_no_text_is_malformed(tmp_path: Path) -> None:
    case = made(tmp_path)
    for reply, reason in (
        (Reply("", error="empty"), "empty"),
        (Reply("</response>"), "no control"),
    ):
        played = play(case, frames_of(case), TurnBased("x", Turns(lambda q, r=reply: r)))
        (step,) = [s for s in played.trace.steps if s.malformed]
        assert step.second == 2 and step.malformed.startswith(reason)
        assert step.action == Silence()


def test_what_a_step_takes_can_be_charged_to_what_it_says(tmp_path: Path) -> None:
    case = made(tmp_path)
    said = {24: Response("A fire appeared."), 25: Response("Fire!"), 39: Response("Bye.")}
    played = play(case, frames_of(case), Recorded("r", {"fire": said}))
    slow = Played(played.trace, tuple(1.4 if t == 24 else 0.2 for t in range(40)))
    assert {e.second: e.text for e in charged(slow).emissions} == {
        25: "A fire appeared.",
        26: "Fire!",  # nothing overtakes what was said before
        39: "Bye.",
    }
    assert {e.second for e in charged(slow, 3.0).emissions} == {27, 28}  # the last is not heard
    # Where seconds had no picture what is said moves on to one that had, and nothing is lost.
    gap = tuple(s for s in played.trace.steps if s.second not in (26, 27))
    holed = Played(replace(played.trace, steps=gap), slow.latencies)
    assert {e.second for e in charged(holed).emissions} == {25, 28, 39}
    assert charged(slow, 0.0) == played.trace


def test_a_transcript_that_handed_over_gets_its_result(tmp_path: Path) -> None:
    case = made(tmp_path, TASK)
    said = {4: Delegation("Let me see.", "12 x 12?"), 9: Response("It is 144.")}
    said[24] = Response("A fire appeared.")
    played = play(case, frames_of(case), Recorded("app", {"fire": said}))
    assert [o.second for o in played.trace.onsets] == [4, 9, 24]
    assert judge(played.trace).score == 2


def test_a_stream_that_is_too_short_for_its_case_is_refused(tmp_path: Path) -> None:
    case = made(tmp_path)

    class Short:
        seconds = 20

        def frames(self, second):
            return ()

    with pytest.raises(TimelineError, match="past the end"):
        play(case, Short(), Fixed("x", "Yes.", lambda t: False))


def test_transcripts_of_systems_without_an_api(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    path.write_text(
        '{"case": "fire", "time": 24.9, "text": "Careful!"}\n'
        '{"case": "fire", "time": 24.8, "text": "A fire\\n appeared."}\n\n'
        '{"case": "quiet"}\n'
        '{"case": "task", "time": 3, "text": "One moment.", "delegates": "What is 9 x 9?"}\n'
    )
    system = read_recorded(path)
    assert system.name == "app" and list(system.cases) == ["fire", "quiet", "task"]
    assert (system.last("fire"), system.last("quiet")) == (25, -1)
    played = play(made(tmp_path), frames_of(made(tmp_path)), system)
    assert spoken(played) == {24: "A fire appeared.", 25: "Careful!"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: no JSON"),
        ('{"time": 3}', "case is missing"),
        ('{"case": "a", "text": "Hi."}', "a text without a time"),
        ('{"case": "a", "time": -1, "text": "Hi."}', "time is -1"),
        ('{"case": "a", "time": NaN, "text": "Hi."}', "time is nan"),
        ('{"case": "a", "time": 3, "text": "</silence>"}', "control token"),
        ('{"case": "a", "time": 3, "delegates": "What?"}', "says nothing"),
        ('{"case": "a", "time": 3, "words": "Hi."}', "words is not known"),
    ],
)
def test_a_line_that_is_no_transcript(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "app.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(CaseError, match=message):
        read_recorded(path)
    with pytest.raises(CaseError, match="give a file of JSON lines"):
        read_recorded(tmp_path / "none.jsonl")
