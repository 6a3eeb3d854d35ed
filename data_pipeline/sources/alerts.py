"""A span of time with its sentence -> an alert: what grounding annotations all become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.sources.wordings import alert, asked_at, sentence
from joyvl_train.timeline import Clip, Event, Rule, Timeline


def alert_timeline(
    id: str,
    clip: Clip,
    source: str,
    what: str,
    spans: Sequence[tuple[float, float]],
    several: bool,
    meta: Mapping[str, Any],
) -> Timeline:
    """An instruction before, a response at the start of each span, held to its end.

    `several` asks for each time that it happens. Spans that touch or overlap are one state, which
    starts once; `meta["merged_spans"]` counts those that went into another.
    """
    states: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if states and start <= states[-1][1]:
            states[-1] = (states[-1][0], max(end, states[-1][1]))
        else:
            states.append((start, end))
    asked = Event("q0", float(asked_at(id, states[0][0])), "user", alert(id, what, several))
    said = sentence(what)
    reports = [
        Event(f"r{n}", start, "assistant", said, until=end, answers="q0", rule=Rule("similarity"))
        for n, (start, end) in enumerate(states)
    ]
    merged = len(spans) - len(states)
    meta = {**meta, "merged_spans": merged} if merged else meta
    return Timeline(clip, "alerting", source, (asked, *reports), meta=dict(meta))
