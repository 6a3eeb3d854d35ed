"""The free-running loop with scripted engines, which meet the engine's interface without a model.

What an engine would read is what the stream holds: the scripts look there and nowhere else.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from joyvl_train import heldout
from joyvl_train.actions import Action, Delegation, Response, Silence, parse_action
from joyvl_train.background import ERROR_DIGEST
from joyvl_train.heldout import (
    Step,
    Trace,
    free_run,
    free_runs,
    from_json,
    metrics,
    on_turns_of,
    polled,
    read_traces,
    to_json,
    trivial,
    write_traces,
)
from joyvl_train.stream import Stream, StreamSettings
from joyvl_train.timeline import Clip, Event, Rule, Timeline, action_of, action_seconds

PICTURE = Image.new("RGB", (4, 4))


@dataclass(frozen=True)
class Pictures:
    """One picture a second, but in the `missing` ones."""

    seconds: int
    missing: tuple[int, ...] = ()

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        assert 0 <= second < self.seconds
        return () if second in self.missing else (PICTURE,)


@dataclass(frozen=True)
class Reply:
    text: str = ""
    action: Action | None = None
    error: str | None = None
    truncated: bool = False


Script = Callable[[Stream, int], Reply]


class Scripted:
    """`script(stream, seed)` answers for each stream; the rest is bookkeeping to check the loop."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.streams: dict[int, tuple[Stream, int]] = {}
        self.opened = 0
        self.steps: list[int] = []

    def open(self, stream: Stream, seed: int | None = None) -> int:
        self.opened += 1
        assert seed is not None
        self.streams[self.opened] = (stream, seed)
        return self.opened

    def step(self, handles: Sequence[int]) -> list[Reply]:
        assert len(set(handles)) == len(handles) > 0
        assert all(self.streams[h][0].open_turn is not None for h in handles)
        self.steps.append(len(handles))
        return [self.script(*self.streams[h]) for h in handles]

    def close(self, handle: int) -> None:
        del self.streams[handle]


def replay(timelines: Sequence[Timeline], shift: int = 0) -> Script:
    """Says the gold action of `shift` seconds ago."""
    due = [action_seconds(timeline.events) for timeline in timelines]

    def script(stream: Stream, index: int) -> Reply:
        turn = stream.open_turn
        assert turn is not None
        return Reply(action=action_of(due[index].get(turn.second - shift)))

    return script


def alerting(name: str = "a", seconds: int = 30) -> Timeline:
    events = (
        Event("q", 1.2, "user", "Tell me when a car comes."),
        Event("e", 9.5, "assistant", "A car.", until=14.0, answers="q", rule=Rule("exact")),
        Event("f", 20.0, "assistant", "A bus.", answers="q", rule=Rule("exact")),
    )
    return Timeline(Clip(name, duration=float(seconds)), "alerting", "test", events)


def delegating(name: str = "d") -> Timeline:
    events = (
        Event("q", 2.0, "user", "How many in all?"),
        Event("d", 3.0, "assistant", "One moment.", question="Count.", answers="q"),
        Event("r", 10.0, "background", "42 in all", answers="d"),
        Event("s", 11.0, "assistant", "42.", answers="r", rule=Rule("number")),
    )
    return Timeline(Clip(name, duration=30.0), "delegation", "test", events)


def cases(*timelines: Timeline) -> list[Any]:
    return [(t, Pictures(t.clip.seconds or 0)) for t in timelines]


def test_gold_replayed_is_perfect() -> None:
    timelines = [alerting(), delegating()]
    traces = free_run(Scripted(replay(timelines)), cases(*timelines), progress=False)
    found = metrics(traces, samples=20)
    for measure in ("onset_f1", "content_accuracy", "silence_accuracy", "delegation_recall"):
        assert found[f"eval/{measure}"] == 1, measure
    assert found["eval/delegation_precision"] == 1
    assert found["eval/false_alarms_per_hour"] == 0
    assert found["eval/onset_error_abs"] == 0
    assert found["eval/hours"] == 60 / 3600
    assert found["eval/clips"] == 2


def test_silence_misses_once_where_a_result_was_never_asked_for() -> None:
    timelines = [alerting(), delegating()]
    traces = free_run(
        Scripted(lambda stream, _: Reply(action=Silence())), cases(*timelines), progress=False
    )
    found = metrics(traces, samples=20)
    assert found["eval/onset_f1"] == 0
    assert found["eval/delegation/onset_f1.count"] == 1
    assert found["eval/silence_accuracy"] == 1
    assert found["eval/delegation_recall"] == 0
    assert "eval/delegation_precision" not in found


def test_two_seconds_late_is_late_and_what_is_moved_is_not() -> None:
    timelines = [alerting(), delegating()]
    first, second = free_run(
        Scripted(replay(timelines, shift=2)), cases(*timelines), progress=False
    )
    counts = first.score()
    assert (counts.onsets, counts.matched, counts.late, counts.false_alarms) == (2, 0, 1, 1)
    # Two seconds after its onset nothing calls for the delegation any more.
    assert [o.id for o in second.onsets] == ["d"]
    delegated = [step for step in second.steps if step.results]
    assert delegated[0].results[0][1] == ERROR_DIGEST
    assert second.score().delegations_matched == 0


def test_a_result_comes_at_the_policys_own_delegation_plus_the_gold_delay() -> None:
    timeline = delegating()

    def script(stream: Stream, _: int) -> Reply:
        turn = stream.open_turn
        assert turn is not None
        if turn.second == 4:
            return Reply(action=Delegation("A moment.", "Count them."))
        if turn.results:
            return Reply(action=Response("It is 42."))
        return Reply(action=Silence())

    (trace,) = free_run(Scripted(script), cases(timeline), progress=False)
    (step,) = (step for step in trace.steps if step.results)
    assert (step.second, step.results) == (11, ((1, "42 in all"),))
    assert [(o.id, o.second) for o in trace.onsets] == [("d", 3), ("s", 12)]
    counts = trace.score()
    assert counts.delegations_matched == 1
    # It answered at once, a second before the gold delay to the answer is over.
    assert (counts.matched, counts.false_alarms) == (1, 1)


def test_results_wait_for_a_second_with_frames_and_so_does_what_is_due() -> None:
    timeline = delegating()

    def script(stream: Stream, _: int) -> Reply:
        turn = stream.open_turn
        assert turn is not None
        asks = turn.second == 3
        return Reply(action=Delegation("A moment.", "Count.") if asks else Silence())

    pictures = Pictures(30, missing=(1, 2, 10, 11))
    engine = Scripted(script)
    (trace,) = free_run(engine, [(timeline, pictures)], progress=False)
    assert [s.second for s in trace.steps] == [t for t in range(30) if t not in (1, 2, 10, 11)]
    by_second = {step.second: step for step in trace.steps}
    assert by_second[3].queries == ("How many in all?",)
    assert by_second[12].results == ((1, "42 in all"),)
    assert [o.second for o in trace.onsets] == [3, 13]
    assert trace.score().seconds == 26
    assert sum(engine.steps) == 26


def test_malformed_replies_stand_as_silence_and_are_counted() -> None:
    seen: list[list[Action | None]] = []

    def script(stream: Stream, _: int) -> Reply:
        turn = stream.open_turn
        assert turn is not None
        seen.append([t.action for t in stream.turns])
        if turn.second == 5:
            return Reply("well well", None, "no control token first")
        return Reply(
            action=Response("A car and then") if turn.second == 9 else Silence(),
            truncated=turn.second == 9,
        )

    (trace,) = free_run(Scripted(script), cases(alerting()), progress=False)
    step = trace.steps[5]
    assert step == Step(5, malformed="no control token first", reply="well well")
    assert seen[6][5] == Silence()
    counts = trace.score()
    assert (counts.malformed, counts.truncated, counts.matched, counts.counted) == (1, 1, 1, 1)


@pytest.mark.parametrize("batch", [1, 2, 3, 10])
def test_batches_stay_full_and_change_nothing(batch: int) -> None:
    timelines = [alerting(str(i), seconds) for i, seconds in enumerate((21, 40, 25, 30, 22))]
    engine = Scripted(replay(timelines))
    traces = free_run(engine, cases(*timelines), batch=batch, progress=False)
    assert [t.clip for t in traces] == [str(i) for i in range(5)]
    assert all(t.score().matched == 2 for t in traces)
    assert not engine.streams
    assert sum(engine.steps) == 21 + 40 + 25 + 30 + 22
    # Full until the last clip has begun.
    assert max(engine.steps) == min(batch, 5)
    assert engine.steps[:21] == [min(batch, 5)] * 21


def test_streams_are_closed_where_the_run_is_given_up() -> None:
    engine = Scripted(replay([alerting()] * 3))
    runs = free_runs(engine, cases(*[alerting()] * 3), batch=2, progress=False)
    next(runs)
    runs.close()
    assert not engine.streams


def test_long_streams_are_cut_into_chunks_with_summaries() -> None:
    timeline = alerting(seconds=70)
    chunks: list[tuple[int, str]] = []

    def script(stream: Stream, index: int) -> Reply:
        if not chunks or chunks[-1][0] != stream.chunk:
            chunks.append((stream.chunk, stream.memory_text))
        return replay([timeline])(stream, index)

    settings = StreamSettings(chunk_seconds=30, lead=5)
    free_run(Scripted(script), cases(timeline), settings, progress=False)
    assert [number for number, _ in chunks] == [0, 1, 2]
    assert "Tell me when a car comes." not in chunks[0][1]
    assert "A car." in chunks[1][1]
    assert "Tell me when a car comes." in chunks[2][1]


def test_the_opening_is_memory() -> None:
    opened = replace(alerting(), opening="The cat is called Tom.")

    def script(stream: Stream, _: int) -> Reply:
        assert "The cat is called Tom." in stream.memory_text
        return Reply(action=Silence())

    free_run(Scripted(script), cases(opened), progress=False)


def test_records_must_be_settled_on_their_frames() -> None:
    with pytest.raises(ValueError, match=r"clip 'a' lasts 30 s .* its frames 29 s"):
        free_run(Scripted(replay([])), [(alerting(), Pictures(29))], progress=False)
    with pytest.raises(ValueError, match="batch is 0"):
        free_run(Scripted(replay([])), [], batch=0)


# Traces on disk


def test_traces_survive_the_disk(tmp_path: Path) -> None:
    timelines = [alerting(), delegating()]
    traces = free_run(Scripted(replay(timelines)), cases(*timelines), progress=False)
    odd = (Step(0, malformed="empty", reply=""), Step(1, truncated=True, queries=("¿qué?\n",)))
    traces.append(Trace("x", "qa", "test", "model", odd, ()))
    assert [from_json(json.loads(json.dumps(to_json(t)))) for t in traces] == traces
    write_traces(tmp_path / "traces.jsonl", traces)
    assert read_traces(tmp_path / "traces.jsonl") == traces
    assert [p.name for p in tmp_path.iterdir()] == ["traces.jsonl"]


def test_a_line_that_is_no_trace_is_named(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    write_traces(path, [Trace("x", "qa", "test", "model", (), ())])
    path.write_text(path.read_text() + '{"clip": "y"}\n')
    with pytest.raises(ValueError, match=r"traces.jsonl, line 2: not a trace: KeyError: 'steps'"):
        read_traces(path)
    path.write_text("{\n")
    with pytest.raises(ValueError, match="line 1"):
        read_traces(path)


# Policies without a stream of their own


def test_trivial_policies() -> None:
    found = trivial([alerting(), alerting("b"), delegating()], period=5)
    assert set(found) == {"always_silent", "always_speaking", "poll"}
    silent, speaking, poll = (
        metrics(found[name], f"baseline/{name}", samples=20) for name in found
    )
    assert silent["baseline/always_silent/onset_f1"] == 0
    assert silent["baseline/always_silent/silence_accuracy"] == 1
    assert speaking["baseline/always_speaking/recall"] == 1
    assert speaking["baseline/always_speaking/silence_accuracy"] == 0
    # "A bus." and "A car." are equally frequent: the first by the alphabet.
    assert {e.text for e in found["always_speaking"][0].emissions} == {"A bus."}
    assert {e.text for e in found["always_speaking"][2].emissions} == {"42."}
    assert [e.second for e in found["poll"][0].emissions] == [4, 9, 14, 19, 24, 29]
    # The state of 9 to 14 is hit at 9; 14 is past it; 20 is hit by none.
    assert poll["baseline/poll/alerting/recall"] == 0.5
    # Nothing was delegated, so no answer is due.
    assert all([o.id for o in traces[2].onsets] == ["d"] for traces in found.values())


class Questions:
    """A turn-based engine: what it is asked, it writes down; what it says, is given."""

    def __init__(self, *texts: str) -> None:
        self.renderer: Any = self
        self.system = "Be brief."
        self.asked: list[tuple[str, int, str]] = []
        self.batches: list[int] = []
        self.texts = texts

    def render_question(
        self, question: str, frames: Sequence[Any], context: str = "", system: str = ""
    ) -> Any:
        assert system == self.system
        self.asked.append((question, len(frames), context))
        return SimpleNamespace(number=len(self.asked) - 1)

    def generate_batch(self, prompts: Sequence[Any]) -> list[Reply]:
        self.batches.append(len(prompts))
        texts = [self.texts[p.number % len(self.texts)] for p in prompts]
        return [
            Reply(text, parse_action(text)) if text.startswith("<") else Reply(text, None, "bad")
            for text in texts
        ]


def test_polled_asks_the_newest_query_and_says_the_answer() -> None:
    timeline = replace(
        alerting(),
        events=(*alerting().events, Event("q2", 13.0, "user", "And now?")),
        opening="It rains.",
    )
    engine = Questions("</response> A car.", "</silence>", "a </response> car")
    (trace,) = polled(engine, [(timeline, Pictures(30, missing=(24,)))], batch=2, progress=False)
    first, now = "Tell me when a car comes.", "And now?"
    assert engine.asked == [(q, 1, "It rains.") for q in (first, first, now, now, now)]
    assert engine.batches == [2, 2, 1]
    assert [(e.second, e.text) for e in trace.emissions] == [(4, "A car."), (19, "A car.")]
    assert [s.second for s in trace.steps if s.malformed] == [14]
    assert trace.steps[13].queries == (now,)
    assert trace.policy == "polled"


def test_policies_are_measured_on_the_models_turns() -> None:
    timelines = [alerting(), alerting("b")]
    pairs = [(timelines[0], Pictures(30, missing=(24, 25))), (timelines[1], Pictures(30))]
    model = free_run(Scripted(replay(timelines)), pairs, progress=False)
    for traces in trivial(timelines).values():
        assert [len(trace.steps) for trace in traces] == [30, 30]
        found = on_turns_of(traces, model)
        assert [len(trace.steps) for trace in found] == [28, 30]
        assert found[1] == traces[1]
        for trace, shown in zip(found, model, strict=True):
            assert trace.score().seconds == shown.score().seconds
    with pytest.raises(ValueError, match="longer"):
        on_turns_of(model[:1], model)


def test_a_polled_model_that_knows_no_grammar_says_what_it_answers() -> None:
    engine = Questions("a car", "", "Yes.\nA car.", "no </silence>")
    (trace,) = polled(engine, [(alerting(), Pictures(30))], progress=False)
    said = [(e.second, e.text) for e in trace.emissions]
    assert said[:2] == [(4, "a car"), (14, "Yes. A car.")]
    assert [s.second for s in trace.steps if s.malformed][:2] == [9, 19]


def test_polled_asks_nothing_before_a_query() -> None:
    engine = Questions("</response> A car.")
    quiet = replace(alerting(), events=())
    (trace,) = polled(engine, [(quiet, Pictures(30))], progress=False)
    assert engine.asked == []
    assert trace.emissions == []


def test_periods_are_checked() -> None:
    with pytest.raises(ValueError, match="period is 0"):
        trivial([alerting()], period=0)
    with pytest.raises(ValueError, match="period is 0"):
        polled(Questions(), [], period=0)
    with pytest.raises(ValueError, match="clip 'a' is unknown"):
        trivial([replace(alerting(), clip=Clip("a"))])


def test_windows_of_the_run_hold_for_onsets_without_their_own() -> None:
    timeline = alerting()
    engine = Scripted(replay([timeline], shift=2))
    (trace,) = free_run(engine, cases(timeline), late=2, progress=False)
    assert trace.score().matched == 2
    assert heldout.trivial([timeline], late=3)["poll"][0].onsets[0].late == 3


def test_a_real_engine_meets_the_interface_and_batches_change_nothing() -> None:
    import torch

    from joyvl_train.checkpoint import TinyShape, build_tiny, train_tokenizer
    from joyvl_train.engine import Engine
    from joyvl_train.rendering import Renderer

    shape = TinyShape(
        vocabulary=400,
        hidden=32,
        layers=2,
        heads=2,
        kv_heads=1,
        feed_forward=48,
        vision_hidden=32,
        vision_layers=2,
        vision_heads=2,
        vision_feed_forward=48,
        deepstack=(0,),
        side=64,
    )
    tokenizer = train_tokenizer(["a red car comes, tell me seconds"] * 3, shape.vocabulary)
    model, processor = build_tiny(tokenizer, shape, 0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
    engine = Engine(model, Renderer(processor), max_new_tokens=4)
    colours = [Image.new("RGB", (64, 64), (40 * i, 90, 200 - 30 * i)) for i in range(3)]
    timelines = [alerting(str(i), 22 + i) for i in range(3)]

    class Coloured(Pictures):
        def frames(self, second: int) -> tuple[Image.Image, ...]:
            return (colours[second % 3],)

    pairs: list[Any] = [(t, Coloured(t.clip.seconds or 0)) for t in timelines]
    settings = StreamSettings(chunk_seconds=12, lead=3)
    alone = free_run(engine, pairs, settings, batch=1, progress=False)
    together = free_run(engine, pairs, settings, batch=3, progress=False)
    assert alone == together
    assert [len(t.steps) for t in alone] == [22, 23, 24]
    assert any(step.reply for trace in alone for step in trace.steps)
    assert len(engine) == 0
    asked = polled(engine, pairs, batch=2, progress=False)
    assert [t.clip for t in asked] == ["0", "1", "2"]
    assert all(step.second % 5 == 4 for t in asked for step in t.steps if step.reply is not None)
