"""Turn-based samples of several frames: what came, went and changed from one to the next."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from data_pipeline.world.scene import Key, Track
from data_pipeline.world.stills_sketch import (
    Clash,
    Sketch,
    Thing,
    number,
    sentence,
)
from data_pipeline.world.stills_wordings import WITH_COLOURS
from data_pipeline.world.words import listed
from joyvl_train.timeline import Rule

SECONDS = 20
"""The frames of a sample lie at whole seconds below this."""

CAME = ("appeared", "came", "arrived")
LEFT = ("left", "has left", "went away", "is gone", "disappeared")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


@dataclass(frozen=True)
class Part:
    """What a thing does in the frames: there from frame `first` until before `stop`; from frame
    `turn` on it is as in `then` (another state or place)."""

    thing: Thing
    first: int
    stop: int
    turn: int | None = None
    then: Thing | None = None


def _times(sketch: Sketch, count: int) -> list[float]:
    return [float(t) for t in sorted(sketch.rng.sample(range(SECONDS), count))]


def _play(sketch: Sketch, parts: Sequence[Part], count: int) -> None:
    """`count` frames at different seconds; what changes does so half-way between two of them."""
    times = _times(sketch, count)
    between = [0.0, *((a + b) / 2 for a, b in itertools.pairwise(times)), float(SECONDS)]
    tracks = []
    for part in parts:
        start, stop = between[part.first], between[part.stop]
        if part.turn is None or part.then is None:
            tracks.append(part.thing.track(start, stop))
            continue
        at, now, then = between[part.turn], part.thing, part.then
        keys = (
            Key(start, now.x, now.y, now.size, state=now.state),
            Key(at - 0.01, now.x, now.y, now.size, state=now.state),
            Key(at, then.x, then.y, then.size, state=then.state),
        )
        tracks.append(
            Track(now.picture.name, start, stop, keys, colour=now.colour, mirrored=now.mirrored)
        )
    sketch.play(tracks, times, float(SECONDS))
    sketch.things = tuple(part.thing for part in parts)


def _cast(sketch: Sketch, count: int, coloured: bool) -> list[Thing]:
    """`count` different things in places of their own, in a drawn order."""
    spots = sketch.spots(count)
    sketch.rng.shuffle(spots)
    pictures = sketch.pick(sketch.cast, count)
    how = "always" if coloured else "maybe"
    return [sketch.thing(p, spot, how) for p, spot in zip(pictures, spots, strict=True)]


def _came(thing: Thing, coloured: bool) -> tuple[str, str]:
    """What is said when it comes, and the fact."""
    return sentence(f"{thing.a(coloured)} appeared"), thing.fact(*CAME, coloured=coloured)


def _noun(thing: Thing, coloured: bool) -> str:
    return thing.noun if coloured else thing.picture.name


def _left(thing: Thing, coloured: bool) -> tuple[str, str]:
    return f"The {_noun(thing, coloured)} left.", thing.fact(*LEFT, coloured=coloured)


def _is(thing: Thing, coloured: bool) -> tuple[str, str]:
    """What is said when it has changed to its state."""
    said = f"The {_noun(thing, coloured)} is {thing.state}."
    return said, thing.fact(f"is {thing.state}", f"turned {thing.state}", coloured=coloured)


_MOVES = {
    (1, 0): "to the right",
    (-1, 0): "to the left",
    (0, -1): "up",
    (0, 1): "down",
}


def _change(
    sketch: Sketch, thing: Thing, kind: str, at: int, count: int, coloured: bool
) -> tuple[Part, tuple[str, str]]:
    """The part of a thing that comes, leaves, turns or moves in frame `at`, and what is said."""
    rng = sketch.rng
    if kind == "came":
        return Part(thing, at, count), _came(thing, coloured)
    if kind == "left":
        return Part(thing, 0, at), _left(thing, coloured)
    if kind == "turned":
        if thing.picture not in sketch.stateful:
            raise Clash("no states to tell")
        state = rng.choice([s for s in thing.picture.states if s != thing.state])
        then = replace(thing, state=state)
        return Part(thing, 0, count, at, then), _is(then, coloured)
    dx, dy = rng.choice(sorted(_MOVES))
    here, there = 0.5 - 0.25, 0.5 + 0.25
    across = round(rng.uniform(0.3, 0.7), 3)
    start, end = (here, there) if dx + dy > 0 else (there, here)
    a, b = ((start, across), (end, across)) if dx else ((across, start), (across, end))
    now = replace(thing, x=a[0], y=a[1], size=min(thing.size, 0.4))
    then = replace(now, x=b[0], y=b[1])
    way = _MOVES[dx, dy]
    said = f"The {_noun(thing, coloured)} moved {way}."
    fact = thing.fact(f"moved {way}", f"went {way}", coloured=coloured)
    return Part(now, 0, count, at, then), (said, fact)


def _in_colours(sketch: Sketch) -> bool:
    """Whether the question asks for colours, too."""
    return sketch.pictures == "drawn" and sketch.rng.random() < 0.4


def _ask_line(sketch: Sketch, event: str, things: Sequence[Thing], coloured: bool) -> None:
    sketch.ask(event, [thing.picture.name for thing in things] or ["nothing"])
    if coloured:
        sketch.question = f"{sketch.question} {sketch.rng.choice(WITH_COLOURS)}"


def happened(sketch: Sketch) -> None:
    """One change, or none, told in a line."""
    rng, coloured = sketch.rng, _in_colours(sketch)
    count = rng.randint(2, 4)
    kind = rng.choices(("came", "left", "turned", "moved", "nothing"), (3, 3, 3, 2, 2))[0]
    if kind == "moved":
        things = _cast(sketch, 1, coloured)
    elif kind == "turned":
        things = _cast(sketch, rng.randint(1, 2), coloured)
        (picture,) = sketch.pick(sketch.stateful, beside=[x.picture for x in things[1:]])
        spot = (things[0].x, things[0].y, things[0].size)
        things[0] = sketch.thing(picture, spot, "always" if coloured else "maybe")
    else:
        things = _cast(sketch, rng.randint(1, 3), coloured)
    parts = [Part(thing, 0, count) for thing in things]
    said, fact = "Nothing changed.", "nothing|no change"
    if kind != "nothing":
        at = rng.randint(1, count - 1)
        parts[0], (said, fact) = _change(sketch, things[0], kind, at, count, coloured)
    _play(sketch, parts, count)
    _ask_line(sketch, "happened", things[:1], coloured)
    sketch.reply(said, Rule("key_facts", (fact,)))


def summarize(sketch: Sketch) -> None:
    """Two or three changes, in order: the note that memory keeps of a stretch of stream."""
    rng, coloured = sketch.rng, _in_colours(sketch)
    changes = rng.randint(2, 3)
    count = rng.randint(changes + 1, 6)
    frames = sorted(rng.sample(range(1, count), changes))
    things = _cast(sketch, changes, coloured)
    parts, lines = [], []
    for thing, at in zip(things, tuple(frames), strict=True):
        kind = "turned" if thing.picture in sketch.stateful and rng.random() < 0.6 else ""
        kind = kind or rng.choice(("came", "came", "left"))
        part, line = _change(sketch, thing, kind, at, count, coloured)
        # What has come may go again later, in a frame of its own.
        later = [f for f in range(at + 1, count) if f not in frames]
        if kind == "came" and later and rng.random() < 0.3:
            part = replace(part, stop=rng.choice(later))
            frames.append(part.stop)
            lines.append((part.stop, _left(thing, coloured)))
        parts.append(part)
        lines.append((at, line))
    _play(sketch, parts, count)
    _ask_line(sketch, "summarize", things, coloured)
    told = [line for _, line in sorted(lines, key=lambda item: item[0])]
    answer = " ".join(said for said, _ in told)
    sketch.reply(answer, Rule("key_facts", tuple(fact for _, fact in told)))


def new(sketch: Sketch) -> None:
    _first_and_last(sketch, "new")


def missing(sketch: Sketch) -> None:
    _first_and_last(sketch, "missing")


def _first_and_last(sketch: Sketch, event: str) -> None:
    """What only the last frame has, or only the first; in 15 % nothing."""
    rng = sketch.rng
    count = rng.randint(2, 5)
    wanted = 0 if rng.random() < 0.15 else rng.randint(1, 2)
    others, stay = rng.randint(0, 1), rng.randint(0 if wanted else 1, 1)
    things = _cast(sketch, wanted + others + stay, True)
    parts = []
    for i, thing in enumerate(things):
        turn = rng.randint(1, count - 1)
        if i >= wanted + others:
            parts.append(Part(thing, 0, count))
        elif (i < wanted) == (event == "new"):
            parts.append(Part(thing, turn, count))
        else:
            parts.append(Part(thing, 0, turn))
    _play(sketch, parts, count)
    found = sorted(things[:wanted], key=lambda thing: thing.x)
    sketch.ask(event, [thing.noun for thing in found] or ["nothing"])
    if not found:
        sketch.reply("Nothing.", Rule("key_facts", ("nothing|none",)))
        return
    answer = sentence(listed([thing.a() for thing in found]))
    sketch.reply(answer, Rule("key_facts", tuple(thing.fact() for thing in found)))


def which(sketch: Sketch) -> None:
    """The one frame that shows a thing."""
    rng = sketch.rng
    count = rng.randint(2, 6)
    things = _cast(sketch, rng.randint(2, 4), False)
    at = rng.randrange(count)
    parts = [Part(things[0], at, at + 1)]
    for thing in things[1:]:
        first = rng.randrange(count)
        parts.append(Part(thing, first, rng.randint(first + 1, count)))
    _play(sketch, parts, count)
    sought = things[0].picture
    sketch.ask("which", [sought.name], sketch.mention(sought), [sought])
    fact = f"{ORDINALS[at]}|{at + 1}|{at + 1}{('st', 'nd', 'rd', 'th')[min(at, 3)]}"
    sketch.reply(f"In the {ORDINALS[at]} picture.", Rule("key_facts", (fact,)))


def different(sketch: Sketch) -> None:
    """How many different things there are over all frames; some stay for several."""
    rng = sketch.rng
    count = rng.randint(2, 6)
    many = rng.randint(1, 4)
    parts = []
    for thing in _cast(sketch, many, False):
        first = rng.randrange(count)
        parts.append(Part(thing, first, rng.randint(first + 1, count)))
    _play(sketch, parts, count)
    sketch.ask("different", [part.thing.picture.name for part in parts])
    sketch.reply(str(many), number(many))


def order(sketch: Sketch) -> None:
    """The things in the order in which they came; each new frame brings the next one."""
    rng = sketch.rng
    things = _cast(sketch, rng.randint(2, 4), True)
    stay = rng.random() < 0.5
    count = len(things)
    parts = [Part(thing, i, count if stay else i + 1) for i, thing in enumerate(things)]
    _play(sketch, parts, count)
    sketch.ask("order", [thing.noun for thing in things])
    # Of articles, "some" alone counts as a word where answers are compared.
    some = ["some " if thing.picture.article == "some" else "" for thing in things]
    named = [[word + name for name in x.names()] for word, x in zip(some, things, strict=True)]
    orders = (listed(names) for names in itertools.product(*named))
    answer = sentence(listed([thing.a() for thing in things]))
    sketch.reply(answer, Rule("key_facts", ("|".join(orders),)))


KINDS: dict[str, Callable[[Sketch], None]] = {
    "happened": happened,
    "summarize": summarize,
    "new": new,
    "missing": missing,
    "which": which,
    "different": different,
    "order": order,
}
