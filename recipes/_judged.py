"""What recipe=eval does beside the rule judge: a model judge, raters, leaderboards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval import pages
from eval.agreement import alpha, ratings
from eval.board import Entry, entry, extended, from_json, read_board, to_json, write_board
from eval.case import Case, CaseError
from eval.grades import Grade, Unscored
from eval.judge import Pair, judge_pairs
from eval.pairs import Rates, outcomes, rates
from eval.rating import draw_items, rating_page, read_ratings, together
from eval.suite import View, frames_of, read_transcripts, slug
from eval.systems import TRIVIAL
from eval.verdicts import Grades, Traces, rate_metrics
from joyvl_train.config import Config, UserError
from joyvl_train.heldout import Trace
from joyvl_train.markup import Cell, Html, text
from joyvl_train.report import page, section, table
from joyvl_train.run import Run, write_text
from recipes._client import client_of

AXES = ("quality", "timing")


def model_judge(
    config: Config, run: Run, cases: Sequence[Case], traces: Traces, grades: Grades, mine: str
) -> list[Html]:
    """Asks the model at `agents.url` about each pair; its tables, and how far the rules agree."""
    agents = config.agents
    if not agents.url:
        return []
    rivals = [name for name in traces if name != mine and name not in TRIVIAL]
    found = asyncio.run(_ask(config, cases, traces, mine, rivals))
    by_rule: dict[Hashable, Grade | Unscored] = {}
    by_model: dict[Hashable, Grade | Unscored] = {}
    rate: dict[str, dict[str, Rates]] = {}
    for rival, verdicts in found.items():
        ours: dict[str, Grade | Unscored] = {}
        theirs: dict[str, Grade | Unscored] = {}
        for case, verdict in verdicts.items():
            scored = isinstance(verdict, Pair)
            ours[case] = verdict.mine if scored else verdict  # type: ignore[union-attr, assignment]
            theirs[case] = verdict.other if scored else verdict  # type: ignore[union-attr, assignment]
            for name, grade in ((mine, ours[case]), (rival, theirs[case])):
                by_model[case, name, rival] = grade
                by_rule[case, name, rival] = grades[name][case]
        of_case = {case.id: case.scenario for case in cases}
        rate[rival] = _by_scenario(ours, theirs, of_case, config.cases.samples)
    told = rate_metrics({f"{slug(name)}": of for name, of in rate.items()})
    run.metrics({f"judge/{key}": value for key, value in told.items()})
    agreed = _agreement(run, "judge", {"rule": by_rule, "model": by_model})
    reasons = [v.reason for of in found.values() for v in of.values() if isinstance(v, Unscored)]
    if reasons:
        run.say(f"the model judge left {len(reasons)} pairs unscored: {_counted(reasons)}")
    parts = [pages.rates_table(rate, name) for name in rate]
    return [section("Model judge", *parts, agreed, intro=f"{agents.model}, both orders averaged")]


async def _ask(
    config: Config, cases: Sequence[Case], traces: Traces, mine: str, rivals: Sequence[str]
) -> dict[str, dict[str, Pair | Unscored]]:
    agents = config.agents
    caps = {"max_cost": agents.max_cost or None, "max_tokens": agents.max_tokens or None}
    async with client_of(agents, **caps) as client:
        found: dict[str, dict[str, Pair | Unscored]] = {}
        for rival in rivals:
            pairs, lost = {}, dict[str, Pair | Unscored]()
            for case in cases:
                one, two = traces[mine].get(case.id), traces[rival].get(case.id)
                if isinstance(one, Trace) and isinstance(two, Trace):
                    pairs[case.id] = (case, one, two)
                else:
                    lost[case.id] = Unscored("case can't be played")
            found[rival] = {**await judge_pairs(client, pairs), **lost}
    return found


def _by_scenario(
    ours: Mapping[str, Grade | Unscored],
    theirs: Mapping[str, Grade | Unscored],
    of_case: Mapping[str, str],
    samples: int,
) -> dict[str, Rates]:
    ended = outcomes(ours, theirs)
    found = {"": rates(list(ended.values()), samples)}
    for scenario in dict.fromkeys(of_case[case] for case in ended):
        some = [o for case, o in ended.items() if of_case[case] == scenario]
        found[scenario] = rates(some, samples)
    return found


def _agreement(
    run: Run, prefix: str, judges: Mapping[str, Mapping[Hashable, Grade | Unscored]]
) -> Html:
    """Krippendorff's alpha of these judges on each axis."""
    rows: list[list[Cell]] = []
    for axis in AXES:
        value = alpha([ratings(grades, axis) for grades in judges.values()])
        run.metrics({f"{prefix}/alpha/{axis}": value})
        rows.append([axis, value])
    return table(["", "alpha"], rows, f"Krippendorff's alpha, ordinal: {', '.join(judges)}")


def _counted(reasons: Sequence[str]) -> str:
    return ", ".join(f"{reasons.count(r)} {r}" for r in dict.fromkeys(reasons))


# Raters


def rate(config: Config, run: Run, cases: Sequence[Case], view: View, mine: str) -> None:
    """A page on which people rate the pairs of a finished run."""
    (given,) = _runs(config, 1)
    played = read_transcripts(given / "transcripts")
    traces = {name: {c: one.trace for c, one in of.items()} for name, of in played.items()}  # type: ignore[union-attr]
    if mine not in traces:
        raise UserError(f"cases.runs=[{given}]: has not played {mine!r}")
    known = {case.id: case for case in cases}
    rivals = config.cases.against or [n for n in traces if n != mine and n not in TRIVIAL]
    for name in rivals:
        if name not in traces:
            raise UserError(f"cases.against={name}: {given} has played {', '.join(traces)}")
    pairs = [
        (case, mine, rival)
        for rival in rivals
        for case in known
        if case in traces[mine] and case in traces[rival]
    ]
    if not pairs:
        raise UserError(
            f"cases.runs=[{given}]: none of the cases chosen here was played there by {mine!r} and "
            "another system; choose the same, as with cases=own and cases.paths, or cases.only"
        )
    then = {c: told[0] for one in _entries(given) for c, told in one.verdicts.items()}
    other = [case for case, *_ in pairs if then.get(case) != known[case].digest]
    if other:
        raise UserError(
            f"cases.runs=[{given}]: the case {other[0]!r} is another one now than was played there"
        )
    pictures = {case: frames_of(known[case], view).frames for case, *_ in pairs}
    items = draw_items(pairs, traces, config.seed)
    made = rating_page(run.dir, items, known, traces, pictures)
    write_text(run.dir / "rated_run", f"{given.absolute()}\n")
    told = (
        f'<p><a href="rating.html">{len(pairs)} pairs</a>, to be rated on one page that works '
        "offline. Give raters that file alone; what each exports goes to command=aggregate with "
        f"cases.runs=[{text(str(run.dir))}] cases.ratings=[a.json,b.json].</p>"
    )
    page(run.report, "Rating", [section("Pairs", Html(told))])
    run.metrics({"rating/pairs": len(pairs)})
    run.say(f"to be rated: {made} (keep rating_key.json from those who rate)")


def aggregate(config: Config, run: Run, mine: str) -> None:
    """Win rates by people, how far they agree, and how far the rule judge agrees with them."""
    (given,) = _runs(config, 1)
    if not config.cases.ratings:
        raise UserError("cases.ratings is empty: name the exported ratings")
    if not (given / "rating_key.json").is_file():
        raise UserError(
            f"cases.runs=[{given}]: holds no rating_key.json; name a run of command=rate"
        )
    raters = [read_ratings(path, given / "rating_key.json") for path in config.cases.ratings]
    names = [rated.rater for rated in raters]
    if len(set(names)) < len(names):
        raise UserError(f"cases.ratings: {max(names, key=names.count)!r} rated twice; keep one")
    grades = together(raters)
    rivals = sorted({rival for _, name, rival in grades if name == mine})
    scenarios = dict(raters[0].scenarios)
    rate: dict[str, dict[str, Rates]] = {}
    for rival in rivals:
        ours = {c: g for (c, name, other), g in grades.items() if (name, other) == (mine, rival)}
        theirs = {c: g for (c, name, other), g in grades.items() if (name, other) == (rival, mine)}
        rate[rival] = _by_scenario(ours, theirs, scenarios, config.cases.samples)
    told = rate_metrics({slug(name): of for name, of in rate.items()})
    run.metrics({f"human/{key}": value for key, value in told.items()})
    run.metrics({"human/raters": len(raters)})
    among = _agreement(run, "human", {rated.rater: rated.grades for rated in raters})
    rules = _rule_verdicts(given)
    of_rules = {place: rules[place[1]][place[0]] for place in grades if place[1] in rules}
    beside = _agreement(run, "human_rule", {"people": grades, "rule": of_rules})
    tables = [pages.rates_table(rate, name) for name in rate]
    parts = [section("Raters", *tables), section("Agreement", among, beside)]
    page(run.report, "Ratings", parts, f"{len(raters)} raters, {len(grades) // 2} pairs")
    run.say(f"{len(raters)} raters, {len(grades) // 2} pairs")


def _rule_verdicts(rating_run: Path) -> dict[str, dict[str, Grade | Unscored]]:
    """System -> case -> what the rule judge said in the run that was rated."""
    try:
        rated = Path((rating_run / "rated_run").read_text(encoding="utf-8").strip())
        names = [item["system"] for item in _entry_data(rated)]
    except (OSError, CaseError, KeyError):
        return {}
    pairs = zip(names, _entries(rated), strict=True)
    return {name: {c: v for c, (_, _, v) in one.verdicts.items()} for name, one in pairs}


# Leaderboards


def write_entries(run: Run, name: str, cases: Sequence[Case], grades: Grades, mine: str) -> None:
    """What command=compare reads of a run."""
    told: list[dict[str, Any]] = []
    for system, of_system in grades.items():
        shown = (name or run.dir.name) if system == mine else system
        told.append({"system": system, **to_json(entry(shown, cases, of_system))})
    write_text(run.dir / "entries.json", json.dumps(told, indent=1) + "\n")


def compare(config: Config, run: Run) -> None:
    """Extends a leaderboard by the systems of finished runs."""
    board = Path(config.cases.board) if config.cases.board else run.dir / "leaderboard.html"
    entries = read_board(board)
    for folder in _runs(config, None):
        entries = extended(entries, _entries(folder))
    try:
        board.parent.mkdir(parents=True, exist_ok=True)
        write_board(board, entries, config.cases.samples)
    except OSError as error:
        raise UserError(
            f"cases.board={board}: can't be written ({error.strerror}); name another file"
        ) from error
    write_board(run.report, entries, config.cases.samples)
    run.metrics({"board/systems": len(entries)})
    run.say(f"leaderboard of {len(entries)} systems: {board}")


def _entry_data(folder: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads((folder / "entries.json").read_text(encoding="utf-8"))
        if not isinstance(found, list):
            raise ValueError("entries.json is no list")
        return found
    except FileNotFoundError:
        raise CaseError(f"{folder}: is no finished run of recipe=eval; name one") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CaseError(f"{folder}: is no finished run of recipe=eval ({error})") from None


def _entries(folder: Path) -> list[Entry]:
    data = _entry_data(folder)
    try:
        return [from_json(item) for item in data]
    except ValueError as error:
        raise CaseError(f"{folder}: is no finished run of recipe=eval ({error})") from None


def _runs(config: Config, count: int | None) -> list[Path]:
    given = [Path(folder) for folder in config.cases.runs]
    if not given or (count is not None and len(given) != count):
        what = "one finished run" if count == 1 else "finished runs"
        raise UserError(f"cases.runs={config.cases.runs}: command={config.command} takes {what}")
    for folder in given:
        if not folder.is_dir():
            raise UserError(f"cases.runs={folder}: there is no such run")
    return given
