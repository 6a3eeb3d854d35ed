"""A gold timeline, driven through a stream: the chunks that a model is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from joyvl_train.actions import Silence
from joyvl_train.memory import Memory, Summary, told_summary
from joyvl_train.stream import Result, Stream, StreamSettings, Turn
from joyvl_train.timeline import Timeline, TimelineError, actions


@dataclass(frozen=True, slots=True)
class Chunk:
    """One training sample of a stream. Turns before `supervised_from` are carried: context only."""

    memory_text: str
    turns: tuple[Turn, ...]
    supervised_from: int


Summarize = Callable[[Sequence[Turn]], str]


def queries_by_second(timeline: Timeline) -> dict[int, tuple[str, ...]]:
    """Second -> the user's texts that arrive in it, in order of time."""
    texts: dict[int, tuple[str, ...]] = {}
    for event in timeline.of("user"):
        texts[event.second] = (*texts.get(event.second, ()), event.text)
    return texts


def task_numbers(timeline: Timeline) -> dict[str, int]:
    """Id of a delegation event -> its task number when every gold action is taken."""
    delegations = [e for e in timeline.of("assistant") if e.question is not None]
    return {event.id: number for number, event in enumerate(delegations, 1)}


def results_by_second(timeline: Timeline) -> dict[int, tuple[Result, ...]]:
    """Second -> the results that return in it when every gold action is taken.

    Raises `TimelineError` where a result answers no delegation, comes no later than its delegation
    or is the second one for it.
    """
    numbers = task_numbers(timeline)
    asked = {event.id: event.second for event in timeline.events}
    answered: set[str] = set()
    results: dict[int, tuple[Result, ...]] = {}
    for event in timeline.of("background"):
        what = f"clip {timeline.clip.id!r}: result {event.id!r} of {event.answers!r}"
        if event.answers is None or event.answers not in numbers:
            raise TimelineError("result of no delegation", what)
        if event.second <= asked[event.answers]:
            raise TimelineError("result before its delegation", what)
        if event.answers in answered:
            raise TimelineError("second result", what)
        answered.add(event.answers)
        result = (numbers[event.answers], event.text)
        results[event.second] = (*results.get(event.second, ()), result)
    return results


def training_chunks(
    timeline: Timeline,
    frames_of_second: Callable[[int], tuple[Any, ...]],
    settings: StreamSettings | None = None,
    summarize: Summarize | None = None,
    summaries: Sequence[Summary] = (),
) -> Iterator[Chunk]:
    """Cut a timeline into training samples, by driving a `Stream` with the gold actions.

    `summarize` sees the turns that it summarizes and nothing later (None: what was said, within the
    limits of `settings`); where `summaries` tell of their seconds already, those texts are taken
    (`told_summary`). A clip of at most `chunk_seconds` gives one chunk. Raises
    `TimelineError` where the duration is unknown, a second in which something is to be said has no
    frame, or a text comes after the last frame.
    """
    gold = actions(timeline)
    queries, results = queries_by_second(timeline), results_by_second(timeline)
    settings = settings or StreamSettings()
    summarize = summarize or settings.limits.log
    stream = Stream(settings, Memory(opening=timeline.opening))
    where = f"clip {timeline.clip.id!r}"
    texts_wait = False
    for second, action in enumerate(gold):
        before = Chunk(stream.memory_text, stream.turns, stream.supervised_from)
        chunk, new = stream.chunk, (queries.get(second, ()), results.get(second, ()))
        turn = stream.observe(second, frames_of_second(second), *new)
        if stream.chunk != chunk and _supervised(before):
            yield before
        if turn is None:
            if not isinstance(action, Silence):
                raise TimelineError("no frame at a response", f"{where}: second {second}")
            texts_wait = texts_wait or any(new)
        else:
            texts_wait = False
            stream.act(action)
        due = stream.due_summary()
        if due is not None:
            text = told_summary(due, stream.due_turns(), summaries, summarize)
            stream.add_summary(Summary(due.start, due.stop, text))
    if texts_wait:
        raise TimelineError("text after the last frame", where)
    last = Chunk(stream.memory_text, stream.turns, stream.supervised_from)
    if _supervised(last):
        yield last


def _supervised(chunk: Chunk) -> bool:
    return any(turn.second >= chunk.supervised_from for turn in chunk.turns)
