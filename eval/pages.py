"""The report of an evaluation, and a page a case with what each system did, second by second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from eval.case import Case
from eval.grades import GRADES, Grade, Unscored
from eval.pairs import OUTCOMES, Rates
from eval.rules import guarded
from eval.verdicts import Grades, Traces
from joyvl_train.heldout import Trace
from joyvl_train.markup import Cell, Html, paragraph, section, table, text
from joyvl_train.report import page
from joyvl_train.strips import Pictures, legend, strip

TITLES = {
    "monitoring": "Monitoring and alerting",
    "counting": "Real-time counting",
    "translation": "Real-time translation",
    "time": "Time awareness",
    "commentary": "Live commentary and guidance",
    "memory": "Long-horizon memory",
    "delegation": "Delegation",
}
MOST_SECONDS = 240
"""A strip of a longer stream is cut down to the stretches in which something happens."""

_AROUND = 8  # seconds shown before and after something that is due or said


def title(scenario: str) -> str:
    return TITLES.get(scenario, scenario.replace("_", " "))


def rates_table(found: Mapping[str, Mapping[str, Rates]], opponent: str) -> Html:
    """Win, tie and loss of the model against one opponent, by scenario."""
    rows: list[list[Cell]] = []
    for scenario, rate in found[opponent].items():
        name = title(scenario) if scenario else "Overall"
        cells: list[Cell] = [_rate(rate, outcome) for outcome in OUTCOMES]
        rows.append([name, rate.count, *cells, rate.unscored])
    rows = rows[1:] + rows[:1]
    heads = ["", "cases", "win", "tie", "loss", "unscored"]
    return table(heads, rows, f"Against {opponent}")


def _rate(rate: Rates, outcome: str) -> Html | None:
    if not rate.count:
        return None
    share, low, high = (part[outcome] for part in (rate.share, rate.low, rate.high))  # type: ignore[index]
    return Html(f"{share:.1%}<small>{low:.1%} to {high:.1%}</small>")


def scores_table(
    metrics: Mapping[str, float], systems: Sequence[str], cases: Sequence[Case]
) -> Html:
    """Mean points of every system: overall, on each axis, and by scenario."""
    scenarios = list(dict.fromkeys(case.scenario for case in cases))
    rows: list[list[Cell]] = []
    for system in systems:
        overall = [metrics.get(f"{part}/{system}") for part in ("score", "quality", "timing")]
        by = [metrics.get(f"score/{system}/{scenario}") for scenario in scenarios]
        count = int(metrics.get(f"score/{system}.count", 0))
        rows.append([system, count, *map(_points, overall), *map(_points, by)])
    heads = ["mean points, 0 to 2", "cases", "score", "quality", "timing", *map(title, scenarios)]
    return table(heads, rows, "Every system, on the cases that it was scored on")


def _points(value: float | None) -> Html | None:
    return None if value is None else Html(f"{value:.2f}")


def cases_table(cases: Sequence[Case], grades: Grades) -> Html:
    """Every case with what each system got, and its page, where there is something to show."""
    rows: list[list[Cell]] = []
    for case in cases:
        name = text(case.id)
        link = Html(f'<a href="cases/{name}.html">{name}</a>') if grades else name
        cells: list[Cell] = [_grade(of[case.id]) for of in grades.values() if case.id in of]
        cells += [None] * (len(grades) - len(cells))
        rows.append([link, title(case.scenario), case.about, *cells])
    return table(["case", "scenario", "what it is", *grades], rows)


def _grade(grade: Grade | Unscored) -> Html:
    if isinstance(grade, Unscored):
        return Html(f"unscored<small>{text(grade.reason)}</small>")
    return Html(f"{grade.score:.1f}<small>{_word(grade.quality)}, {_word(grade.timing)}</small>")


def _word(points: float) -> str:
    return GRADES[round(points)] if points == round(points) else f"{points:.1f}"


def case_page(
    path: Path,
    case: Case,
    traces: Traces,
    grades: Grades,
    pictures: Pictures | None,
    systems: Sequence[str],
) -> None:
    """The page of a case: what it is, and each system's strip with its verdict."""
    right = guarded(case.things, case.states)
    parts = [section("The case", paragraph(case.about), _facts(case), legend())]
    for system in systems:
        trace, grade = traces[system].get(case.id), grades[system].get(case.id)
        if not isinstance(trace, Trace) or grade is None or pictures is None:
            reason = grade.detail if isinstance(grade, Unscored) else "it was not played"
            parts.append(section(system, paragraph(reason)))
            continue
        verdict = (
            f"unscored: {grade.reason}"
            if isinstance(grade, Unscored)
            else f"quality {_word(grade.quality)}, timing {_word(grade.timing)}"
        )
        short = shortened(trace)
        told = f"{verdict}{shown_part(trace, short)}"
        parts.append(section(system, strip(short, pictures, right, title=told)))
    page(path, case.id, parts, title(case.scenario))


def _facts(case: Case) -> Html:
    rows: list[list[Cell]] = [["file", case.path.name], ["SHA-256", case.digest]]
    if case.memory:
        rows.append(["memory must reach, seconds", case.memory])
    if case.held_out:
        rows.append(["kept apart from training by", case.held_out])
    return table(["", ""], rows)


def shortened(trace: Trace, most: int = MOST_SECONDS) -> Trace:
    """The trace without stretches in which nothing happens, where it lasts longer than `most`
    seconds: what is due comes first, then what was asked, then what was said. Onsets that are left
    out with their seconds are no onsets of what is returned."""
    if len(trace.seconds) <= most:
        return trace
    wanted = [o.second for o in trace.onsets]
    wanted += [step.second for step in trace.steps if step.queries or step.results]
    wanted += [e.second for e in trace.emissions]
    kept: set[int] = set()
    for second in wanted:
        around = range(second - _AROUND, second + _AROUND + 1)
        if len(kept | {*around}) <= 2 * most:
            kept |= {*around}
    steps = tuple(step for step in trace.steps if step.second in kept)
    onsets = tuple(o for o in trace.onsets if {*o.window} <= kept)
    return replace(trace, steps=steps, onsets=onsets)


def shown_part(trace: Trace, short: Trace) -> str:
    """What of a trace is shown, in words; "" where all of it is."""
    lost = len(trace.steps) - len(short.steps)
    return f", {len(short.steps)} of {len(trace.steps)} seconds shown" if lost else ""
