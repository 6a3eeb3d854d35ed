"""Memory text of long records: whence it comes, what it may not tell, who vouches for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from data_pipeline.candidates import Candidate, candidate_from_json, candidate_to_json
from data_pipeline.chunk_summaries import NO_SUMMARY, flaw, stages, unsaid
from data_pipeline.desk import Desk
from data_pipeline.families import chained
from data_pipeline.sources.published import TOLD_SUMMARIES
from data_pipeline.world.streams import stream
from joyvl_train.chunks import training_chunks
from joyvl_train.memory import Limits
from joyvl_train.stream import StreamSettings
from joyvl_train.timeline import Clip, Event, Timeline
from tests.data_pipeline.answers import Ask, verdict
from tests.data_pipeline.oracle import Oracle

CUT = StreamSettings(chunk_seconds=20, lead=4)


class Grey:
    """Pictures of a clip that nobody knows."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        return (Image.new("RGB", (32, 32), (second % 255, 80, 80)),)


def footage(seconds: int) -> Timeline:
    events = (
        Event("q", 1.0, "user", "Tell me of every dog."),
        *(
            Event(f"a{t}", float(t), "assistant", f"A dog at number {t}.", answers="q")
            for t in range(5, seconds, 9)
        ),
    )
    return Timeline(Clip("v", float(seconds), video="v.mp4"), "alerting", "made", events)


def write(text: str | Callable[[Ask], str] = "Some dogs came.") -> Callable[[Ask], Any]:
    return lambda ask: {"summary": text if isinstance(text, str) else text(ask)}


def summed(
    timeline: Timeline,
    answers: dict[str, Callable[[Ask], Any]] | None = None,
    faults: dict[str, tuple[float, Any]] | None = None,
    told: list[list[Any]] | None = None,
    cut: StreamSettings = CUT,
    **settings: Any,
) -> tuple[Candidate, Oracle]:
    given = {"summarizer": write(), "summary_verifier": lambda ask: verdict(True)}
    pictures = Grey(timeline.clip.seconds or 0)
    with Oracle(answers={**given, **(answers or {})}, faults=faults, retries=0) as oracle:
        world = stream("commentary", 0, "train", seconds=12)
        oracle.knows(replace(world, clip=replace(world.clip, id="v")), pictures)
        desk = Desk(lambda _: pictures, oracle.agents())
        work = {TOLD_SUMMARIES: told} if told else {}
        (out,) = chained(stages(desk, cut, **settings), [Candidate("c", timeline, work=work)])
    return out, oracle


def test_short_records_need_none() -> None:
    for timeline in (footage(20), stream("commentary", 0, "train", seconds=20)):
        out, oracle = summed(timeline)
        assert out.status == "open" and out.summaries == () and not oracle.asked


def test_the_worlds_log_asks_nobody_and_leaves_nothing_out() -> None:
    timeline = stream("commentary", 1, "train", seconds=70)
    out, oracle = summed(timeline)
    assert out.status == "open" and not oracle.asked
    assert [(start, stop) for start, stop, _ in out.summaries] == [(0, 16), (16, 36), (36, 56)]
    for event in timeline.of("assistant"):
        inside = [text for start, stop, text in out.summaries if start <= event.second < stop]
        assert all(event.text in text for text in inside)
    assert candidate_from_json(candidate_to_json(out)) == out


def test_the_worlds_log_keeps_the_newest_where_room_is_short() -> None:
    timeline = stream("commentary", 1, "train", seconds=70)
    tight = replace(CUT, limits=Limits(summary_chars=150))
    out, _ = summed(timeline, cut=tight)
    whole, _ = summed(timeline)
    assert out.status == "open" and len(out.summaries) == len(whole.summaries)
    assert any(len(text) > 150 for *_, text in whole.summaries)
    for (*_, text), (*_, full) in zip(out.summaries, whole.summaries, strict=True):
        assert len(text) <= 150 and full.endswith(text)


def test_stretches_are_those_that_a_stream_asks_for() -> None:
    """What training asks to be summed up lies in the stretches, in order."""
    timeline, asked = footage(70), list[tuple[int, ...]]()

    def note(turns: Any) -> str:
        asked.append(tuple(turn.second for turn in turns))
        return "text"

    for _ in training_chunks(timeline, lambda second: (second,), CUT, note):
        pass
    out, _ = summed(timeline)
    assert [tuple(range(start, stop)) for start, stop, _ in out.summaries] == asked
    # A text for each chunk that opens with one.
    assert len(out.summaries) == 3


def test_agents_see_the_stretch_alone_and_are_noted() -> None:
    seen: list[tuple[str, tuple[int, ...], list[str]]] = []

    def note(ask: Ask) -> str:
        seen.append((ask.name, ask.seconds, ask.fields["said"]))
        return "Dogs."

    out, oracle = summed(footage(50), {"summarizer": write(note)})
    assert [(seconds[0], seconds[-1]) for _, seconds, _ in seen] == [(0, 15), (16, 35)]
    for _, seconds, said in seen:
        told = " ".join(said)
        for event in footage(50).of("assistant"):
            assert (event.text in told) == (event.second in seconds)
    assert oracle.asked == {"summarizer": 2, "summary_verifier": 2}
    assert [text for *_, text in out.summaries] == ["Dogs."] * 2
    assert "summarizer@" in out.history[-1].agent and "summary_verifier@" in out.history[-1].agent


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({"summarizer": write("At 40 s a dog came.")}, "tells of second 40"),
        ({"summarizer": write("dog " * 400)}, "1599 characters"),
        ({"summarizer": write(" ")}, "empty"),
        ({"summary_verifier": lambda ask: verdict(False, "No dogs.")}, "not right: No dogs."),
    ],
)
def test_a_text_that_nobody_vouches_for_is_no_summary(answers: Any, told: str) -> None:
    out, oracle = summed(footage(30), answers, tries=2)
    assert (out.status, out.reason) == ("unverified", NO_SUMMARY)
    assert told in out.history[-1].detail and out.history[-1].detail.startswith("[0, 16) s")
    assert oracle.asked["summarizer"] == 2 and out.summaries == ()


def test_another_try_may_hold() -> None:
    tries: list[int] = []

    def second_time(ask: Ask) -> Any:
        tries.append(1)
        return verdict(len(tries) == 2)

    out, oracle = summed(footage(30), {"summary_verifier": second_time})
    assert out.status == "open" and oracle.asked["summarizer"] == 2


def test_a_records_own_text_is_checked_and_written_anew_where_it_does_not_hold() -> None:
    told = [[0, 16, "Two dogs."], [16, 36, "At 40 s a dog."], [5, 9, "Of no stretch."]]
    out, oracle = summed(footage(50), told=told)
    assert out.summaries == ((0, 16, "Two dogs."), (16, 36, "Some dogs came."))
    assert oracle.asked == {"summarizer": 1, "summary_verifier": 2}
    assert out.history[-1].detail == "1 by an agent, 1 of the record's own"
    refuse = {"summary_verifier": lambda ask: verdict(False, "No dogs.")}
    out, oracle = summed(footage(50), refuse, told=told)
    assert (out.status, out.reason) == ("unverified", NO_SUMMARY)
    assert oracle.asked == {"summarizer": 2, "summary_verifier": 3}
    # Where none is needed none comes in unchecked.
    assert summed(footage(20), told=told)[0].summaries == ()


@pytest.mark.parametrize("agent", ["summarizer", "summary_verifier"])
@pytest.mark.parametrize(
    ("fault", "reason"), [("no JSON", "unparsed"), ((500, {}), "agent failed")]
)
def test_an_agent_that_fails_leaves_it_unverified(agent: str, fault: Any, reason: str) -> None:
    out, _ = summed(footage(30), faults={agent: (1.0, fault)})
    assert (out.status, out.reason) == ("unverified", NO_SUMMARY)
    assert reason in out.history[-1].detail and out.history[-1].agent.startswith(agent)


def test_flaws_of_texts() -> None:
    assert flaw("A dog came at 12 s.", 16, 100) == ""
    assert flaw("A dog came at 16 s.", 16, 100) == "tells of second 16"
    assert flaw("", 16, 100) == "empty"
    assert flaw("x" * 101, 16, 100) == "101 characters, at most 100"
    assert unsaid("3 s: A dog.", ["3 s: A dog."]) == ""
    assert "A cat" in unsaid("3 s: A dog.", ["3 s: A dog.", "5 s: A cat."])
    assert unsaid("x" * 950, ["1 s: A cat."]) == ""


def test_settings_are_checked() -> None:
    desk = Desk(lambda _: Grey(9))
    for wrong in ({"words": 0}, {"tries": 0}):
        with pytest.raises(ValueError, match="1 or more"):
            stages(desk, **wrong)
