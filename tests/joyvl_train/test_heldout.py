"""The free-running loop, with scripted engines that meet the engine's interface."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyvl_train.actions import Action, Delegation, Response, Silence
from joyvl_train.background import ERROR_DIGEST
from joyvl_train.baselines import polled
from joyvl_train.chunks import training_chunks
from joyvl_train.heldout import (
    Step,
    Trace,
    free_run,
    free_runs,
    from_json,
    metrics,
    read_traces,
    to_json,
    write_traces,
)
from joyvl_train.memory import Limits, log_summary
from joyvl_train.stream import Stream, StreamSettings
from tests.joyvl_train.scripted import (
    Pictures,
    Reply,
    Scripted,
    alerting,
    cases,
    delegating,
    replay,
)


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


def test_a_stream_reads_the_memory_that_training_cuts() -> None:
    timeline = alerting()
    for limits in (Limits(), Limits(summary_chars=64)):
        settings = StreamSettings(chunk_seconds=26, lead=2, limits=limits)
        texts: list[str] = []

        def script(stream: Stream, index: int, texts: list[str] = texts) -> Reply:
            texts.append(stream.memory_text)
            return replay([timeline])(stream, index)

        free_run(Scripted(script), cases(timeline), settings, progress=False)
        _, chunk = training_chunks(timeline, lambda second: (second,), settings)
        assert texts[-1] == chunk.memory_text
        told = partial(log_summary, chars=limits.told_chars)
        _, chunk = training_chunks(timeline, lambda second: (second,), settings, told)
        assert texts[-1] == chunk.memory_text and "20 s assistant: A bus." in texts[-1]


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


def test_windows_of_the_run_hold_for_onsets_without_their_own() -> None:
    timeline = alerting()
    engine = Scripted(replay([timeline], shift=2))
    (trace,) = free_run(engine, cases(timeline), late=2, progress=False)
    assert trace.score().matched == 2


def test_a_real_engine_meets_the_interface_and_batches_change_nothing() -> None:
    import torch

    from joyvl_train.checkpoint import build_tiny, train_tokenizer
    from joyvl_train.engine import Engine
    from joyvl_train.rendering import Renderer
    from tests.tiny_training import SHAPE

    shape = replace(SHAPE, vocabulary=400, hidden=32, heads=2, kv_heads=1, feed_forward=48)
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
    told = [step.second for t in asked for step in t.steps if step.reply is not None]
    told += [emission.second for t in asked for emission in t.emissions]
    assert told and all(second % 5 == 4 for second in told)
