"""Alerts: tell me when something comes, goes or changes, among things that look like it."""

from __future__ import annotations

from itertools import pairwise

from data_pipeline.world.stories.actor import LEFT, Actor, appeared, is_now, left, named
from data_pipeline.world.stories.draft import COLOUR_NAMES, Clash, Draft, Kind
from joyvl_train.timeline import Rule


def visits(
    draft: Draft, name: str, others: list[str], start: int, colour: str = "", share: float = 0.6
) -> list[Actor]:
    """From about `start` on the thing comes and goes among `others`; returns its visits, in order.

    It is never there twice at once, and stays away for a second at least between visits. `share` is
    the part of what happens that is about it.
    """
    rng, found = draft.rng, list[Actor]()
    current: Actor | None = None
    passing: list[Actor] = []
    if others and rng.random() < 0.4:
        passing.append(enter_other(draft, rng.choice(others), 0, colour, name))
    for second in draft.beats(start + rng.randint(0, 3), 2, 3):
        away = not found or (found[-1].gone is not None and found[-1].gone < second - 1)
        if current and second >= current.came + 2 and rng.random() < 0.65:
            draft.leave(current, second)
            current = None
        elif current is None and away and rng.random() < share:
            current = draft.enter(name, second, colour, told=bool(colour))
            found.append(current)
        else:
            old = [x for x in passing if second >= x.came + 2]
            free = [n for n in others if not draft.recent(n, second)]
            if old and (len(passing) > 1 or not free or rng.random() < 0.45):
                gone = rng.choice(old)
                passing.remove(gone)
                draft.leave(gone, second)
            elif free and len(passing) < 2:
                passing.append(enter_other(draft, rng.choice(free), second, colour, name))
    if not found and share > 0:
        raise Clash("the thing never came")
    return found


def enter_other(draft: Draft, name: str, second: int, colour: str, target: str) -> Actor:
    """Something that is not meant: the same thing in another colour, or another thing."""
    thing = draft.thing(name)
    if not colour or not thing.colours:
        return draft.enter(name, second)
    colours = [c for c in COLOUR_NAMES if c != colour] if name == target else [colour]
    return draft.enter(name, second, draft.rng.choice(colours), told=True)


def appear(draft: Draft) -> None:
    """Each coming is reported once, however long the thing stays."""
    name, text = draft.choose("appear", draft.singular)
    query = draft.ask(draft.rng.randint(0, 2), text.format(**draft.mention(name)))
    for actor in visits(draft, name, draft.others(name), 3):
        draft.say(actor.came_at, appeared(actor), query, named(actor), until=draft.held(actor))


def first(draft: Draft) -> None:
    """The first coming alone is reported."""
    name, text = draft.choose("first", draft.singular)
    query = draft.ask(draft.rng.randint(0, 2), text.format(**draft.mention(name)))
    actor = visits(draft, name, draft.others(name), 3)[0]
    draft.say(actor.came_at, appeared(actor), query, named(actor), until=draft.held(actor))


def never(draft: Draft) -> None:
    """What is asked for never comes, though things like it do."""
    event = draft.rng.choice(("appear", "first", "leave"))
    name, text = draft.choose(event, draft.singular)
    draft.ask(draft.rng.randint(0, 2), text.format(**draft.mention(name)))
    visits(draft, name, draft.others(name), 3, share=0.0)


def colour(draft: Draft) -> None:
    """One colour of a thing; the same thing in other colours is none of it."""
    tones = draft.rng.sample(COLOUR_NAMES, 3)
    nouns = [f"{tone} {name}" for tone in tones for name in draft.colourful]
    noun, text = draft.choose("appear", nouns)
    tone, name = noun.split(" ", 1)
    query = draft.ask(draft.rng.randint(0, 2), text.format(**draft.mention(name, tone)))
    other = [n for n in draft.colourful if n != name]
    others = [name, *draft.rng.sample(other, min(3, len(other)))]
    for actor in visits(draft, name, others, 3, tone):
        draft.say(actor.came_at, appeared(actor), query, named(actor), until=draft.held(actor))


def either(draft: Draft) -> None:
    """Two things are asked for at once."""
    name, text = draft.choose("either", draft.singular)
    second = draft.rng.choice(
        [n for n in draft.fellows("either", draft.singular, text) if n != name]
    )
    draft.record("either", second, text)
    both = draft.mention(name) | {f"{k}2": v for k, v in draft.mention(second).items()}
    query = draft.ask(draft.rng.randint(0, 2), text.format(**both))
    found = 0
    start = 3 + draft.rng.randint(0, 2)
    pool = draft.others(name, second)
    for entry in draft.parade(pool, draft.beats(start, 2, 3), often=(name, second)):
        if entry.what == "came" and entry.actor.picture.name in (name, second):
            found += 1
            actor = entry.actor
            draft.say(entry.at, appeared(actor), query, named(actor), until=draft.held(actor))
    if not found:
        raise Clash("neither came")


def leave(draft: Draft) -> None:
    """Each going of a thing is reported."""
    name, text = draft.choose("leave", draft.singular)
    query = draft.ask(draft.rng.randint(0, 2), text.format(**draft.mention(name)))
    gone = 0
    for actor in visits(draft, name, draft.others(name), 1):
        if actor.gone is not None and actor.gone > 2:
            gone += 1
            draft.say(actor.gone_at, left(actor), query, named(actor, LEFT))
    if not gone:
        raise Clash("it never left")


def state(draft: Draft) -> None:
    """A thing changes to a state and back; another thing changes beside it."""
    rng = draft.rng
    pairs = [f"{n}: {s}" for n in draft.stateful for s in draft.thing(n).states]
    pair, text = draft.choose("state", pairs)
    name, wanted = pair.split(": ")
    rest = [s for s in draft.thing(name).states if s != wanted]
    actor = draft.enter(name, 0, state=rng.choice(rest))
    others = [n for n in draft.stateful if n != name]
    beside = draft.enter(rng.choice(others), rng.randint(0, 1)) if others else None
    query = draft.ask(rng.randint(0, 2), text.format(state=wanted, **draft.mention(name)))
    times: list[tuple[int, float]] = []
    for second in draft.beats(3, 2, 3):
        if rng.random() < 0.7:
            now = actor.states[-1][2]
            goal = wanted if now != wanted and rng.random() < 0.75 else rng.choice(rest)
            if goal != now:
                times.append((second, draft.change(actor, second, goal).at))
        elif beside:
            states = [s for s in beside.picture.states if s != beside.states[-1][2]]
            draft.change(beside, second, rng.choice(states))
    times.append((draft.seconds, draft.seconds))
    for (second, at), (end, _) in pairwise(times):
        if actor.state(second) == wanted:
            rule = named(actor, wanted)
            draft.say(at, is_now(actor, wanted), query, rule, until=float(end))
    if len(draft.events) < 2:
        raise Clash("the state never came")


def hold(draft: Draft) -> None:
    """The instruction asks for a response in every second of a thing's stay."""
    _hold(draft, "hold", True)


def hold_once(draft: Draft) -> None:
    """One response for each stay, though it lasts."""
    _hold(draft, "hold_once", False)


def _hold(draft: Draft, event: str, repeat: bool) -> None:
    name, text = draft.choose(event, draft.countable)
    query = draft.ask(draft.rng.randint(0, 2), text.format(**draft.mention(name)))
    for actor in visits(draft, name, draft.others(name, count=3), 3, share=0.7):
        said = f"The {actor.noun} is there."
        until = draft.held(actor)
        draft.say(actor.came_at, said, query, named(actor), until=until, repeat=repeat)


def stop(draft: Draft) -> None:
    """The user has heard enough: from then on nothing is reported."""
    rng = draft.rng
    name, text = draft.choose("appear", draft.singular)
    query = draft.ask(rng.randint(0, 2), text.format(**draft.mention(name)))
    found = visits(draft, name, draft.others(name), 3)
    if len(found) < 2:
        raise Clash("nothing to stop before")
    last = found[rng.randint(1, len(found) - 1)]
    end = last.came - 2
    for actor in found[: found.index(last)]:
        draft.say(actor.came_at, appeared(actor), query, named(actor), until=draft.held(actor))
    _, words = draft.pick("stop", ["you"])
    draft.reply(end, "Okay.", draft.ask(end, words), Rule("key_facts", ("okay|ok|fine|sure",)))


def later(draft: Draft) -> None:
    """An instruction given in the middle counts from then on, beside an earlier one or alone."""
    rng = draft.rng
    name, text = draft.choose("appear", draft.singular)
    middle = draft.seconds // 2 - 2
    others = [n for n in draft.others(name) if n in draft.fellows("appear", draft.singular, text)]
    former = others[0] if others and rng.random() < 0.6 else None
    former_query = None
    if former:
        draft.record("appear", former, text)
        former_query = draft.ask(0, text.format(**draft.mention(former)))
    query = draft.ask(middle, text.format(**draft.mention(name)))
    wanted = [name] if former is None else [name, former]
    pool = [n for n in others if n not in wanted]
    beats = [s for s in draft.beats(rng.randint(2, 4), 2, 3) if s != middle]
    reports = 0
    for entry in draft.parade(pool, beats, often=wanted):
        actor = entry.actor
        if entry.what != "came" or actor.picture.name not in wanted:
            continue
        answered = query if actor.picture.name == name else former_query
        if actor.picture.name == name and entry.second < middle:
            continue
        reports += 1
        draft.say(entry.at, appeared(actor), answered, named(actor), until=draft.held(actor))
    if not reports:
        raise Clash("nothing to report")


KINDS = {
    "appear": Kind(appear, 2.0),
    "first": Kind(first),
    "never": Kind(never, 1.4),
    "colour": Kind(colour, 1.0, ("colours",)),
    "either": Kind(either),
    "leave": Kind(leave),
    "state": Kind(state, 1.2, ("states",)),
    "hold": Kind(hold),
    "hold_once": Kind(hold_once, 0.7),
    "later": Kind(later, 0.7),
    "stop": Kind(stop, 0.7),
}
