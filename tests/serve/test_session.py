"""Sessions: the same as the library's free run, in step or alone; what they ask for; failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from PIL import Image

from data_pipeline.world.streams import WorldFrames, stream
from joyvl_train.actions import Action, Delegation, Response, Silence
from joyvl_train.background import Task
from joyvl_train.chunks import queries_by_second
from joyvl_train.codec import CodecSettings
from joyvl_train.coded_frames import coded, prepared
from joyvl_train.heldout import free_run
from joyvl_train.memory import Summary
from joyvl_train.stream import Stream, StreamSettings
from serve.session import BlockDue, Remembered, Session, Stepped, SummaryDue, Tick, step_together


@dataclass
class Said:
    text: str
    action: Action | None
    error: str | None = None
    truncated: bool = False


class Script:
    """An engine that says what is set for a second, and is silent otherwise."""

    def __init__(self, actions: dict[int, Action | None] | None = None) -> None:
        self.actions = actions or {}
        self.streams: dict[int, Stream] = {}
        self.batches: list[int] = []

    def open(self, stream: Stream, seed: int | None = None) -> int:
        self.streams[len(self.streams)] = stream
        return len(self.streams) - 1

    def close(self, handle: int) -> None:
        del self.streams[handle]

    def step(self, handles: Sequence[int]) -> list[Said]:
        self.batches.append(len(handles))
        found = []
        for handle in handles:
            turn = self.streams[handle].open_turn
            assert turn is not None
            action = self.actions.get(turn.second, Silence())
            found.append(Said("?", action, None if action else "empty"))
        return found


def steps(events) -> list:
    return [event.step for event in events if isinstance(event, Stepped)]


def test_each_second_with_frames_is_answered() -> None:
    session = Session(Script({1: Response("Hello."), 3: None}))
    assert steps(session.step(Tick(0, ("f",), ("Hi",))))[0].queries == ("Hi",)
    (said,) = steps(session.step(Tick(1, ("f",))))
    assert said.action == Response("Hello.")
    assert session.step(Tick(2, (), ("Are you there?",))) == []
    (malformed,) = steps(session.step(Tick(3, ("f",))))
    assert malformed.queries == ("Are you there?",)  # it moved on to a second with frames
    assert (malformed.action, malformed.malformed, malformed.reply) == (Silence(), "empty", "?")
    with pytest.raises(ValueError, match="second 3 observed after second 3"):
        session.step(Tick(3, ("f",)))
    session.close()


def test_a_task_goes_out_with_the_newest_frames_and_its_result_comes_in_a_tick() -> None:
    hard = Delegation("Let me see.", "What is 12 times 12?")
    session = Session(Script({2: hard}), snapshot=2)
    for second in range(2):
        session.step(Tick(second, (f"f{second}",)))
    (event,) = [e for e in session.step(Tick(2, ("f2",))) if isinstance(e, Stepped)]
    assert event.task == Task(1, 2, "Let me see.", "What is 12 times 12?", "", ("f1", "f2"))
    (step,) = steps(session.step(Tick(3, ("f3",), results=((1, "144"),))))
    assert step.results == ((1, "144"),)
    with pytest.raises(ValueError, match="task 1, which is not pending"):
        session.step(Tick(4, ("f4",), results=((1, "144"),)))
    # Nothing was changed by what was refused.
    assert steps(session.step(Tick(4, ("f4",))))


def test_summaries_and_blocks_are_asked_for_once_and_enter_at_the_boundary() -> None:
    settings = StreamSettings(10, 3)
    settings = replace(settings, limits=replace(settings.limits, mid=2))
    session = Session(Script(), settings)
    due: list[SummaryDue] = []
    blocks: list[BlockDue] = []
    waiting: list[Summary] = []
    for second in range(45):
        tick = Tick(second, ("f",), summaries=tuple(waiting))
        waiting.clear()
        for event in session.step(tick):
            if isinstance(event, SummaryDue):
                due.append(event)
                seconds = event.seconds
                waiting.append(Summary(seconds.start, seconds.stop, f"chunk {len(due)}"))
            elif isinstance(event, BlockDue):
                blocks.append(event)
    assert [(d.seconds.start, d.seconds.stop) for d in due] == [(0, 7), (7, 17), (17, 27), (27, 37)]
    assert [t.second for t in due[0].turns] == list(range(7))
    told = [[summary.text for summary in block.summaries] for block in blocks]
    assert told == [["chunk 1", "chunk 2"], ["chunk 3", "chunk 4"]]
    assert session.stream.memory_text.splitlines() == [
        "Earlier:",
        "0 to 17 s: chunk 1 chunk 2",
        "17 to 27 s: chunk 3",
        "27 to 37 s: chunk 4",
    ]


def test_events_of_the_memory_come_out_once() -> None:
    session = Session(Script(), StreamSettings(10, 3))
    kinds = [
        event.event.kind
        for second in range(12)
        for event in session.step(Tick(second, ("f",)))
        if isinstance(event, Remembered)
    ]
    assert kinds == ["chunk"]


def test_sessions_in_step_are_answered_together() -> None:
    engine = Script({1: Response("Here.")})
    sessions = [Session(engine) for _ in range(3)]
    ticks = [Tick(1, ("f",)), Tick(1), Tick(4, ("f",))]
    found = step_together(sessions, ticks)
    assert engine.batches == [2]
    assert [[s.second for s in steps(events)] for events in found] == [[1], [], [4]]
    with pytest.raises(ValueError, match="several engines"):
        step_together([sessions[0], Session(Script())], ticks[:2])


def test_a_second_in_which_the_engine_fails_stands_as_silence() -> None:
    engine = Script()
    session = Session(engine)
    session.step(Tick(0, ("f",)))
    kept = engine.step
    for second, error in ((1, TypeError), (2, KeyboardInterrupt)):

        def fails(handles, error=error):
            raise error

        engine.step = fails  # type: ignore[method-assign]
        with pytest.raises(error):
            session.step(Tick(second, ("f",)))
    engine.step = kept  # type: ignore[method-assign]
    assert [s.second for s in steps(session.step(Tick(3, ("f",))))] == [3]
    assert [turn.action for turn in session.stream.turns] == [Silence()] * 4


def test_a_tick_that_cant_follow_leaves_no_turn_of_the_others_open() -> None:
    engine = Script()
    first, second = Session(engine), Session(engine)
    second.step(Tick(5, ("f",)))
    with pytest.raises(ValueError, match="second 5 observed after second 5"):
        step_together([first, second], [Tick(0, ("f",)), Tick(5, ("f",))])
    assert first.stream.open_turn is None and second.stream.open_turn is None


def test_a_session_does_what_the_free_run_does() -> None:
    timeline = stream("alerting", 3, "test", seconds=24)
    frames = WorldFrames(timeline, 32)
    words = {4: Response("A dog appeared."), 9: None, 13: Response("It left.")}
    settings = StreamSettings(10, 3)
    (trace,) = free_run(Script(words), [(timeline, frames)], settings, progress=False)
    session, queries = Session(Script(words), settings), queries_by_second(timeline)
    found = []
    for second in range(frames.seconds):
        tick = Tick(second, frames.frames(second), queries.get(second, ()))
        found += steps(session.step(tick))
    assert tuple(found) == trace.steps


def test_coded_frames_are_shown_and_whole_ones_handed_over() -> None:
    timeline = stream("chat", 2, "train", seconds=12)
    frames = WorldFrames(timeline, 64)
    hard = Delegation("One moment.", "How many?")
    taken = []

    def frame(picture: Image.Image) -> bytes:
        taken.append(picture.size)
        return picture.tobytes()

    settings = StreamSettings(codec=CodecSettings(side=32))
    session = Session(Script({9: hard}), settings, snapshot=3, frame=frame)
    found = []
    for second in range(12):
        if second == 6:
            with pytest.raises(ValueError, match="not pending"):
                session.step(Tick(second, frames.frames(second), results=((5, "144"),)))
        found += session.step(Tick(second, frames.frames(second)))
    shown = coded(frames, settings)
    for turn in session.stream.turns:
        again = turn.showing(prepared(f, frame) for f in shown.frames(turn.second))
        assert (turn.frames, turn.predicted) == (again.frames, again.predicted)
    assert taken[0] == (64, 64) and (32, 32) in taken
    assert [len(turn.frames[0]) == 3 * 32 * 32 for turn in session.stream.turns] == [
        turn.predicted == (True,) for turn in session.stream.turns
    ]
    (task,) = [event.task for event in found if isinstance(event, Stepped) and event.task]
    assert [f.tobytes() for f in task.frames] == [frames.frames(t)[0].tobytes() for t in (7, 8, 9)]


def test_a_summary_is_made_of_whole_frames() -> None:
    """Of what came and went between two of them, too."""
    timeline = stream("counting", 2, "train", seconds=50)
    frames = WorldFrames(timeline, 96)
    session = Session(Script(), StreamSettings(20, 4, codec=CodecSettings(drift=1e6)))
    due = []
    for second in range(50):
        found = session.step(Tick(second, frames.frames(second)))
        due += [event for event in found if isinstance(event, SummaryDue)]
    assert len(due) >= 2
    for event in due:
        for turn in event.turns:
            assert not turn.predicted and turn.frames[0].size == (96, 96)
            (seen,) = frames.frames(turn.second)
            assert turn.frames[0].tobytes() == seen.tobytes()
    changes = sum(any(turn.predicted) for turn in session.stream.turns)
    assert changes > 10 and len(session._whole) <= 25


def test_a_source_that_begins_anew_is_seen_whole() -> None:
    frames = WorldFrames(stream("chat", 2, "train", seconds=8), 64)
    session = Session(Script(), StreamSettings(codec=CodecSettings(side=32)))
    for second, anew in enumerate((False, False, True, False)):
        session.step(Tick(second, frames.frames(1), anew=anew))
    assert [any(turn.predicted) for turn in session.stream.turns] == [False, True, False, True]
