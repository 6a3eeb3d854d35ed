"""Play 58 cases as live streams to a checkpoint and its rivals; judge, compare, report."""

from __future__ import annotations

from collections.abc import Mapping

from eval import pages
from eval.case import Case, CaseError
from eval.fetched import fetch
from eval.pinned import changes
from eval.suite import View, frames_of, lacking, slug
from eval.verdicts import (
    Traces,
    compared,
    cut_off,
    graded,
    heard,
    rate_metrics,
    score_metrics,
)
from joyvl_train.checkpoint import CheckpointError
from joyvl_train.config import Config, UserError
from joyvl_train.heldout import Trace, metrics
from joyvl_train.llm import LLMError
from joyvl_train.published_timing import measures as published_measures
from joyvl_train.report import measures, page, paragraph, published, section
from joyvl_train.run import Run
from recipes._cases import MINE, check_cases, chosen_cases, play_cases
from recipes._judged import aggregate, compare, model_judge, rate, write_entries
from recipes._live import live
from recipes._public import public
from recipes._world import cells
from serve.source import SourceError

GOES_ON = True
"""A finished run of it that is started again plays what changed since."""

COMMANDS = ("run", "validate", "fetch", "live", "rate", "aggregate", "compare")


def main(config: Config, run: Run) -> None:
    """Cases -> each system's transcripts -> verdicts -> win, tie and loss -> report."""
    if config.command not in COMMANDS:
        raise UserError(f"command={config.command}: recipe=eval has {', '.join(COMMANDS)}")
    view = View(config.data.size, config.data.cache_dir, cells(config))
    try:
        if config.command == "validate":
            validate(config, run, view)
        elif config.command == "fetch":
            run.metrics({"cases/fetched": fetch(chosen_cases(config), run.say)})
        elif config.command == "live":
            live(config, run, chosen_cases(config), view)
        elif config.command == "rate":
            rate(config, run, chosen_cases(config), view, MINE)
        elif config.command == "aggregate":
            aggregate(config, run, MINE)
        elif config.command == "compare":
            compare(config, run)
        elif config.cases.benchmark:
            public(config, run, view)
        else:
            evaluate(config, run, view)
    except (CaseError, CheckpointError, LLMError, SourceError) as error:
        raise UserError(str(error)) from error
    if config.command == "run" and run.read_metrics().get("cases/not_played"):
        run.say("cases that could not be played are played when this run is started again")
        return
    run.finish(latest=config.command == "run")


NO_CASE = "there is no case to play; see to cases.suite, cases.paths and cases.only"
PUBLISHED = (
    "Of other papers, by their own definitions (joyvl_train/published_timing.py), from the same "
    "streams: to compare with what they report, not for the verdicts above."
)
UNCHANGED = (
    "No case that ships was changed since it was made. Of cases of one's own nothing is recorded; "
    "their pages tell the hash that was played."
)


def validate(config: Config, run: Run, view: View) -> None:
    """Reads every case and says what is wrong with each; `UserError` where one is."""
    wrong = check_cases(config, view)
    for line in wrong:
        run.say(line)
    if wrong:
        run.metrics({"cases/wrong": len(wrong)})
        raise UserError(f"{len(wrong)} of the cases can't be played; they are listed above")
    cases = chosen_cases(config)
    if not cases:
        raise UserError(NO_CASE)
    run.metrics({"cases/read": len(cases), "cases/wrong": 0})
    page(run.report, "Cases", [section("Cases", pages.cases_table(cases, {}))])
    run.say("1 case is good" if len(cases) == 1 else f"{len(cases)} cases are good")


def evaluate(config: Config, run: Run, view: View) -> None:
    """Plays what is missing of all transcripts, then writes verdicts, rates and pages."""
    if run.finished:  # once more, for what has changed since: nothing of before may stay
        run.reopen()
    cases = chosen_cases(config)
    left_out = [] if config.cases.footage else [case for case in cases if case.footage]
    cases = [case for case in cases if case not in left_out]
    if left_out:
        run.say(f"cases.footage=false: {len(left_out)} cases before real footage are left out")
    lost = [line for line in map(lacking, cases) if "assets footage" in line]
    if lost:
        raise UserError(
            f"{lost[0]} ({len(lost)} cases need it), or leave them out, cases.footage=false"
        )
    if not cases:
        raise UserError(NO_CASE)
    played = play_cases(config, run, cases, view)
    traces = heard(played, config.cases.latency)
    for name, seconds in (("poller", config.cases.poll_cut), ("ask only", config.cases.ask_cut)):
        if name in traces:
            traces[f"{name} cut at {seconds} s"] = cut_off(traces[name], seconds)
    report(config, run, cases, traces, view, len(left_out))


def report(
    config: Config,
    run: Run,
    cases: list[Case],
    traces: Traces,
    view: View,
    left_out: int,
) -> None:
    """Verdicts, rates, measures, and the pages that show them."""
    grades = graded(traces, cases)
    names = list(traces)
    mine = MINE if MINE in grades else names[0]
    found = compared(grades, cases, mine, config.cases.samples)
    scores = score_metrics(grades, cases)
    told = rate_metrics({slug(name): rates for name, rates in found.items()})
    told |= score_metrics({slug(name): of for name, of in grades.items()}, cases)
    for name in names:
        some = [t for t in traces[name].values() if isinstance(t, Trace)]
        prefix = "eval" if name == mine else f"baseline/{slug(name)}"
        told |= metrics(some, prefix, samples=config.eval.bootstrap)
        if name == mine:
            told |= published_measures(some)
    whole = "" if config.cases.only or left_out else config.cases.suite
    changed = changes(cases, suite="" if whole == "none" else whole)
    lost = [c for c in cases if not any(isinstance(of.get(c.id), Trace) for of in traces.values())]
    told |= {"cases/played": len(cases) - len(lost), "cases/not_played": len(lost)}
    told |= {"cases/left_out": left_out, "cases/changed": len(changed)}
    run.metrics(told)
    write_entries(run, config.cases.name, cases, grades, mine)
    (run.dir / "cases").mkdir(exist_ok=True)
    for case in cases:
        pictures = None if case in lost else frames_of(case, view).frames
        target = run.dir / "cases" / f"{case.id}.html"
        pages.case_page(target, case, traces, grades, pictures, names)
    prefixes = ["eval", *(f"baseline/{slug(name)}" for name in names if name != mine)]
    parts = [
        section("Win, tie and loss", *(pages.rates_table(found, name) for name in found)),
        section("Scores", pages.scores_table(scores, names, cases)),
        *model_judge(config, run, cases, traces, grades, mine),
        section("Cases", pages.cases_table(cases, grades)),
        section("Timing measures", measures(told, prefixes)),
        section("Published measures", published(told), intro=PUBLISHED),
        section("Changes", *map(paragraph, changed or [UNCHANGED])),
    ]
    line = summary(told, [name for name in names if name != mine], mine)
    page(run.report, "Evaluation", parts, line)
    run.say(line)
    if len(lost) == len(cases):
        raise UserError("none of the cases could be played; see above")


def summary(told: Mapping[str, float], opponents: list[str], mine: str) -> str:
    """The win rates of `mine` in a line."""
    parts = []
    for name in opponents:
        key = f"win_rate/{slug(name)}"
        if key in told:
            low, high = told[f"{key}.low"], told[f"{key}.high"]
            count = int(told[f"{key}.count"])
            parts.append(f"{name} {told[key]:.1%} ({low:.1%} to {high:.1%} of {count})")
    return f"wins of {mine} against {', '.join(parts)}" if parts else "no opponent was played"
