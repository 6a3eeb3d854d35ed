"""From transcripts to what a report says: grades, rates, measures, all of one set of cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from eval.case import Case
from eval.grades import Grade, Unscored
from eval.pairs import Rates, flat, outcomes, rates
from eval.play import Played, charged
from eval.rules import guarded, judge
from eval.suite import Transcripts
from joyvl_train.actions import Silence
from joyvl_train.heldout import Trace

Traces = dict[str, dict[str, Trace | Unscored]]
"""System -> case -> its trace."""

Grades = dict[str, dict[str, Grade | Unscored]]
"""System -> case -> what a judge says of it."""


def heard(transcripts: Transcripts, latency: float | str) -> Traces:
    """The traces as they are heard: `latency` seconds later, or as measured."""
    found: Traces = {}
    for system, played in transcripts.items():
        found[system] = {case: _heard(one, latency) for case, one in played.items()}
    return found


def _heard(played: Played | Unscored, latency: float | str) -> Trace | Unscored:
    if isinstance(played, Unscored) or latency == 0:
        return played if isinstance(played, Unscored) else played.trace
    return charged(played, None if latency == "measured" else float(latency))


def cut_off(traces: Mapping[str, Trace | Unscored], seconds: int) -> dict[str, Trace | Unscored]:
    """The traces of a product whose session ends after so many seconds: silence from then on."""
    found: dict[str, Trace | Unscored] = {}
    for case, trace in traces.items():
        if isinstance(trace, Trace):
            steps = tuple(
                step if step.second < seconds else replace(step, action=Silence())
                for step in trace.steps
            )
            trace = replace(trace, steps=steps)
        found[case] = trace
    return found


def graded(traces: Traces, cases: Sequence[Case]) -> Grades:
    """What the rule judge says."""
    known = {case.id: case for case in cases}
    return {
        system: {
            case: by_rules(known[case], trace) if isinstance(trace, Trace) else trace
            for case, trace in of_system.items()
        }
        for system, of_system in traces.items()
    }


def by_rules(case: Case, trace: Trace) -> Grade | Unscored:
    """What the rule judge says of a trace of this case."""
    return judge(trace, guarded(case.things, case.states), case.quiet)


def compared(
    grades: Grades, cases: Sequence[Case], mine: str, samples: int
) -> dict[str, dict[str, Rates]]:
    """Opponent -> "" (all cases) or scenario -> the rates of `mine` against it."""
    scenarios = list(dict.fromkeys(case.scenario for case in cases))
    of_case = {case.id: case.scenario for case in cases}
    found: dict[str, dict[str, Rates]] = {}
    for opponent in grades:
        if opponent == mine:
            continue
        ended = outcomes(grades[mine], grades[opponent])
        found[opponent] = {"": rates(list(ended.values()), samples)}
        for scenario in scenarios:
            some = [o for case, o in ended.items() if of_case[case] == scenario]
            found[opponent][scenario] = rates(some, samples)
    return found


def rate_metrics(found: Mapping[str, Mapping[str, Rates]]) -> dict[str, float]:
    """The keys of `metrics.json`."""
    told: dict[str, float] = {}
    for opponent, by_scenario in found.items():
        for scenario, rate in by_scenario.items():
            told |= flat(opponent, rate, scenario)
    return told


def score_metrics(grades: Grades, cases: Sequence[Case]) -> dict[str, float]:
    """`score/<system>[/<scenario>]`: mean points of quality and timing, 0 to 2, and their mean."""
    of_case = {case.id: case.scenario for case in cases}
    told: dict[str, float] = {}
    for system, of_system in grades.items():
        for scenario in ("", *dict.fromkeys(of_case.values())):
            some = [
                grade
                for case, grade in of_system.items()
                if isinstance(grade, Grade) and scenario in ("", of_case[case])
            ]
            if not some:
                continue
            end = f"{system}/{scenario}" if scenario else system
            told[f"quality/{end}"] = sum(g.quality for g in some) / len(some)
            told[f"timing/{end}"] = sum(g.timing for g in some) / len(some)
            told[f"score/{end}"] = sum(g.score for g in some) / len(some)
            told[f"score/{end}.count"] = len(some)
    return told
