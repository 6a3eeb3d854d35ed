"""Commentary: each new thing and each change as it happens, and silence between.

At a fixed cadence it is held out of training: the family "cadence" exists in the test split only.
"""

from __future__ import annotations

from data_pipeline.world.stories.actor import (
    CAME,
    LEFT,
    Entry,
    appeared,
    is_now,
    left,
    named,
    seen_now,
)
from data_pipeline.world.stories.draft import Clash, Draft, Kind
from data_pipeline.world.words import capital


def _asked(draft: Draft, event: str, things: list[str]) -> tuple[list[str], str, int]:
    """A wording, the things that may be told of under it, and the second of the question."""
    lead, text = draft.choose(event, things)
    pool = draft.fellows(event, things, text)
    draft.rng.shuffle(pool)
    # The split's own thing comes first.
    pool.remove(lead)
    return [lead, *pool[:14]], text, draft.rng.randint(0, 2)


def describe(draft: Draft) -> None:
    """Everything that comes, goes or changes."""
    pool, text, asked = _asked(draft, "describe", list(draft.names))
    query = draft.ask(asked, text)
    rng = draft.rng
    for second in draft.beats(asked + 1, 2, 4):
        switches = [x for x in draft.present(second - 1) if x.picture.name in draft.stateful]
        switches = [x for x in switches if second > x.states[-1][0] + 1]
        if switches and rng.random() < 0.4:
            actor = rng.choice(switches)
            now = actor.states[-1][2]
            draft.change(actor, second, rng.choice([s for s in actor.picture.states if s != now]))
        else:
            draft.parade(pool[: 1 if not draft.log else None], [second])
    _tell(draft, "describe", text, query, draft.log)


def _tell(draft: Draft, event: str, text: str, query: str, log: list[Entry]) -> None:
    """Say each line of the log."""
    if not log:
        raise Clash("nothing happened")
    for entry in log:
        actor = entry.actor
        draft.record(event, actor.noun, text)
        if entry.what == "came":
            rule = named(actor, CAME)
            draft.say(entry.at, appeared(actor), query, rule)
        elif entry.what == "left":
            draft.say(entry.at, left(actor), query, named(actor, LEFT))
        else:
            rule = named(actor, entry.state)
            draft.say(entry.at, is_now(actor, entry.state), query, rule)


def arrivals(draft: Draft) -> None:
    """What comes; what goes is passed over."""
    pool, text, asked = _asked(draft, "arrivals", list(draft.names))
    query = draft.ask(asked, text)
    log = draft.parade(pool[:1], [asked + draft.rng.randint(1, 2)])
    log += draft.parade(pool, draft.beats(asked + 4, 2, 3))
    _tell(draft, "arrivals", text, query, [e for e in log if e.what == "came"])


def departures(draft: Draft) -> None:
    """What goes; what comes is passed over."""
    pool, text, asked = _asked(draft, "departures", list(draft.names))
    draft.enter(pool[0], 0)
    query = draft.ask(asked, text)
    draft.parade(pool, draft.beats(asked + 2, 2, 3))
    gone = [e for e in draft.log if e.what == "left"]
    _tell(draft, "departures", text, query, gone)
    draft.must_own()


def names(draft: Draft) -> None:
    """The bare name of each new thing."""
    pool, text, asked = _asked(draft, "names", list(draft.names))
    query = draft.ask(asked, text)
    log = draft.parade(pool[:1], [asked + draft.rng.randint(1, 2)])
    log += draft.parade(pool, draft.beats(asked + 4, 2, 3))
    for entry in log:
        if entry.what == "came":
            draft.record("names", entry.actor.noun, text)
            draft.say(entry.at, capital(entry.actor.noun), query, named(entry.actor))


def colours(draft: Draft) -> None:
    """What comes, with its colour: the instruction asks for it."""
    things = list(draft.colourful)
    pool, text, asked = _asked(draft, "colours", things)
    query = draft.ask(asked, text)
    log = draft.parade(pool[:1], [asked + draft.rng.randint(1, 2)], 3, things, True)
    log += draft.parade(pool, draft.beats(asked + 4, 2, 3), 3, things, True)
    for entry in log:
        if entry.what == "came":
            draft.record("colours", entry.actor.picture.name, text)
            draft.say(entry.at, appeared(entry.actor), query, named(entry.actor, CAME))


def cadence(draft: Draft) -> None:
    """What is in view, told at a fixed interval."""
    interval, text = draft.choose("cadence", [str(n) for n in range(4, 8)])
    asked, step = draft.rng.randint(0, 2), int(interval)
    due = list(range(asked + step, draft.seconds, step))
    still = {t + d for t in due for d in (-1, 0, 1)}
    query = draft.ask(asked, text.format(n=interval))
    pool = draft.rng.sample(draft.names, min(10, len(draft.names)))
    draft.enter(pool[0], 0)
    beats = [s for s in draft.beats(2, 1, 2) if s not in still]
    draft.parade(pool, beats, 2)
    for second in due:
        said, rule = seen_now(draft.present(second))
        draft.say(second + 0.95, said, query, rule, early=1, late=1)


KINDS = {
    "describe": Kind(describe, 2.0, all_seen=True),
    "arrivals": Kind(arrivals, all_seen=True),
    "departures": Kind(departures, all_seen=True),
    "names": Kind(names, all_seen=True),
    "colours": Kind(colours, 1.0, ("colours",), all_seen=True),
}

CADENCE = {"cadence": Kind(cadence, all_seen=True)}
