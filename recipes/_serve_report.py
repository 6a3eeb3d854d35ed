"""What a run of recipe=serve came to, as numbers and as a page."""

from __future__ import annotations

from joyvl_train.markup import Cell
from joyvl_train.report import page, section, table
from joyvl_train.run import Run
from serve.quantile import quantile
from serve.sessions import Sessions

NAMES = {
    "source": "Changes of a source (live, lost, ended)",
    "query": "Texts of users",
    "step": "Seconds answered, silent ones too",
    "task": "States of tasks that were handed over",
    "asked": "Tasks given to clients",
    "heard": "Texts heard",
    "speech": "Responses spoken aloud",
    "summary": "Texts written for memory",
    "memory": "Changes of memory",
    "config": "Changes of the mode",
    "reset": "Times that all was forgotten",
    "dropped": "Times that a slow model lost seconds",
    "engine": "Seconds without an answer",
    "late": "Answers that came too late",
    "malformed": "Replies that are no action",
    "filtered": "Responses kept back",
    "module": "Failures of modules",
    "refused": "Texts refused",
    "gap": "Gaps in the events",
    "closed": "Sessions that ended",
}
"""Kinds of events, as a reader knows them."""


def tell(run: Run, sessions: Sessions) -> None:
    """What the sessions came to."""
    counts = sessions.counted()
    p95 = quantile(sessions.latencies, 0.95)
    told = {f"serve/events/{kind}": float(count) for kind, count in sorted(counts.items())}
    run.metrics(told | {"serve/sessions": float(sessions.opened), "serve/latency_p95": p95})
    rows: list[list[Cell]] = [["Sessions opened", sessions.opened]]
    rows.append(["Seconds in which 95 % of the model's answers came", p95])
    rows += [[NAMES[kind], counts[kind]] for kind in NAMES if counts[kind]]
    page(run.report, "Served", [section("Sessions", table(["what", "value"], rows))])
