"""Turn-based samples of one frame: name, describe, count, read, compare."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

from data_pipeline.world import languages
from data_pipeline.world.captions import Caption
from data_pipeline.world.pictures import COLOURS, Picture
from data_pipeline.world.stills_sketch import (
    Clash,
    Coloured,
    Sketch,
    Thing,
    mistakable,
    number,
    sentence,
    yes_no,
)
from data_pipeline.world.words import capital, listed
from joyvl_train.timeline import Rule

ADJECTIVES = ("open", "closed", "lit", "unlit", "waving", "ringing")
"""States that are said before the name, "an open door"; others follow it, "a lamp that is on"."""

PLACES = {
    (-1, -1): "at the top left",
    (0, -1): "at the top",
    (1, -1): "at the top right",
    (-1, 0): "on the left",
    (0, 0): "in the middle",
    (1, 0): "on the right",
    (-1, 1): "at the bottom left",
    (0, 1): "at the bottom",
    (1, 1): "at the bottom right",
}
"""(column, row) of a part of the picture -> what is said of it."""

_STEP = 0.28
"""From the middle of the picture to the middle of the parts at its sides."""


def some(sketch: Sketch, low: int, high: int, coloured: Coloured, gap: float = 0.0) -> list[Thing]:
    """`low` to `high` different things, left to right."""
    spots = sketch.spots(sketch.rng.randint(low, high), gap)
    pictures = sketch.pick(sketch.cast, len(spots))
    return [sketch.thing(p, spot, coloured) for p, spot in zip(pictures, spots, strict=True)]


def in_parts(sketch: Sketch, count: int, coloured: Coloured) -> list[tuple[Thing, str]]:
    """`count` different things, each clearly in a part of the picture, and the part's words."""
    rng = sketch.rng
    spots: list[tuple[float, float, float]] = []
    parts: list[str] = []
    for part in rng.sample(sorted(PLACES), len(PLACES)):
        if len(spots) == count:
            break
        size = round(rng.uniform(0.25, 0.5 if count == 1 else 0.36), 3)
        # A thing in the middle third of an axis is nearer to the middle than to a side.
        x, y = (0.5 + _STEP * side + rng.uniform(-0.05, 0.05) for side in part)
        if all(max(abs(x - a), abs(y - b)) >= 0.46 * (size + s) for a, b, s in spots):
            spots.append((round(x, 3), round(y, 3), size))
            parts.append(PLACES[part])
    if len(spots) < count:
        raise Clash("no room")
    pictures = sketch.pick(sketch.cast, count)
    things = [sketch.thing(p, spot, coloured) for p, spot in zip(pictures, spots, strict=True)]
    return list(zip(things, parts, strict=True))


def _at_edge(sketch: Sketch, thing: Thing) -> Thing:
    """The thing on its way in or out: at least 60 % of its box in the frame, as where streams
    report it."""
    rng = sketch.rng
    near = round(thing.size * rng.uniform(0.1, 0.5), 3)
    side = near if rng.random() < 0.5 else round(1 - near, 3)
    return replace(thing, x=side) if rng.random() < 0.5 else replace(thing, y=side)


def name(sketch: Sketch) -> None:
    """One thing, by its name alone."""
    (thing,) = some(sketch, 1, 1, "maybe")
    if sketch.rng.random() < 0.2:
        thing = _at_edge(sketch, thing)
    sketch.show([thing])
    sketch.ask("name", [thing.picture.name])
    sketch.reply(sentence(thing.a(False)), Rule("key_facts", (thing.fact(coloured=False),)))


def name_all(sketch: Sketch) -> None:
    """All things, left to right; one with a colour of its own is told by it, as in the streams."""
    things = some(sketch, 2, 4, "always", gap=0.13)
    sketch.show(things)
    sketch.ask("now", [thing.noun for thing in things])
    answer = sentence(listed([thing.a() for thing in things]))
    sketch.reply(answer, Rule("key_facts", tuple(thing.fact() for thing in things)))


def _told(sketch: Sketch, thing: Thing) -> tuple[str, str]:
    """The thing with its state, and the fact of it."""
    if thing.picture not in sketch.stateful:
        return thing.a(), thing.fact()
    if thing.state in ADJECTIVES:
        article = "an" if thing.state[0] in "aeiou" else "a"
        fact = "|".join(f"{thing.state} {name}" for name in thing.names())
        return f"{article} {thing.state} {thing.noun}", fact
    if thing.state in ("standing", "quiet"):  # Nothing to tell: so things are most of the time.
        return thing.a(), thing.fact()
    after = f"that is {thing.state}"
    return f"{thing.a()} {after}", thing.fact(after)


def describe(sketch: Sketch) -> None:
    """Everything with its place, colour and state: many facts in one answer.

    Column by column from the left, each from the top.
    """
    found = in_parts(sketch, sketch.rng.choices((1, 2, 3, 4), (2, 4, 4, 2))[0], "always")
    order = {words: part for part, words in PLACES.items()}
    found.sort(key=lambda item: order[item[1]])
    sketch.show([thing for thing, _ in found])
    sketch.ask("describe", [thing.picture.name for thing, _ in found])
    parts, facts = [], []
    for thing, place in found:
        told, fact = _told(sketch, thing)
        parts.append(f"{place} {told}")
        some = "some " if thing.picture.article == "some" else ""
        facts.append("|".join(f"{place} {some}{text}" for text in fact.split("|")))
    sketch.reply(sentence(listed(parts)), Rule("key_facts", tuple(facts)))


def colours(sketch: Sketch) -> None:
    """One to three things of those that come in colours, with the colour."""
    spots = sketch.spots(sketch.rng.randint(1, 3), 0.13)
    pictures = sketch.pick(sketch.colourful, len(spots))
    things = [sketch.thing(p, at, "always") for p, at in zip(pictures, spots, strict=True)]
    sketch.show(things)
    sketch.ask("colours", [thing.noun for thing in things])
    answer = sentence(listed([thing.a() for thing in things]))
    sketch.reply(answer, Rule("key_facts", tuple(thing.fact() for thing in things)))


def colour(sketch: Sketch) -> None:
    """The colour of one thing among others."""
    things = some(sketch, 1, 3, "always")
    chosen = [i for i, thing in enumerate(things) if thing.picture in sketch.colourful]
    if not chosen:
        raise Clash("nothing in a colour of its own")
    thing = things[sketch.rng.choice(chosen)]
    sketch.show(things)
    sketch.ask("colour", [thing.noun], sketch.mention(thing.picture), [thing.picture])
    sketch.reply(sentence(thing.colour), Rule("key_facts", (thing.colour,)))


def state(sketch: Sketch) -> None:
    """The state of one thing: which of two, or whether it is in one."""
    rng = sketch.rng
    (picture,) = sketch.pick(sketch.stateful)
    spots = sketch.spots(rng.randint(1, 3))
    rng.shuffle(spots)
    rest = sketch.pick(sketch.cast, len(spots) - 1, beside=[picture])
    things = [sketch.thing(p, spot) for p, spot in zip([picture, *rest], spots, strict=True)]
    thing = things[0]
    other = rng.choice([s for s in picture.states if s != thing.state])
    sketch.show(things)
    words = sketch.mention(picture)
    if rng.random() < 0.6:
        two = [thing.state, other]
        rng.shuffle(two)
        told = {"state": two[0], "state2": two[1]}
        sketch.ask("how_is", [picture.name], words | told, [picture])
        sketch.reply(sentence(thing.state), Rule("key_facts", (thing.state,)))
    else:
        yes = rng.random() < 0.5
        told = {"state": thing.state if yes else other}
        sketch.ask("is_state", [picture.name], words | told, [picture])
        sketch.reply(*yes_no(yes))


def where(sketch: Sketch) -> None:
    """The place of one thing among others."""
    found = in_parts(sketch, sketch.rng.randint(1, 3), "maybe")
    sketch.show([thing for thing, _ in found])
    thing, place = found[0]
    sketch.ask("where", [thing.picture.name], sketch.mention(thing.picture), [thing.picture])
    middle = ("middle|center|centre",)
    facts = middle if place == PLACES[0, 0] else tuple(place.split(" ")[2:])
    sketch.reply(sentence(place), Rule("key_facts", facts))


def _crowd(sketch: Sketch, pictures: list[Picture], counts: list[int]) -> list[Thing]:
    """So many of each picture, all over the place; each picture in one colour or in several."""
    rng = sketch.rng
    spots = sketch.spots(sum(counts))
    rng.shuffle(spots)
    things: list[Thing] = []
    for picture, many in zip(pictures, counts, strict=True):
        one = rng.choice(("", *COLOURS)) if picture.colours and rng.random() < 0.5 else None
        for _ in range(many):
            thing = sketch.thing(picture, spots.pop())
            things.append(thing if one is None else replace(thing, colour=one))
    sketch.show(things)
    return things


def count(sketch: Sketch) -> None:
    """How many of one thing, none to six, among others; sometimes of one colour of it."""
    rng = sketch.rng
    many = rng.choices(range(7), (2, 3, 4, 4, 3, 2, 2))[0]
    countable = [p for p in sketch.countable if p in sketch.certain]
    if rng.random() < 0.25 and 0 < many < 6:
        (picture,) = sketch.pick([p for p in countable if p.colours])
        first, second = rng.sample(tuple(COLOURS), 2)
        spots = sketch.spots(many + rng.randint(1, 6 - many))
        rng.shuffle(spots)
        tones = [first] * many + [second] * (len(spots) - many)
        sketch.show(
            [sketch.thing(picture, at, colour=c) for at, c in zip(spots, tones, strict=True)]
        )
        words = sketch.mention(picture, first)
        sketch.ask("count", [f"{first} {picture.name}"], words, [picture], first)
    else:
        rest = rng.randint(0 if many else 1, 2 if many < 4 else 1)
        (picture,) = sketch.pick(countable)
        near = sketch.alike(picture)
        pool = near if len(near) > 3 and rng.random() < 0.5 else sketch.cast
        others = sketch.pick(pool, rest, beside=[picture])
        _crowd(sketch, [picture, *others], [many, *(1 for _ in others)])
        sketch.ask("count", [picture.name], sketch.mention(picture), [picture])
    sketch.reply(str(many), number(many))


def count_all(sketch: Sketch) -> None:
    """How many there are of each of two or three kinds."""
    rng = sketch.rng
    counts = rng.choice([(1, 2), (1, 3), (2, 2), (2, 3), (2, 4), (3, 3), (1, 1, 2), (2, 2, 1)])
    pictures = sketch.pick(sketch.countable, len(counts))
    _crowd(sketch, pictures, list(counts))
    sketch.ask("count_all", [p.name for p in pictures])
    told, facts = [], []
    for picture, many in zip(pictures, counts, strict=True):
        told.append(f"{many} {picture.name if many == 1 else picture.plural}")
        facts.append("|".join([told[-1], *(f"{many} {name}" for name in picture.names)]))
    sketch.reply(f"{listed(told)}.", Rule("key_facts", tuple(facts)))


def is_there(sketch: Sketch) -> None:
    """Yes or no, evenly; where it is no, something alike is there more often than not."""
    rng = sketch.rng
    yes = rng.random() < 0.5
    if rng.random() < 0.3:
        (picture,) = sketch.pick([p for p in sketch.colourful if p in sketch.certain])
        first, second = rng.sample(tuple(COLOURS), 2)
        spots = sketch.spots(rng.randint(1, 3))
        rest = sketch.pick(sketch.cast, len(spots) - 1, beside=[picture])
        rng.shuffle(spots)
        things = [sketch.thing(picture, spots[0], colour=first if yes else second)]
        things += [sketch.thing(p, at) for p, at in zip(rest, spots[1:], strict=True)]
        sketch.show(things)
        words = sketch.mention(picture, first)
        sketch.ask("is_there", [f"{first} {picture.name}"], words, [picture], first)
    else:
        (picture,) = sketch.pick(sketch.certain)
        spots = sketch.spots(rng.randint(1, 4))
        near = [p for p in sketch.alike(picture) if not mistakable(p, picture)]
        shown = [picture] if yes else near[:0]
        if not yes and near and rng.random() < 0.6:
            shown = sketch.pick(near)
        rest = sketch.pick(sketch.cast, len(spots) - len(shown), beside=[picture, *shown])
        rng.shuffle(spots)
        sketch.show([sketch.thing(p, at) for p, at in zip([*shown, *rest], spots, strict=True)])
        sketch.ask("is_there", [picture.name], sketch.mention(picture), [picture])
    sketch.reply(*yes_no(yes))


def compare(sketch: Sketch) -> None:
    """Which of two is bigger or smaller, or whether the two are the same."""
    rng = sketch.rng
    if rng.random() < 0.6:
        things = [
            sketch.thing(p, spot)
            for p, spot in zip(
                sketch.pick(sketch.countable, 2), sketch.spots(2, ratio=1.5), strict=True
            )
        ]
        rng.shuffle(things)
        event = rng.choice(("bigger", "smaller"))
        wanted = (max if event == "bigger" else min)(things, key=lambda thing: thing.size)
        sketch.show(things)
        one, two = (sketch.mention(thing.picture) for thing in things)
        names = [thing.picture.name for thing in things]
        both = one | {f"{k}2": v for k, v in two.items()}
        sketch.ask(event, names, both, [thing.picture for thing in things])
        answer = sentence(f"the {wanted.picture.name}")
        sketch.reply(answer, Rule("key_facts", (wanted.fact(coloured=False),)))
        return
    same = rng.random() < 0.5
    spots = sketch.spots(2)
    first = sketch.thing(sketch.pick(sketch.countable)[0], spots[0], "always")
    second = replace(first, x=spots[1][0], y=spots[1][1], size=spots[1][2])
    if not same and first.picture.colours and rng.random() < 0.4:
        second = replace(second, colour=rng.choice([c for c in COLOURS if c != first.colour]))
    elif not same:
        near = [p for p in sketch.alike(first.picture) if not mistakable(p, first.picture)]
        picture = sketch.pick(near or sketch.cast, beside=[first.picture])[0]
        second = sketch.thing(picture, spots[1], "always")
    sketch.show([first, second])
    sketch.ask("same", [first.picture.name])
    sketch.reply(*yes_no(same))


_SIDES = {
    (1, 0): "to the left of",
    (-1, 0): "to the right of",
    (0, 1): "above",
    (0, -1): "below",
}


def beside(sketch: Sketch) -> None:
    """What is to the left of, to the right of, above or below a thing."""
    rng = sketch.rng
    dx, dy = rng.choice(sorted(_SIDES))
    shift, spots = rng.uniform(-0.2, 0.2), []
    for sign in (1, -1):
        along = 0.5 + sign * rng.uniform(0.2, 0.26)
        across = 0.5 + shift + rng.uniform(-0.08, 0.08)
        size = round(rng.uniform(0.26, 0.4), 3)
        x, y = (along, across) if dx else (across, along)
        spots.append((round(x, 3), round(y, 3), size))
    if dx + dy < 0:
        spots.reverse()
    known, wanted = (
        sketch.thing(p, spot, "always")
        for p, spot in zip(sketch.pick(sketch.cast, 2), spots, strict=True)
    )
    sketch.show([known, wanted])
    words = sketch.mention(known.picture) | {"side": _SIDES[dx, dy]}
    sketch.ask("beside", [known.picture.name], words)
    sketch.reply(sentence(wanted.a()), Rule("key_facts", (wanted.fact(),)))


# Text on the screen.

_SIGNS = ("STOP", "EXIT", "OPEN", "CLOSED", "SALE", "TAXI", "DANGER", "PUSH")
_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"


def _word(sketch: Sketch) -> tuple[str, str]:
    """A short text to be read, and its language."""
    rng = sketch.rng
    draw = rng.random()
    if draw < 0.2:
        return "".join(rng.choices("0123456789", k=rng.randint(1, 5))), "en"
    if draw < 0.27:
        return f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}", "en"
    if draw < 0.34:
        return "".join(rng.choices(_LETTERS, k=rng.randint(1, 3))) + str(rng.randint(1, 99)), "en"
    if draw < 0.5:
        words = sorted(set(languages.WORDS.values()))
        return " ".join(capital(rng.choice(words)) for _ in range(rng.randint(1, 2))), "en"
    if draw < 0.58:
        return rng.choice(sorted(set(languages.LINES.values()))), "en"
    if draw < 0.64:
        return rng.choice(
            ("STOP", "EXIT", "OPEN", "CLOSED", "SALE", "TAXI", "DANGER", "PUSH")
        ), "en"
    return _foreign(sketch)[:2]


def _foreign(sketch: Sketch) -> tuple[str, str, str]:
    """A word or short line of another language, the language, and the English of it."""
    rng = sketch.rng
    draw = rng.random()
    if draw < 0.6:
        (language, text), english = rng.choice(sorted(languages.WORDS.items()))
    elif draw < 0.8:
        (language, text), english = rng.choice(sorted(languages.LINES.items()))
    else:
        (language, text), (_, english) = rng.choice(sorted(languages.ROMANIZED.items()))
    return text, language, english


def _show_text(sketch: Sketch, text: str, language: str) -> None:
    """The text over a picture of one thing or of none, never over the thing itself."""
    rng = sketch.rng
    place = rng.choice(("top", "center", "bottom"))
    caption = Caption(
        text, language, 0.0, 1.0, place, rng.choice(("outline", "box")), rng.uniform(0.16, 0.26)
    )
    things = []
    if place != "center" and rng.random() < 0.6:
        size = round(rng.uniform(0.3, 0.42), 3)
        y = 0.72 if place == "top" else 0.28
        spot = (round(rng.uniform(0.25, 0.75), 3), y, size)
        things = [sketch.thing(sketch.pick(sketch.cast)[0], spot)]
    sketch.show(things, [caption])


def read(sketch: Sketch) -> None:
    """What is written there: words of several languages, numbers, codes, the page of an app."""
    rng = sketch.rng
    if rng.random() < 0.25:
        slide = rng.random() < 0.5
        title = rng.choice(languages.SLIDES if slide else languages.SCREENS)
        points = rng.sample(languages.POINTS, rng.randint(1, 3))
        text = "\n".join([title, *points])
        style = "slide" if slide else "screen"
        sketch.show([], [Caption(text, "en", 0.0, 1.0, "full", style, rng.uniform(0.16, 0.22))])
        sketch.ask("title", [title])
        sketch.reply(title, Rule("exact"))
        return
    text, language = _word(sketch)
    _show_text(sketch, text, language)
    sketch.ask("read", [text])
    sketch.reply(text, Rule("exact"))


def translate(sketch: Sketch) -> None:
    """The English of a word or line on screen."""
    text, language, english = _foreign(sketch)
    _show_text(sketch, text, language)
    sketch.ask("translate", [text])
    sketch.reply(capital(english), Rule("exact"))


def language(sketch: Sketch) -> None:
    """The language of a word or line that only one of the languages has."""
    text, code, _ = _foreign(sketch)
    every = itertools.chain(languages.WORDS, languages.LINES, languages.ROMANIZED)
    if sum(text.casefold() == other.casefold() for _, other in every) > 1:
        raise Clash(f"{text} is of several languages")
    _show_text(sketch, text, code)
    sketch.ask("language", [text])
    sketch.reply(sentence(languages.NAMES[code]), Rule("key_facts", (languages.NAMES[code],)))


KINDS: dict[str, Callable[[Sketch], None]] = {
    "name": name,
    "name_all": name_all,
    "describe": describe,
    "colours": colours,
    "colour": colour,
    "state": state,
    "where": where,
    "count": count,
    "count_all": count_all,
    "is_there": is_there,
    "compare": compare,
    "beside": beside,
    "read": read,
    "translate": translate,
    "language": language,
}
