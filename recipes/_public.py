"""recipe=eval cases.benchmark=...: the records of a published benchmark, by its own rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.grades import Unscored
from eval.public import by_subset, points, public_cases
from eval.suite import View
from joyvl_train.config import Config, UserError
from joyvl_train.heldout import Trace, metrics
from joyvl_train.markup import Cell, Html
from joyvl_train.records import Rejects
from joyvl_train.report import page, section, table
from joyvl_train.run import Run
from recipes._cases import MINE, play_cases


def public(config: Config, run: Run, view: View) -> None:
    """Plays every record to every system; a table of subsets."""
    places = {"annotations": config.cases.annotations, "videos": config.cases.videos}
    for name, place in places.items():
        if not place:
            raise UserError(
                f"cases.{name} is empty: cases.benchmark={config.cases.benchmark} needs it"
            )
    kind: Any = config.cases.benchmark
    cases, refused = public_cases(kind, Path(config.cases.annotations), Path(config.cases.videos))
    rejects = Rejects(run.dir / "rejects.jsonl")
    for item in refused:
        rejects.add(item.where, item.reason, item.detail)
    if refused:
        run.say(f"left out: {rejects}; see {run.dir / 'rejects.jsonl'}")
    if not cases:
        raise UserError(
            f"cases.annotations={config.cases.annotations}: no record of it can be played"
        )
    played = play_cases(config, run, cases, view)
    timelines = {case.id: case for case in cases}
    figures: dict[str, float] = {"cases/played": len(cases), "cases/rejected": len(refused)}
    rows: list[list[Cell]] = []
    for name, of_system in played.items():
        found, traces, unscored = [], list[Trace](), 0
        for id, one in of_system.items():
            if isinstance(one, Unscored):
                unscored += 1
                continue
            case = timelines[id]
            traces.append(one.trace)
            found.append((case.scenario, points(kind, case.timeline, one.trace)))
        figures[f"unscored/{name}"] = unscored
        for subset, rate in by_subset(found).items():
            if rate.count:
                figures[f"accuracy/{name}/{subset}"] = rate.value
                figures[f"accuracy/{name}/{subset}.low"] = rate.low
                figures[f"accuracy/{name}/{subset}.high"] = rate.high
            shown = Html(f"{rate.value:.1%}<small>{rate.low:.1%} to {rate.high:.1%}</small>")
            rows.append([name, subset, shown if rate.count else None, rate.count])
        if name == MINE:
            figures |= metrics(traces, "eval", samples=config.eval.bootstrap)
    run.metrics(figures)
    heads = ["system", "subset", "accuracy", "points"]
    parts = [section("By subset", table(heads, rows), intro="Subsets are not averaged together.")]
    page(
        run.report, config.cases.benchmark, parts, f"{len(cases)} records, {len(refused)} left out"
    )
    run.say(f"{len(cases)} records of {config.cases.benchmark}, {len(refused)} left out")
