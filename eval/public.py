"""Published benchmarks of speaking in time, played as streams and scored by their own rules.

OVO-Bench asks at set times; what a system that speaks on its own would answer then is read off
what it has said by then: has it answered (CRR), which step did it name last (SSR), what number did
it say last (REC). Its other tasks ask once, and the first thing said within `PATIENCE` seconds is
the answer. StreamingBench's proactive output is right within 2 s of the gold second if the text is
said. Subsets are never averaged together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from data_pipeline.candidates import Refused
from data_pipeline.rates import Rate, over_clips
from data_pipeline.sources import ovo_bench, streamingbench
from data_pipeline.sources.videos import Videos
from eval.case import Case, CaseError, Video
from joyvl_train.content import numbers, right, token_f1
from joyvl_train.heldout import Trace
from joyvl_train.published_timing import PATIENCE, streamingbench_po
from joyvl_train.timeline import Timeline, TimelineError, to_json
from joyvl_train.timing import Emission

Kind = Literal["ovo_bench", "streamingbench_proactive"]
_READ = {"ovo_bench": ovo_bench.read, "streamingbench_proactive": streamingbench.read}


def public_cases(kind: Kind, annotations: Path, videos: Path) -> tuple[list[Case], list[Refused]]:
    """The records of a benchmark as cases, by subset, and those that can't be played."""
    if not annotations.is_file():
        raise CaseError(f"{annotations}: there is no such file of annotations; see to the path")
    cases: list[Case] = []
    refused: list[Refused] = []
    for item in _READ[kind](annotations, Videos(videos)):
        if isinstance(item, Refused):
            refused.append(item)
            continue
        timeline = item.timeline
        try:  # what is wrong with a record is known before it is played
            points(kind, timeline, Trace(timeline.clip.id, timeline.family, "", "", (), ()))
        except TimelineError as error:
            refused.append(Refused(item.id, error.reason, error.detail))
            continue
        subset = str(timeline.meta.get("task") or timeline.meta.get("task_type") or "all")
        told = json.dumps(to_json(timeline), sort_keys=True, default=str)
        cases.append(
            Case(
                item.id,
                subset,
                timeline.events[0].text,
                timeline,
                hashlib.sha256(told.encode()).hexdigest(),
                videos / annotations.name,
                video=Video(str(timeline.clip.video)),
            )
        )
    return cases, refused


def points(kind: Kind, timeline: Timeline, trace: Trace) -> list[bool]:
    """One verdict for each point at which the benchmark tests the record."""
    if kind == "streamingbench_proactive":
        return streamingbench_po(trace.onsets, trace.emissions)
    tests = timeline.meta.get("test_info")
    if not tests:
        return [_answered(timeline, trace.emissions)]
    if not isinstance(tests, Sequence) or not all(isinstance(t, Mapping) for t in tests):
        raise TimelineError("bad test_info", f"clip {timeline.clip.id!r}")
    return [_tested(timeline, test, trace.emissions) for test in tests]


def _answered(timeline: Timeline, emissions: Sequence[Emission]) -> bool:
    """Whether the first thing said after the question is its answer."""
    (asked,) = timeline.of("user")
    (gold,) = timeline.of("assistant")
    for said in emissions:
        if asked.second <= said.second <= asked.second + PATIENCE:
            return right(gold.rule, gold.text, said.text) is True
    return False


def _tested(timeline: Timeline, test: Mapping[str, Any], emissions: Sequence[Emission]) -> bool:
    try:
        second = int(test["realtime"])
        asked = timeline.of("user")[0].second
        heard = [e for e in emissions if asked <= e.second <= second]
        if "count" in test:
            return _count(heard) == int(test["count"])
        if "step" in test:
            return (_step(timeline, heard) == _norm(str(test["step"]))) == bool(test["type"])
        return bool(heard) == bool(test["type"])
    except (KeyError, TypeError, ValueError) as error:
        raise TimelineError("bad test_info", f"clip {timeline.clip.id!r}: {error}") from None


def _count(heard: Sequence[Emission]) -> int:
    """The number said last; 0 while none was."""
    for said in reversed(heard):
        found = numbers(said.text)
        if found and found[-1] == found[-1].to_integral_value() and abs(found[-1]) < Decimal(10**6):
            return int(found[-1])
    return 0


def _step(timeline: Timeline, heard: Sequence[Emission]) -> str:
    """The step that was named last, of those of the record; "" where none was."""
    steps = [event.text for event in timeline.of("assistant")]
    for said in reversed(heard):
        best = max(steps, key=lambda step: token_f1(step, said.text))
        if token_f1(best, said.text) >= 0.5:
            return _norm(best)
    return ""


def _norm(text: str) -> str:
    return " ".join(text.casefold().replace(".", " ").split())


def by_subset(found: Sequence[tuple[str, Sequence[bool]]]) -> dict[str, Rate]:
    """Subset -> the share of points that are right; the interval is over records."""
    clips: dict[str, list[tuple[int, int]]] = {}
    for subset, verdicts in found:
        clips.setdefault(subset, []).append((sum(verdicts), len(verdicts)))
    return {subset: over_clips(counts) for subset, counts in sorted(clips.items())}
