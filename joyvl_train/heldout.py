"""Free-running evaluation: a policy streams clips with its own past in its history.

A model is driven through the same `Stream` as in serving and training. What came of a clip is its
`Trace`, from which every measure, table and strip is computed; a file of traces is kept with a run.
What a model is measured against stands in `joyvl_train.baselines`.
"""

from __future__ import annotations

import copy
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tqdm import tqdm

from joyvl_train.actions import (
    Action,
    Delegation,
    Silence,
    format_action,
    parse_action,
    spoken,
)
from joyvl_train.background import SimulatedBackground
from joyvl_train.chunks import Summarize, queries_by_second
from joyvl_train.coded_frames import coded
from joyvl_train.memory import Memory, Summary
from joyvl_train.stream import Result, Stream, StreamSettings, Turn
from joyvl_train.timeline import Rule, Timeline
from joyvl_train.timing import (
    EARLY,
    LATE,
    Delegated,
    Emission,
    Onset,
    Right,
    Score,
    aggregate,
    due,
    said_right,
    score,
)

if TYPE_CHECKING:
    from joyvl_train.frames import Frames

    Case = tuple[Timeline, Frames]


class Answer(Protocol):
    """What is read of a `reply.Reply`."""

    @property
    def text(self) -> str: ...
    @property
    def action(self) -> Action | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def truncated(self) -> bool: ...


class Streamer(Protocol):
    """What is used of an `engine.Engine` to stream clips."""

    def open(self, stream: Stream, seed: int | None = None) -> int: ...
    def step(self, handles: Sequence[int]) -> Sequence[Answer]: ...
    def close(self, handle: int) -> None: ...


# Traces


@dataclass(frozen=True, slots=True)
class Step:
    """One second: what came in, and what was shown.

    `malformed` is the reason where the reply was outside the grammar; then `reply` is its text and
    the action is silence. `truncated`: the reply was cut at the token limit.
    """

    second: int
    action: Action = field(default_factory=Silence)
    queries: tuple[str, ...] = ()
    results: tuple[Result, ...] = ()
    malformed: str | None = None
    reply: str | None = None
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Trace:
    """A policy on a clip. `onsets` are those that were due, given what the policy delegated."""

    clip: str
    family: str
    source: str
    policy: str
    steps: tuple[Step, ...]
    onsets: tuple[Onset, ...]

    @property
    def seconds(self) -> range:
        """From 0 to the last second stepped; seconds without frames in between are no steps."""
        return range(self.steps[-1].second + 1 if self.steps else 0)

    @property
    def emissions(self) -> list[Emission]:
        """What was said, by second; of a delegation, its note."""
        return [
            Emission(step.second, text, isinstance(step.action, Delegation))
            for step in self.steps
            if (text := spoken(step.action)) is not None
        ]

    def score(self, right: Right = said_right) -> Score:
        """The counts of the clip."""
        return score(
            self.onsets,
            self.emissions,
            [step.second for step in self.steps],
            right,
            malformed=sum(step.malformed is not None for step in self.steps),
            truncated=sum(step.truncated for step in self.steps),
        )


def metrics(
    traces: Iterable[Trace],
    prefix: str = "eval",
    right: Right = said_right,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """The measures of `timing.aggregate` over traces, by family."""
    scores: dict[str, list[Score]] = {}
    for trace in traces:
        scores.setdefault(trace.family, []).append(trace.score(right))
    return aggregate(scores, prefix, samples, seed)


def to_json(trace: Trace) -> dict[str, Any]:
    """Plain data for a JSON line. What a step lacks is left out; silence is the action left out."""
    steps = []
    for step in trace.steps:
        item: dict[str, Any] = {"second": step.second}
        if not isinstance(step.action, Silence):
            item["action"] = format_action(step.action)
        if step.queries:
            item["queries"] = list(step.queries)
        if step.results:
            item["results"] = [list(result) for result in step.results]
        if step.malformed is not None:
            item |= {"malformed": step.malformed, "reply": step.reply}
        if step.truncated:
            item["truncated"] = True
        steps.append(item)
    onsets = []
    for onset in trace.onsets:
        item = {name: getattr(onset, name) for name in Onset.__slots__}
        if onset.rule is not None:
            item["rule"] = {"kind": onset.rule.kind, "facts": list(onset.rule.facts)}
        onsets.append(item)
    head = {name: getattr(trace, name) for name in ("clip", "family", "source", "policy")}
    return {**head, "steps": steps, "onsets": onsets}


def from_json(data: Mapping[str, Any]) -> Trace:
    """The trace of a JSON line; `ValueError` where it isn't one."""
    try:
        steps = []
        for item in data["steps"]:
            action = parse_action(item["action"]) if "action" in item else Silence()
            queries = tuple(item.get("queries", ()))
            results = tuple((number, text) for number, text in item.get("results", ()))
            rest = (item.get("malformed"), item.get("reply"), item.get("truncated", False))
            steps.append(Step(item["second"], action, queries, results, *rest))
        onsets = []
        for item in data["onsets"]:
            rule = item.get("rule")
            if rule is not None:
                rule = Rule(rule["kind"], tuple(rule["facts"]))
            onsets.append(Onset(**{**item, "rule": rule}))
        head = (data["clip"], data["family"], data["source"], data["policy"])
        return Trace(*head, tuple(steps), tuple(onsets))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not a trace: {type(error).__name__}: {error}") from error


def write_traces(path: str | Path, traces: Iterable[Trace]) -> None:
    """A JSON line a trace, written to a temporary name and renamed."""
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        for trace in traces:
            file.write(json.dumps(to_json(trace), ensure_ascii=False) + "\n")
    os.replace(part, path)


def read_traces(path: str | Path) -> list[Trace]:
    """The traces of a file; `ValueError` names the line that isn't one."""
    traces = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            traces.append(from_json(json.loads(line)))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return traces


# A clip, played


class Episode:
    """A clip as it is played to a policy: what arrives in each second, and what was done.

    What the policy delegates comes back from a `SimulatedBackground` of `seed`, and what is due
    after it moves along. early, late: of onsets that name no window.
    """

    def __init__(
        self,
        timeline: Timeline,
        seed: int = 0,
        *,
        early: int = EARLY,
        late: int = LATE,
    ) -> None:
        self.timeline = timeline
        self.steps: tuple[Step, ...] = ()
        self._window = early, late
        self._background = SimulatedBackground(timeline, seed, early=early, late=late)
        self._queries = queries_by_second(timeline)
        self._delegated: Mapping[int, int] = {}  # task number -> second
        self._returned: Mapping[int, int] = {}

    def arrivals(self, second: int) -> tuple[tuple[str, ...], tuple[Result, ...]]:
        """The queries and the results that arrive in `second`, each second told once."""
        return self._queries.get(second, ()), tuple(self._background.due(second))

    def note(self, step: Step, task: int | None) -> None:
        """Takes down a second; `task` is the number of what it delegated."""
        self.steps += (step,)
        came = {number: step.second for number, _ in step.results}
        self._returned = {**self._returned, **came}
        if task is not None and isinstance(step.action, Delegation):
            self._delegated = {**self._delegated, task: step.second}
            self._background.dispatch(step.second, task, step.action)

    def draw_delays(self) -> None:
        """What is delegated from here on comes back after drawn delays, gold results too."""
        self._background.draw_from_now_on()

    @property
    def gold(self) -> list[Onset]:
        """What is due where all gold actions are taken."""
        return due(self.timeline, None, *self._window)

    @property
    def onsets(self) -> list[Onset]:
        """What is due, given what was delegated so far."""
        delegated = {
            event.id: Delegated(self._delegated[number], self._returned.get(number))
            for number, event in self._background.matched.items()
        }
        return due(self.timeline, delegated, *self._window)

    def trace(self, policy: str) -> Trace:
        """All that was done, beside what was due."""
        return trace_of(self.timeline, policy, self.steps, self.onsets)

    def fork(self) -> Episode:
        """An independent copy, for rollouts that share their past."""
        other = copy.copy(self)
        other._background = self._background.fork()
        return other


def step_of(turn: Turn, reply: Answer) -> Step:
    """A turn that `reply` closes; one outside the grammar stands as silence, with its reason."""
    malformed = None if reply.action is not None else (reply.error or "malformed")
    return Step(
        turn.second,
        Silence() if reply.action is None else reply.action,
        turn.queries,
        turn.results,
        malformed,
        None if malformed is None else reply.text,
        reply.truncated,
    )


# A model, streaming


class _Run:
    """One clip on its way."""

    def __init__(
        self,
        index: int,
        case: Case,
        settings: StreamSettings,
        seed: int,
        window: tuple[int, int],
        summarize: Summarize,
    ) -> None:
        self.index, (timeline, self.frames) = index, case
        self._shown = coded(self.frames, settings)
        self.stream = Stream(settings, Memory(opening=timeline.opening))
        self.episode = Episode(timeline, seed, early=window[0], late=window[1])
        self.handle = -1
        self.second = 0
        self._summarize = summarize

    @property
    def over(self) -> bool:
        return self.second >= self.frames.seconds

    def begin(self) -> bool:
        """Open the turn of this second; False where there are no frames and so no turn."""
        now = self.second
        turn = self.stream.observe(now, self._shown.frames(now), *self.episode.arrivals(now))
        return turn is not None

    def end(self, reply: Answer | None) -> None:
        """Close the turn with what the user is shown, if one was opened, and go on."""
        turn = self.stream.open_turn
        if turn is not None and reply is not None:
            step = step_of(turn, reply)
            self.episode.note(step, self.stream.act(step.action))
        seconds = self.stream.due_summary()
        if seconds is not None:
            text = self._summarize(self.stream.due_turns())
            self.stream.add_summary(Summary(seconds.start, seconds.stop, text))
        self.second += 1


def trace_of(
    timeline: Timeline, policy: str, steps: Iterable[Step], onsets: Iterable[Onset]
) -> Trace:
    """What `policy` did on a clip; `onsets`: as of `Trace`."""
    head = (timeline.clip.id, timeline.family, timeline.source, policy)
    return Trace(*head, tuple(steps), tuple(onsets))


def check_case(case: Case) -> None:
    """`ValueError` where a record and its frames differ in length."""
    timeline, frames = case
    if timeline.clip.seconds != frames.seconds:
        raise ValueError(
            f"clip {timeline.clip.id!r} lasts {timeline.clip.seconds} s by its record, but its "
            f"frames {frames.seconds} s; settle the record on the frames first"
        )


def free_runs(
    engine: Streamer,
    cases: Sequence[Case],
    settings: StreamSettings | None = None,
    *,
    batch: int = 32,
    seed: int = 0,
    early: int = EARLY,
    late: int = LATE,
    summarize: Summarize | None = None,
    policy: str = "model",
    progress: bool = True,
) -> Iterator[tuple[int, Trace]]:
    """(index of the case, trace) of each clip as it ends; `batch` streams advance in step.

    Queries come at their seconds; results at the policy's own delegation plus the gold delay, from
    a `SimulatedBackground` of `seed`. A malformed reply stands as silence and is counted. Chunks
    are summarized by `summarize`; None: by what was said, within the limits of `settings`. `early`
    and `late` hold for onsets that name no window. Raises `ValueError` where a record and its
    frames differ in length.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}; it must be 1 or more")
    for case in cases:
        check_case(case)
    settings = settings or StreamSettings()
    summarize = summarize or settings.limits.log
    waiting = deque(enumerate(cases))
    running: list[_Run] = []
    total = sum(frames.seconds for _, frames in cases)
    bar = tqdm(total=total, desc=policy, unit="s", unit_scale=True, disable=not progress)
    try:
        with bar:
            while waiting or running:
                while waiting and len(running) < batch:
                    index, case = waiting.popleft()
                    run = _Run(index, case, settings, seed, (early, late), summarize)
                    run.handle = engine.open(run.stream, index)
                    running.append(run)
                asked = [run for run in running if not run.over and run.begin()]
                replies = engine.step([run.handle for run in asked]) if asked else []
                answers = dict(zip([run.index for run in asked], replies, strict=True))
                for run in running:
                    if not run.over:
                        run.end(answers.get(run.index))
                        bar.update()
                for run in [run for run in running if run.over]:
                    engine.close(run.handle)
                    running.remove(run)
                    yield run.index, run.episode.trace(policy)
    finally:
        for run in running:
            engine.close(run.handle)


def free_run(
    engine: Streamer,
    cases: Sequence[Case],
    settings: StreamSettings | None = None,
    **options: Any,
) -> list[Trace]:
    """The traces of `free_runs`, in the order of `cases`; it takes the same options."""
    traces = dict(free_runs(engine, cases, settings, **options))
    return [traces[index] for index in range(len(cases))]
