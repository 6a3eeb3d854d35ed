"""Guidance: steps in a known order; the next one is said when the present one is done."""

from __future__ import annotations

from data_pipeline.world.stories.draft import Clash, Draft, Kind
from data_pipeline.world.wordings import ASK
from joyvl_train.timeline import Rule

DONE = "All done."


def _story(draft: Draft, event: str, steps: list[tuple[str, str]]) -> tuple[list[str], str, int]:
    """Ask for guidance through `steps` of (thing, words) and say the first."""
    _, text = draft.choose(event, [thing for thing, _ in steps], ASK["steps"])
    for thing, _ in steps:
        draft.record(event, thing, text)
    asked = draft.rng.randint(0, 2)
    query = draft.ask(asked, text.format(steps=", ".join(words for _, words in steps)))
    return [words for _, words in steps], query, asked


def _next(
    draft: Draft, at: float, query: str, steps: list[str], done: int, facts: list[str]
) -> None:
    """Say step number `done`, counted from 0, or that all are done."""
    if done < len(steps):
        said = f"{steps[done][0].upper()}{steps[done][1:]}."
        draft.say(at, said, query, Rule("key_facts", (facts[done],)))
    else:
        draft.say(at, DONE, query, Rule("key_facts", ("done|finished|complete",)))


def put_things(draft: Draft) -> None:
    """Things are to be put into view, one after the other; wrong ones are passed over."""
    rng = draft.rng
    count = max(2, min(len(draft.countable), rng.randint(3, 5), (draft.seconds - 4) // 4))
    # There are places for so many things at once; those put first may be cleared away.
    names = rng.sample(draft.countable, count)
    things = [(n, f"put the {n}") for n in names]
    steps, query, asked = _story(draft, "put", things)
    facts = ["|".join(draft.thing(n).names) for n in names]
    _next(draft, asked + 0.95, query, steps, 0, facts)
    wrong = [n for n in draft.countable if n not in names]
    rng.shuffle(wrong)
    second, done = asked, 0
    while done < count:
        second += rng.randint(2, 4)
        if second >= draft.seconds:
            break
        here = [x for x in draft.present(second) if second >= x.came + 2]
        if len(draft.present(second)) > 2 and here:
            draft.leave(here[0], second)
            second += 1
            if second >= draft.seconds:
                break
        if rng.random() < 0.25 and len(draft.present(second)) < 3:
            draft.enter(wrong.pop(0), second)
            continue
        actor = draft.enter(names[done], second)
        done += 1
        _next(draft, actor.came_at, query, steps, done, facts)
    if not done:
        raise Clash("no step was done")


VERBS = {
    ("door", "open"): "open the door",
    ("door", "closed"): "close the door",
    ("lamp", "on"): "turn on the lamp",
    ("lamp", "off"): "turn off the lamp",
    ("box", "open"): "open the box",
    ("box", "closed"): "close the box",
    ("book", "open"): "open the book",
    ("book", "closed"): "close the book",
    ("umbrella", "open"): "open the umbrella",
    ("umbrella", "closed"): "close the umbrella",
}
"""(thing, state that it is to have) -> the step."""


def switch_things(draft: Draft) -> None:
    """Things in view are to be opened, closed, turned on or off, in order."""
    rng = draft.rng
    names = rng.sample(sorted({name for name, _ in VERBS}), 3)
    actors = {}
    for name in names:
        states = [s for n, s in VERBS if n == name]
        actors[name] = draft.enter(name, 0, state=rng.choice(states))
    goal: list[tuple[str, str]] = []
    now = {name: actor.states[-1][2] for name, actor in actors.items()}
    for _ in range(max(2, min(rng.randint(3, 5), (draft.seconds - 4) // 4))):
        name = rng.choice([n for n in names if not goal or n != goal[-1][0]])
        now[name] = next(s for n, s in VERBS if n == name and s != now[name])
        goal.append((name, now[name]))
    things = [(f"{name} {state}", VERBS[name, state]) for name, state in goal]
    steps, query, asked = _story(draft, "switch", things)
    facts = [words.split(" ")[-1] for words in steps]
    _next(draft, asked + 0.95, query, steps, 0, facts)
    second, done = asked, 0
    for name, state in goal:
        second += rng.randint(2, 5)
        if second >= draft.seconds:
            break
        done += 1
        _next(draft, draft.change(actors[name], second, state).at, query, steps, done, facts)
    if not done:
        raise Clash("no step was done")


KINDS = {
    "put": Kind(put_things),
    "switch": Kind(switch_things, 1.0, ("switches",)),
}
