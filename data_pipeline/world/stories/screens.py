"""Changing slides and app screens: a domain that is held out of training altogether."""

from __future__ import annotations

from typing import Literal

from data_pipeline.world.captions import Caption
from data_pipeline.world.languages import POINTS, SCREENS, SLIDES
from data_pipeline.world.stories.draft import Clash, Draft, Kind
from joyvl_train.timeline import Rule


def _pages(
    draft: Draft, start: int, titles: tuple[str, ...], target: str = ""
) -> list[tuple[float, str, float]]:
    """Full-screen pages from second 0 on; (moment, title, end) of each after the first."""
    rng = draft.rng
    style: Literal["slide", "screen"] = "screen" if titles is SCREENS else "slide"
    beats = [0, *draft.beats(start, 3, 4)]
    shown: list[tuple[float, str, float]] = []
    last = ""
    for i, second in enumerate(beats):
        at = 0.0 if second == 0 else round(second + rng.uniform(0.05, 0.85), 2)
        others = [t for t in titles if t not in (last, target)]
        title = rng.choice(others)
        if target and i and last != target and rng.random() < 0.5:
            title = target
        if shown:
            shown[-1] = (*shown[-1][:2], at)
        shown.append((at, title, float(draft.seconds)))
        last = title
    for at, title, stop in shown:
        text = "\n".join([title, *rng.sample(POINTS, rng.randint(1, 3))])
        draft.captions.append(Caption(text, "en", at, stop, place="full", style=style, size=0.2))
    return shown[1:]


def change(draft: Draft) -> None:
    """Every change of the screen is reported."""
    titles = draft.rng.choice((SCREENS, SLIDES))
    _, text = draft.choose("screens", titles)
    query = draft.ask(draft.rng.randint(0, 1), text)
    for at, _, _ in _pages(draft, 3, titles):
        rule = Rule("key_facts", ("changed|new|change|another",))
        draft.say(at, "The screen changed.", query, rule)


def named_page(draft: Draft) -> None:
    """One page is waited for among others."""
    titles = draft.rng.choice((SCREENS, SLIDES))
    target, text = draft.choose("screen_named", titles)
    query = draft.ask(draft.rng.randint(0, 1), text.format(noun=target))
    reports = 0
    for at, title, stop in _pages(draft, 3, titles, target):
        if title == target:
            reports += 1
            rule = Rule("key_facts", (target,))
            draft.say(at, f"The {target} screen appeared.", query, rule, until=float(int(stop)))
    if not reports:
        raise Clash("the page never came")


KINDS = {"change": Kind(change), "named": Kind(named_page)}
