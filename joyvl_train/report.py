"""A run's report: a self-contained page of its curves, measures and clips second by second.

Recipes put it together from sections; the pieces come from `joyvl_train.markup`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joyvl_train.heldout import Trace
from joyvl_train.markup import (
    Cell,
    Html,
    document,
    grid,
    headline,
    paragraph,
    plot,
    section,
    table,
    text,
)
from joyvl_train.strips import legend, strip
from joyvl_train.timing import MEASURES, Right, said_right

if TYPE_CHECKING:
    from joyvl_train.heldout import Case

__all__ = [
    "chosen",
    "curves",
    "figure",
    "grid",
    "headline",
    "interval",
    "measures",
    "page",
    "paragraph",
    "plot",
    "published",
    "read_log",
    "section",
    "strip",
    "strips",
    "table",
]


def page(path: str | Path, title: str, parts: Iterable[Html], subtitle: str = "") -> None:
    """Write the page of these sections to `path`, by a temporary name that is renamed."""
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    part.write_text(document(title, parts, subtitle), encoding="utf-8")
    os.replace(part, path)


# Curves


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The records of a log.jsonl; a last line that was cut off by a kill is left out."""
    records = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def curves(
    log: Iterable[Mapping[str, Any]],
    keys: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
    x: str = "step",
) -> Html:
    """A plot for each of `keys` over `x`; a mapping puts several keys into one named plot.

    By default every key that was logged as a number twice or more and changed, the loss first;
    not the intervals and counts of measures.
    """
    records = [record for record in log if _number(record, x)]
    if keys is None:
        keys = _worth_plotting(records, x)
    groups = keys if isinstance(keys, Mapping) else {key: (key,) for key in keys}
    plots = []
    for title, names in groups.items():
        series = {
            name: [(float(r[x]), float(r[name])) for r in records if _number(r, name)]
            for name in names
        }
        plots.append(plot(series, title, x))
    return grid(*plots) if plots else paragraph("Nothing was logged.")


def _worth_plotting(records: Sequence[Mapping[str, Any]], x: str) -> list[str]:
    values: dict[str, list[float]] = {}
    for record in records:
        for key in record:
            if key != x and _number(record, key):
                values.setdefault(key, []).append(float(record[key]))
    kept = [
        key
        for key, found in values.items()
        if len(set(found)) > 1 and not key.endswith((".low", ".high", ".count"))
    ]
    return sorted(kept, key=lambda key: (not key.endswith("loss"), key.rpartition("/")[0]))


def _number(record: Mapping[str, Any], key: str) -> bool:
    value = record.get(key)
    return isinstance(value, int | float) and not isinstance(value, bool)


# Measures

NAMES = {
    "onset_f1": "Onset F1",
    "precision": "Precision",
    "recall": "Recall",
    "onset_error": "Onset error (s)",
    "onset_error_abs": "Onset error, absolute (s)",
    "false_alarms_per_hour": "False alarms an hour",
    "repeats_per_event": "Repeats an event",
    "delegation_precision": "Delegation precision",
    "delegation_recall": "Delegation recall",
    "content_accuracy": "Content accuracy",
    "silence_accuracy": "Silence accuracy",
}


def measure_cell(metrics: Mapping[str, float], key: str) -> Html | None:
    """`key` of flat metrics with its interval and count; None where it was not measured."""
    if key not in metrics:
        return None
    shown = figure(key, metrics[key])
    notes = "".join(f"<small>{text(note)}</small>" for note in _interval(metrics, key))
    return Html(f"{shown}{notes}")


def interval(metrics: Mapping[str, float], key: str) -> str:
    """The interval and the count of a key, as a note: "0.91 to 0.95, n = 412"."""
    return ", ".join(_interval(metrics, key))


def _interval(metrics: Mapping[str, float], key: str) -> list[str]:
    low, high, count = (metrics.get(f"{key}.{part}") for part in ("low", "high", "count"))
    notes = []
    if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
        notes.append(f"{figure(key, low)} to {figure(key, high)}")
    if count is not None:
        notes.append(f"n = {count:,.0f}")
    return notes


def figure(key: str, value: float) -> str:
    """The value of a measure with as many decimals as it deserves."""
    name = key.rpartition("/")[2]
    digits = 2
    if name == "false_alarms_per_hour":
        digits = 0 if abs(value) >= 100 else 1
    return f"{value:,.{digits}f}".replace("-", "−")


def measures(
    metrics: Mapping[str, float],
    prefixes: Sequence[str] | None = None,
    families: Sequence[str] | None = None,
) -> Html:
    """The tables of a run: every policy overall, onset F1 of each by family, the model by family.

    Reads flat metrics under `prefixes`, the model's own first: by default `eval` and every
    `baseline/<policy>` there is. `families` are by default all that the first prefix has.
    """
    if prefixes is None:
        found = dict.fromkeys(k.split("/")[1] for k in metrics if k.startswith("baseline/"))
        prefixes = ["eval", *(f"baseline/{policy}" for policy in found)]
    own, *others = prefixes
    if families is None:
        depth = own.count("/") + 2
        keys = [k for k in metrics if k.startswith(f"{own}/") and k.count("/") == depth]
        families = sorted({k.split("/")[depth - 1] for k in keys})
    policies = {"this model": own} | {p.rpartition("/")[2].replace("_", " "): p for p in others}
    shown = [m for m in MEASURES if any(f"{p}/{m}" in metrics for p in policies.values())]

    def row(name: str, keys: Iterable[str]) -> list[Cell]:
        return [name, *(measure_cell(metrics, key) for key in keys)]

    overall = table(
        ["", *(NAMES[m] for m in shown)],
        [row(name, (f"{p}/{m}" for m in shown)) for name, p in policies.items()],
        "Every policy on the same clips: mean over families, false alarms pooled",
    )
    rivals = table(
        ["Onset F1", *policies],
        [row(f, (f"{p}/{f}/onset_f1" for p in policies.values())) for f in families],
        "Onset F1 by family",
    )
    by_family = table(
        ["This model", *(NAMES[m] for m in shown), "Hours"],
        [
            [*row(f, (f"{own}/{f}/{m}" for m in shown)), metrics.get(f"{own}/{f}/hours")]
            for f in families
        ],
        "This model by family",
    )
    note = (
        "Beneath each figure: its 95 % interval (bootstrap over clips) and what it is counted "
        "over. A dash: there was nothing to measure."
    )
    return Html(f'{overall}{rivals}{by_family}<p class="note">{text(note)}</p>')


def published(metrics: Mapping[str, float], prefix: str = "published") -> Html:
    """The published measures of a run, for comparison with other work."""
    rows: list[list[Cell]] = [
        [key.removeprefix(f"{prefix}/").replace("_", " "), value]
        for key, value in metrics.items()
        if key.startswith(f"{prefix}/")
    ]
    return table(["Measure", "Value"], rows, "Measures that others publish, for comparison only")


# Clips


def strips(
    cases: Sequence[Case], traces: Sequence[Trace], count: int = 12, right: Right = said_right
) -> Html:
    """`count` clips second by second, below a legend; `traces[i]` is of `cases[i]`."""
    if len(cases) != len(traces):
        raise ValueError(f"{len(cases)} cases but {len(traces)} traces")
    drawn = [
        strip(traces[index], cases[index][1].frames, right)
        for index in chosen(traces, count, right)
    ]
    return Html(f"{legend()}{''.join(drawn)}")


def chosen(traces: Sequence[Trace], count: int, right: Right = said_right) -> list[int]:
    """The indices of the clips that `strips` shows, in order.

    Families take turns; in each the clip with the most errors comes first, then the first of those
    left, then again the one with the most errors, so that neither only the good nor only the bad
    is shown.
    """
    left: dict[str, list[int]] = {}
    errors = []
    for index, trace in enumerate(traces):
        counts = trace.score(right)
        errors.append(counts.onsets - counts.matched + counts.false_alarms + counts.malformed)
        left.setdefault(trace.family, []).append(index)
    found: list[int] = []
    for turn in range(len(traces)):
        for indices in left.values():
            if indices and len(found) < count:
                worst = max(indices, key=lambda i: (errors[i], -i))
                index = worst if turn % 2 == 0 else indices[0]
                indices.remove(index)
                found.append(index)
    return found
