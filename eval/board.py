"""A leaderboard in one file: a page that holds its own data, and takes further systems.

    entries = read_board(path)                  # [] where there is none yet
    write_board(path, extended(entries, [entry]))

An entry is what the rule judge says of one system on each case, with the hash of the case, so that
two systems are compared on cases that were the same for both, and on no others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.case import Case
from eval.fields import CaseError
from eval.grades import Grade, Unscored
from eval.pages import title
from eval.pairs import Rates, outcomes, rates
from joyvl_train.markup import Cell, Html, document, paragraph, section, table
from joyvl_train.run import write_text

MAX_BYTES = 64 << 20
_DATA = re.compile(r'<script type="application/json" id="entries">(.*?)</script>', re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """A system: case -> (hash of the case, scenario, verdict)."""

    name: str
    verdicts: Mapping[str, tuple[str, str, Grade | Unscored]]


def entry(name: str, cases: Sequence[Case], grades: Mapping[str, Grade | Unscored]) -> Entry:
    """The entry of a system that was judged on these cases."""
    return Entry(
        name,
        {c.id: (c.digest, c.scenario, grades[c.id]) for c in cases if c.id in grades},
    )


def extended(known: Sequence[Entry], more: Sequence[Entry]) -> list[Entry]:
    """All of them; of two with one name the cases are put together. Raises `CaseError` where they
    say different things of one case."""
    found = {one.name: one for one in known}
    for one in more:
        before = found.get(one.name, one).verdicts
        for case, told in one.verdicts.items():
            if case in before and before[case] != told:
                raise CaseError(
                    f"{one.name!r} is there already, with another verdict on {case}: rename it "
                    "(the model by cases.name, an app by its transcript's file), or extend another "
                    "board"
                )
        found[one.name] = Entry(one.name, {**before, **one.verdicts})
    return list(found.values())


def to_json(one: Entry) -> dict[str, Any]:
    verdicts = {}
    for case, (digest, scenario, grade) in sorted(one.verdicts.items()):
        told: dict[str, Any] = {"sha256": digest, "scenario": scenario}
        if isinstance(grade, Grade):
            told |= {"quality": grade.quality, "timing": grade.timing}
        else:
            told |= {"unscored": grade.reason}
        verdicts[case] = told
    return {"name": one.name, "verdicts": verdicts}


def from_json(data: Any) -> Entry:
    """The entry of plain data; `ValueError` where it is none."""
    try:
        verdicts: dict[str, tuple[str, str, Grade | Unscored]] = {}
        for case, told in data["verdicts"].items():
            grade: Grade | Unscored
            if "unscored" in told:
                grade = Unscored(str(told["unscored"]))
            else:
                grade = Grade(float(told["quality"]), float(told["timing"]))
            verdicts[str(case)] = (str(told["sha256"]), str(told["scenario"]), grade)
        return Entry(str(data["name"]), verdicts)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"no entry: {type(error).__name__}: {error}") from None


def read_board(path: str | Path) -> list[Entry]:
    """The entries of a leaderboard; none where the file is not there yet."""
    path = Path(path)
    if not path.exists():
        return []
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("it is too large")
        found = _DATA.search(path.read_text(encoding="utf-8"))
        if found is None:
            raise ValueError("it holds no entries")
        return [from_json(one) for one in json.loads(found[1])]
    except (OSError, ValueError, RecursionError) as error:
        raise CaseError(f"{path}: is no leaderboard ({error}); name another file") from None


def write_board(path: str | Path, entries: Sequence[Entry], samples: int = 2000) -> None:
    """Writes the page: scores of each system, and each pair's win rates."""
    # "<" could end the script that the data stands in.
    data = json.dumps([to_json(one) for one in entries]).replace("<", "\\u003c")
    kept = Html(f'<script type="application/json" id="entries">{data}</script>')
    parts = [
        section(
            "Scores",
            paragraph(
                "Mean points, from 0 to 2, of the cases that all systems were scored on, and of "
                "those that each was; the first are compared, the best one first."
            ),
            _scores(entries),
        ),
        section(
            "Win rates",
            paragraph("Of the row's system against the column's, on the cases that both played."),
            _matrix(entries, samples),
        ),
    ]
    write_text(Path(path), document("Leaderboard", [*parts, kept], f"{len(entries)} systems"))


def duel(one: Entry, two: Entry, samples: int = 2000) -> Rates:
    """The rates of the first against the second, on cases that were the same for both."""
    same = {
        case
        for case, (digest, _, _) in one.verdicts.items()
        if case in two.verdicts and two.verdicts[case][0] == digest
    }
    mine, other = ({c: e.verdicts[c][2] for c in same} for e in (one, two))
    return rates(list(outcomes(mine, other).values()), samples)


def _scores(entries: Sequence[Entry]) -> Html:
    """Mean points over the cases that were the same for all and that all were scored on."""
    common = [_common(one, entries) for one in entries]
    scenarios = list(
        dict.fromkeys(scenario for e in common for _, scenario, _ in e.verdicts.values())
    )
    pairs = list(zip(entries, common, strict=True))
    rows: list[list[Cell]] = []
    for whole, one in sorted(pairs, key=lambda e: (-(_mean(e[1]) or 0), -(_mean(e[0]) or 0))):
        scored = sum(isinstance(grade, Grade) for *_, grade in whole.verdicts.values())
        cells: list[Cell] = [len(one.verdicts), _shown(_mean(one)), scored, _shown(_mean(whole))]
        rows.append([one.name, *cells, *(_shown(_mean(one, s)) for s in scenarios)])
    heads = ["system", "cases of all", "points there", "own cases", "points there"]
    return table([*heads, *map(title, scenarios)], rows)


def _common(one: Entry, entries: Sequence[Entry]) -> Entry:
    """The part of an entry that all have: the same case, scored."""
    kept = {}
    for case, (digest, scenario, grade) in one.verdicts.items():
        others = [e.verdicts.get(case) for e in entries]
        if all(o and o[0] == digest and isinstance(o[2], Grade) for o in others):
            kept[case] = (digest, scenario, grade)
    return Entry(one.name, kept)


def _mean(one: Entry, scenario: str = "") -> float | None:
    points = [
        grade.score
        for _, of, grade in one.verdicts.values()
        if isinstance(grade, Grade) and scenario in ("", of)
    ]
    return sum(points) / len(points) if points else None


def _shown(value: float | None) -> Html | None:
    return None if value is None else Html(f"{value:.2f}")


def _matrix(entries: Sequence[Entry], samples: int) -> Html:
    rows: list[list[Cell]] = []
    for one in entries:
        cells: list[Cell] = []
        for two in entries:
            found = duel(one, two, samples) if one is not two else None
            if found is None or not found.count:
                cells.append(None)
                continue
            low, high = found.low["win"], found.high["win"]
            tie, loss = found.share["tie"], found.share["loss"]
            note = f"{low:.0%} to {high:.0%}, ties {tie:.0%}, losses {loss:.0%}, n = {found.count}"
            note += f", {found.unscored} unscored" if found.unscored else ""
            cells.append(Html(f"{found.share['win']:.0%}<small>{note}</small>"))
        rows.append([one.name, *cells])
    return table(["", *(e.name for e in entries)], rows)
