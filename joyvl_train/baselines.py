"""What a model is measured against: policies that look at nothing, and a model that is polled.

Each gives traces (`joyvl_train.heldout`) of the same clips, measured in the same way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from tqdm import tqdm

from joyvl_train.actions import CONTROL_TOKENS, ActionFormatError, Response, Silence, fold
from joyvl_train.chunks import queries_by_second
from joyvl_train.heldout import Answer, Step, Trace, check_case, trace_of
from joyvl_train.timeline import Timeline
from joyvl_train.timing import EARLY, LATE, due

if TYPE_CHECKING:
    from joyvl_train.heldout import Case
    from joyvl_train.rendering import Rendered, Renderer


class Asked(Protocol):
    """What is used of an `engine.Engine` to ask turn-based questions."""

    @property
    def renderer(self) -> Renderer: ...
    @property
    def system(self) -> str: ...
    def generate_batch(
        self, prompts: Sequence[Rendered], *, seeds: Sequence[int]
    ) -> Sequence[Answer]: ...


def trivial(
    timelines: Sequence[Timeline], period: int = 5, early: int = EARLY, late: int = LATE
) -> dict[str, list[Trace]]:
    """Traces of three policies on the clips: `always_silent`, `always_speaking` and `poll`.

    `poll` speaks in the last of every `period` seconds. What the two say is what is said most
    often in the clips of the family: the best that one fixed text can do. They read neither frames
    nor queries and never delegate.
    """
    if period < 1:
        raise ValueError(f"period is {period}; it must be 1 or more")
    said: dict[str, Counter[str]] = {}
    for timeline in timelines:
        texts = [event.text for event in timeline.of("assistant") if event.question is None]
        said.setdefault(timeline.family, Counter()).update(texts)
    # Of equally frequent texts the first by the alphabet.
    usual = {
        family: min(counts, key=lambda text: (-counts[text], text), default="Yes.")
        for family, counts in said.items()
    }
    policies: dict[str, Callable[[int], bool]] = {
        "always_silent": lambda second: False,
        "always_speaking": lambda second: True,
        "poll": lambda second: second % period == period - 1,
    }
    return {
        name: [_fixed(t, name, speaks, usual[t.family], (early, late)) for t in timelines]
        for name, speaks in policies.items()
    }


def _fixed(
    timeline: Timeline,
    policy: str,
    speaks: Callable[[int], bool],
    text: str,
    window: tuple[int, int],
) -> Trace:
    seconds = timeline.clip.seconds
    if seconds is None:
        raise ValueError(f"the duration of clip {timeline.clip.id!r} is unknown")
    queries = queries_by_second(timeline)
    steps = [
        Step(t, Response(text) if speaks(t) else Silence(), queries.get(t, ()))
        for t in range(seconds)
    ]
    return trace_of(timeline, policy, steps, due(timeline, {}, *window))


def polled(
    engine: Asked,
    cases: Sequence[Case],
    *,
    period: int = 5,
    batch: int = 32,
    early: int = EARLY,
    late: int = LATE,
    policy: str = "polled",
    progress: bool = True,
) -> list[Trace]:
    """A turn-based model, asked the newest query anew in the last of every `period` seconds.

    The prompt is that query with the frames of the one second, the opening memory as context, and
    the engine's system text; nothing is asked before the first query. What is answered is said, in
    the grammar or, by a model that knows none, in plain words; nothing it delegates is done.
    """
    if period < 1 or batch < 1:
        raise ValueError(f"period is {period} and batch {batch}; each must be 1 or more")
    asked = []
    for index, (timeline, frames) in enumerate(cases):
        check_case((timeline, frames))
        queries = queries_by_second(timeline)
        newest = ""
        for second in range(frames.seconds):
            newest = " ".join(queries.get(second, ())) or newest
            if newest and second % period == period - 1:
                asked.append((index, second, newest))
    steps: list[dict[int, Step]] = [
        {t: Step(t, queries=queries_by_second(timeline).get(t, ())) for t in range(frames.seconds)}
        for timeline, frames in cases
    ]
    with tqdm(total=len(asked), desc=policy, unit="ask", disable=not progress) as bar:
        for start in range(0, len(asked), batch):
            part = asked[start : start + batch]
            looked = [cases[index][1].frames(second) for index, second, _ in part]
            # What is drawn for a question hangs on its number, not on the batch it came in.
            seeds = [number for number, pictures in enumerate(looked, start) if pictures]
            shown = [
                (item, pictures) for item, pictures in zip(part, looked, strict=True) if pictures
            ]
            prompts = [
                engine.renderer.render_question(
                    question, pictures, context=cases[index][0].opening, system=engine.system
                )
                for (index, _, question), pictures in shown
            ]
            replies = engine.generate_batch(prompts, seeds=seeds) if prompts else []
            for ((index, second, _), _), reply in zip(shown, replies, strict=True):
                action = reply.action or in_plain_words(reply.text)
                malformed = None if action is not None else (reply.error or "malformed")
                steps[index][second] = Step(
                    second,
                    action or Silence(),
                    steps[index][second].queries,
                    malformed=malformed,
                    reply=None if malformed is None else reply.text,
                    truncated=reply.truncated,
                )
            bar.update(len(part))
    return [
        trace_of(timeline, policy, steps[index].values(), due(timeline, {}, early, late))
        for index, (timeline, _) in enumerate(cases)
    ]


def in_plain_words(text: str) -> Response | None:
    """An answer without any control string, as a model gives that was never taught them."""
    if any(token in text for token in CONTROL_TOKENS):
        return None
    try:
        return Response(fold(text))
    except ActionFormatError:
        return None


def on_turns_of(traces: Sequence[Trace], model: Sequence[Trace]) -> list[Trace]:
    """`traces` of the clips of `model`, without the seconds that were no turns to it for want of a
    frame: policies that look at no frames are measured on the same seconds."""
    found = []
    for trace, shown in zip(traces, model, strict=True):
        turns = {step.second for step in shown.steps}
        steps = tuple(step for step in trace.steps if step.second in turns)
        found.append(replace(trace, steps=steps))
    return found
