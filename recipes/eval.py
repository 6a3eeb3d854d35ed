"""Play 58 cases as live streams to a checkpoint and its rivals; judge, compare, report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from eval import pages
from eval.case import Case, CaseError
from eval.opening import Cutting, Spec
from eval.pinned import changes
from eval.suite import View, frames_of, lacking, play_all, slug
from eval.verdicts import Traces, compared, cut_off, graded, heard, rate_metrics, score_metrics
from joyvl_train.checkpoint import CheckpointError
from joyvl_train.config import Config, UserError
from joyvl_train.heldout import Trace, metrics
from joyvl_train.published_timing import measures as published_measures
from joyvl_train.report import measures, page, paragraph, published, section
from joyvl_train.run import Run, cores
from recipes._cases import CANNED, check_cases, chosen_cases, silence_bias
from recipes._world import settings

MINE = "model"


def main(config: Config, run: Run) -> None:
    """Cases -> each system's transcripts -> verdicts -> win, tie and loss -> report."""
    try:
        if config.command == "validate":
            validate(config, run)
        elif config.command == "run":
            evaluate(config, run)
        else:
            raise UserError(f"command={config.command}: recipe=eval has run and validate")
    except (CaseError, CheckpointError) as error:
        raise UserError(str(error)) from error


def validate(config: Config, run: Run) -> None:
    """Reads every case and says what is wrong with each; `UserError` where one is."""
    wrong = check_cases(config)
    for line in wrong:
        run.say(line)
    cases = chosen_cases(config) if not wrong else []
    run.metrics({"cases/read": len(cases), "cases/wrong": len(wrong)})
    if wrong:
        raise UserError(f"{len(wrong)} of the cases can't be played; they are listed above")
    page(run.report, "Cases", [section("Cases", pages.cases_table(cases, {}))])
    run.say(f"{len(cases)} cases are good")
    run.finish(latest=False)


def evaluate(config: Config, run: Run) -> None:
    """Plays what is missing of all transcripts, then writes verdicts, rates and pages."""
    cases = chosen_cases(config)
    left_out = [] if config.cases.footage else [case for case in cases if case.footage]
    cases = [case for case in cases if case not in left_out]
    if left_out:
        run.say(f"cases.footage=false: {len(left_out)} cases before real footage are left out")
    lost = [line for line in map(lacking, cases) if "footage" in line]
    if lost:
        raise UserError(
            f"{lost[0]} ({len(lost)} cases need it), or leave them out, cases.footage=false"
        )
    if not cases:
        raise UserError("there is no case to play; see to cases.suite, cases.paths and cases.only")
    specs = systems(config, run)
    view = View(config.data.size, config.data.cache_dir)
    played = play_all(
        cases,
        specs,
        run.dir / "transcripts",
        view,
        seed=config.seed,
        workers=config.cases.workers or cores(),
        say=run.say,
    )
    traces = heard(played, config.cases.latency)
    if "poller" in traces:
        traces[f"poller, {config.cases.poll_cut} s"] = cut_off(
            traces["poller"], config.cases.poll_cut
        )
    if "ask only" in traces:
        traces[f"ask only, {config.cases.ask_cut} s"] = cut_off(
            traces["ask only"], config.cases.ask_cut
        )
    report(config, run, cases, traces, view, len(left_out))
    run.finish(latest=True)


def systems(config: Config, run: Run) -> list[Spec]:
    """Who is played, the model first."""
    given = config.cases
    found = run.find_checkpoint(["grpo", "sft", "base", "kept"])
    base = given.base or str(run.home / config.model.kept)
    shared = {
        "max_new_tokens": config.eval.max_new_tokens,
        "temperature": config.eval.temperature,
        "system": config.prompt.system,
        "min_pixels": config.model.min_pixels,
        "max_pixels": config.model.max_pixels,
    }
    stream = settings(config)
    cutting = Cutting(
        stream.chunk_seconds,
        stream.lead,
        stream.limits,
        given.summaries,  # type: ignore[arg-type]
    )
    period = given.poll_seconds
    made = {
        "model": lambda: Spec(
            MINE,
            "stream",
            found.path,
            bias=silence_bias(config, run, found.path),
            cutting=cutting,
            **shared,  # type: ignore[arg-type]
        ),
        "poller": lambda: Spec("poller", "poller", base, period=period, **shared),  # type: ignore[arg-type]
        "ask_only": lambda: Spec("ask only", "ask_only", base, **shared),  # type: ignore[arg-type]
        "poller_same": lambda: Spec("poller, same", "poller", found.path, period=period, **shared),  # type: ignore[arg-type]
        "ask_only_same": lambda: Spec("ask only, same", "ask_only", found.path, **shared),  # type: ignore[arg-type]
    }
    specs = [made[name]() for name in given.systems if name in made]
    if "trivial" in given.systems:
        specs += [Spec(name, "trivial", text=text) for name, text in CANNED.items()]
    specs += [Spec(Path(path).stem, "recorded", path=path) for path in given.recorded]
    names = [spec.name for spec in specs]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"cases.recorded: {sorted(twice)[0]!r} is the name of two systems")
    if not specs:
        raise UserError("cases.systems is empty, and cases.recorded, too: name who is played")
    return specs


def report(
    config: Config,
    run: Run,
    cases: list[Case],
    traces: Traces,
    view: View,
    left_out: int,
) -> None:
    """Verdicts, rates, measures, and the pages that show them."""
    grades = graded(traces)
    names = list(traces)
    mine = MINE if MINE in grades else names[0]
    found = compared(grades, cases, mine, config.cases.samples)
    told = rate_metrics({slug(name): rates for name, rates in found.items()})
    scores = score_metrics(grades, cases)
    told |= score_metrics({slug(name): of for name, of in grades.items()}, cases)
    for name in names:
        some = [t for t in traces[name].values() if isinstance(t, Trace)]
        prefix = "eval" if name == mine else f"baseline/{slug(name)}"
        told |= metrics(some, prefix, samples=config.eval.bootstrap)
        if name == mine:
            told |= published_measures(some)
    changed = changes(cases)
    told |= {"cases/played": len(cases), "cases/left_out": left_out, "cases/changed": len(changed)}
    run.metrics(told)
    verdicts = {
        name: {case: _plain(grade) for case, grade in of.items()} for name, of in grades.items()
    }
    (run.dir / "verdicts.json").write_text(json.dumps(verdicts, indent=1, sort_keys=True) + "\n")
    (run.dir / "cases").mkdir(exist_ok=True)
    for case in cases:
        if lacking(case):
            continue
        frames = frames_of(case, view)
        target = run.dir / "cases" / f"{case.id}.html"
        pages.case_page(target, case, traces, grades, frames.frames, names)
    prefixes = ["eval", *(f"baseline/{slug(name)}" for name in names if name != mine)]
    parts = [
        section("Win, tie and loss", *(pages.rates_table(found, name) for name in found)),
        section("Scores", pages.scores_table(scores, names, cases)),
        section("Cases", pages.cases_table(cases, grades)),
        section("Timing measures", measures(told, prefixes)),
        section("Published measures", published(told)),
        section("Changes", *[paragraph(line) for line in changed or ["No case was changed."]]),
    ]
    line = summary(told, [name for name in names if name != mine])
    page(run.report, "Evaluation", parts, line)
    run.say(line)


def _plain(grade: object) -> Mapping[str, object]:
    return {name: getattr(grade, name) for name in grade.__slots__}  # type: ignore[attr-defined]


def summary(told: Mapping[str, float], opponents: list[str]) -> str:
    """The win rates in a line."""
    parts = []
    for name in opponents:
        key = f"win_rate/{slug(name)}"
        if key in told:
            low, high = told[f"{key}.low"], told[f"{key}.high"]
            parts.append(f"{name} {told[key]:.1%} ({low:.1%} to {high:.1%})")
    return "wins against " + ", ".join(parts) if parts else "no opponent was played"
