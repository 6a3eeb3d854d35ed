"""The human judge: a page that works offline, and what comes of any number of people's ratings.

The page shows pairs of systems on a case, one above the other, without names; which of them stands
first ("left" in what is exported), and the order of the pairs, are drawn by seed. What it exports
names pairs by number alone; the key beside it (`rating_key.json`) says who was who.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.case import Case
from eval.fields import CaseError, Fields
from eval.grades import GRADES, Grade, mean
from eval.pages import shortened, shown_part
from joyvl_train.actions import spoken
from joyvl_train.heldout import Trace
from joyvl_train.markup import Html, document, section, text
from joyvl_train.run import write_text
from joyvl_train.strips import Pictures, annotation, annotation_legend
from joyvl_train.timeline import Event, Timeline
from joyvl_train.timing import due

_PAGE = Path(__file__).with_name("rating.html")
MAX_BYTES = 16 << 20
_SIDES = {"First": "left", "Second": "right"}


@dataclass(frozen=True, slots=True)
class Item:
    """A pair on a case: `left` and `right` are systems."""

    id: str
    case: str
    left: str
    right: str


def draw_items(
    pairs: Iterable[tuple[str, str, str]], traces: Mapping[str, Mapping[str, Trace]], seed: int
) -> list[Item]:
    """(case, system, other) in a drawn order, each with a drawn side. An id stands for what was
    said, too: ratings of one run are none of another."""
    rng = random.Random(f"rating/{seed}")
    items = []
    for case, one, two in pairs:
        left, right = (one, two) if rng.random() < 0.5 else (two, one)
        said = [
            [(e.second, e.text) for e in traces[name][case].emissions] for name in (left, right)
        ]
        told = json.dumps([seed, case, left, right, said])
        items.append(Item("p" + hashlib.sha256(told.encode()).hexdigest()[:10], case, left, right))
    rng.shuffle(items)
    return items


def rating_page(
    folder: Path,
    items: Sequence[Item],
    cases: Mapping[str, Case],
    traces: Mapping[str, Mapping[str, Trace]],
    pictures: Mapping[str, Pictures],
) -> Path:
    """Writes `rating.html` and `rating_key.json`; the page's path."""
    number = hashlib.sha256("".join(item.id for item in items).encode()).hexdigest()[:8]
    shown = "".join(_item(item, cases[item.case], traces, pictures[item.case]) for item in items)
    control = Html(_PAGE.read_text(encoding="utf-8"))
    style, script = control.split("<script>")
    body = Html(f'{style}<div id="pairs" data-page="{number}">{shown}</div><script>{script}')
    intro = (
        "Two systems watched the same stream. Grade each on quality (is it true, complete, and "
        "what was asked for?) and on timing (does it speak when it should, and only then?)."
    )
    parts = [section("How to rate", Html(f"<p>{text(intro)}</p>"), annotation_legend(held=False))]
    page = document("Rating", [*parts, body], f"{len(items)} pairs")
    path = folder / "rating.html"
    write_text(path, page)
    key = {
        item.id: {
            "case": item.case,
            "scenario": cases[item.case].scenario,
            "left": item.left,
            "right": item.right,
        }
        for item in items
    }
    write_text(folder / "rating_key.json", json.dumps({"page": number, "pairs": key}, indent=1))
    return path


def _item(
    item: Item,
    case: Case,
    traces: Mapping[str, Mapping[str, Trace]],
    pictures: Pictures,
) -> str:
    asked = _list([(e.second, e.text) for e in case.timeline.of("user")])
    onsets = due(case.timeline, None, case.early, case.late)
    wanted = _list([(o.second, o.text) for o in onsets])
    sides = "".join(
        f"<div><h3>{side}{_part(traces[system][item.case])}</h3>"
        f"{_said(case, traces[system][item.case], pictures)}"
        f"{_axes(item.id, _SIDES[side])}</div>"
        for side, system in (("First", item.left), ("Second", item.right))
    )
    return (
        f'<section class="item" id="{item.id}"><h2>{text(case.about)}</h2>'
        f"<h4>The user says</h4>{asked}<h4>What should be said</h4>{wanted}"
        f'<div class="pair">{sides}</div></section>'
    )


def _part(trace: Trace) -> str:
    return str(text(shown_part(trace, shortened(trace))))


def _list(lines: Sequence[tuple[int, str]]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{second} s</th><td>{text(words)}</td></tr>' for second, words in lines
    )
    return f'<table class="said-list"><tbody>{rows}</tbody></table>' if rows else "<p>Nothing.</p>"


def _axes(item: str, side: str) -> str:
    fields = []
    for axis in ("quality", "timing"):
        name = f"{item}-{side}-{axis}"
        choices = "".join(
            f'<label><input type="radio" name="{name}" data-axis="{side}_{axis}" value="{grade}"> '
            f"{grade}</label>"
            for grade in reversed(GRADES)
        )
        fields.append(f"<fieldset><legend>{axis.capitalize()}</legend>{choices}</fieldset>")
    return "".join(fields)


def _said(case: Case, trace: Trace, pictures: Pictures) -> str:
    """What one system did, with nothing in it that says what was right."""
    told = shortened(trace)
    events = [
        Event(f"u{step.second}", step.second, "user", " ".join(step.queries))
        for step in told.steps
        if step.queries
    ]
    for step in told.steps:
        words = spoken(step.action)
        if words is not None:
            events.append(Event(f"s{step.second}", step.second, "assistant", words))
    timeline = Timeline(case.timeline.clip, case.scenario, "eval", tuple(events))
    seconds = sorted(step.second for step in told.steps)
    stretches: list[list[int]] = []
    for second in seconds:
        if stretches and second == stretches[-1][-1] + 1:
            stretches[-1].append(second)
        else:
            stretches.append([second])
    return "".join(
        annotation(timeline, pictures, range(part[0], part[-1] + 1)) for part in stretches
    )


@dataclass(frozen=True)
class Rated:
    """What one person gave: (case, system, its opponent) -> the grade of the system there; case ->
    its scenario."""

    rater: str
    grades: Mapping[tuple[str, str, str], Grade]
    scenarios: Mapping[str, str]


def read_ratings(path: str | Path, key: str | Path) -> Rated:
    """The ratings of an exported file; `CaseError` where it is none, or of another page."""
    path = Path(path)
    known = Fields(_json(Path(key)), Path(key).name)
    given = Fields(_json(path), path.name)
    page = known.text("page")
    if given.text("page") != page:
        raise CaseError(f"{path.name}: is of another rating page than {key}; give its own key")
    pairs = known.take("pairs")
    rated: dict[tuple[str, str, str], Grade] = {}
    rater = given.text("rater")
    ratings = given.take("ratings")
    if not isinstance(ratings, Mapping) or not ratings:
        raise CaseError(f"{path.name}: rates nothing; rate, and export the page again")
    whole = isinstance(pairs, Mapping) and all(
        isinstance(pair, Mapping) and {"case", "left", "right", "scenario"} <= set(pair)
        for pair in pairs.values()
    )
    if not whole:
        raise CaseError(f"{key}: is no key of a rating page; make the page anew")
    for name, values in ratings.items():
        if name not in pairs:
            raise CaseError(f"{path.name}: {name!r} is no pair of the page; export it again")
        item = Fields(values, f"{path.name}, {name}")
        pair = pairs[name]
        for side, other in (("left", "right"), ("right", "left")):
            points = [
                GRADES.index(item.choice(f"{side}_{axis}", GRADES))
                for axis in ("quality", "timing")
            ]
            rated[pair["case"], pair[side], pair[other]] = Grade(*points)
        item.end()
    given.end()
    return Rated(rater, rated, {pair["case"]: pair["scenario"] for pair in pairs.values()})


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CaseError(f"{path}: is too large to be ratings")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CaseError(f"{path}: there is no such file; name an exported one") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CaseError(f"{path}: can't be read as JSON ({error}); give an exported file") from None


def together(raters: Sequence[Rated]) -> dict[tuple[str, str, str], Grade]:
    """The mean of what all of them gave."""
    found: dict[tuple[str, str, str], list[Grade]] = {}
    for rated in raters:
        for place, grade in rated.grades.items():
            found.setdefault(place, []).append(grade)
    return {place: mean(grades) for place, grades in found.items()}
