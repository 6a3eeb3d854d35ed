"""A turn-based sample in the making: what is shown, what is asked, what is answered."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from data_pipeline.world import backgrounds as world_backgrounds
from data_pipeline.world.backgrounds import Background
from data_pipeline.world.captions import Caption
from data_pipeline.world.pictures import COLOURS, Picture, picture_set
from data_pipeline.world.scene import Cut, Key, Scene, Track
from data_pipeline.world.splits import Split, allowed, composition, group
from data_pipeline.world.stills_wordings import QUESTIONS
from data_pipeline.world.words import STATES, a, capital, forms, polite
from joyvl_train.timeline import Rule

SIDE = 96
"""Width and height of the scenes, in pixels; they are drawn at any other size as well."""

SIZES = {1: (0.26, 0.6), 2: (0.26, 0.46), 3: (0.25, 0.4), 4: (0.25, 0.36)}
"""Least and largest size by the number of things; more than four get `_SMALL`."""
_SMALL = (0.22, 0.29)

NOWHERE = (0.5, 0.5, 0.4)
"""The spot of a thing that is told of and not shown."""

FILMED = frozenset(
    "person car truck bus bicycle train tree flower house cloud bird butterfly rabbit squirrel "
    "firefighter horse boat".split()
)
"""Things that footage may hold of itself: before it nobody could say that there is none of them."""

Coloured = Literal["always", "maybe", "never"]


class Clash(Exception):
    """This draw doesn't work out; the next one is taken."""


def mistakable(one: Picture, other: Picture) -> bool:
    """Whether a name of one could mean the other: a duck and a rubber duck, or the same thing."""
    pairs = itertools.product(one.names, other.names)
    return any(f" {a} " in f" {b} " or f" {b} " in f" {a} " for a, b in pairs)


def tells_states(picture: Picture) -> bool:
    """Whether it has states that can be told with "is"."""
    return (
        len(picture.states) > 1
        and set(picture.states) <= set(STATES)
        and picture.article in ("a", "an")
    )


@lru_cache(maxsize=512)
def _clear_names(picture: Picture, pictures: str) -> tuple[str, ...]:
    """The picture's name, and those of its other names that can mean nothing else in its set."""
    others = [n for p in picture_set(pictures) if p != picture for n in p.names]
    clear = (n for n in picture.names[1:] if not any(f" {n} " in f" {o} " for o in others))
    return (picture.name, *clear)


@dataclass(frozen=True, slots=True)
class Thing:
    """One picture in a sample: what it is, and its centre and size as in `scene.Key`."""

    picture: Picture
    colour: str
    state: str
    x: float
    y: float
    size: float
    mirrored: bool

    @property
    def noun(self) -> str:
        """Its name, with the colour where it was given one."""
        return f"{self.colour} {self.picture.name}" if self.colour else self.picture.name

    def a(self, coloured: bool = True) -> str:
        return a(self.noun if coloured else self.picture.name, self.picture.article)

    def names(self, coloured: bool = True) -> list[str]:
        """All its names, with the colour where it was given one."""
        tone = f"{self.colour} " if coloured and self.colour else ""
        return [tone + name for name in self.picture.names]

    def fact(self, *after: str, coloured: bool = True) -> str:
        """A fact of a content rule: one of its names, then one of the texts `after`."""
        pairs = itertools.product(self.names(coloured), after or ("",))
        return "|".join(f"{name} {text}".strip() for name, text in pairs)

    def track(self, start: float = 0.0, stop: float = 1.0) -> Track:
        """The thing at its place from `start` to `stop`, in seconds."""
        key = Key(start, self.x, self.y, self.size, state=self.state)
        return Track(
            self.picture.name, start, stop, (key,), colour=self.colour, mirrored=self.mirrored
        )


class Sketch:
    """What a kind of sample writes into; see `stills.Still` for the fields that come out of it."""

    def __init__(
        self,
        rng: random.Random,
        split: Split,
        pictures: Literal["drawn", "photo"],
        backgrounds: Sequence[str],
        textures: Sequence[int] | None = None,
    ) -> None:
        self.rng = rng
        self.split: Split = split
        self.pictures: Literal["drawn", "photo"] = pictures
        self.background = self._background(rng.choice(backgrounds), textures)
        self.compositions: list[str] = []
        self.scenes: tuple[Scene, ...] = ()
        self.times: tuple[float, ...] = ()
        self.things: tuple[Thing, ...] = ()
        self.question = ""
        self.answer = ""
        self.context = ""
        self.rule = Rule()
        self.sought: tuple[tuple[str, str], ...] = ()
        self.before: tuple[str, ...] = ()
        self.further: tuple[str, ...] = ()
        self.cast = [p for p in picture_set(pictures) if allowed(self._before(p), split)]

    def _background(self, kind: str, textures: Sequence[int] | None) -> Background:
        rng = self.rng
        seed = rng.randrange(2**31)
        if kind == "plain":
            return Background("plain", rng.choice(sorted(world_backgrounds.PLAIN)), seed)
        if kind == "texture":
            name = rng.choice(world_backgrounds.TEXTURES)
            return Background("texture", name, rng.choice(textures) if textures else seed)
        if kind == "footage":
            clips = world_backgrounds.footage_clips(self.split)
            if not clips:
                raise world_backgrounds.FootageError(
                    f"backgrounds: no footage of the split {self.split!r} in the cache: run "
                    "`python -m data_pipeline.assets footage`, or leave footage out"
                )
            name = rng.choice(clips)
            return Background("footage", name, seed, offset=round(rng.uniform(0, 60), 1))
        raise ValueError(f"backgrounds: {kind!r} is none of plain, texture, footage")

    def _before(self, picture: Picture) -> str:
        """The composition of a thing and the background that it stands before."""
        return composition("before a background", picture.name, self.background.name)

    # What there is to choose from.

    @property
    def certain(self) -> list[Picture]:
        """Things that can be counted, or found missing: the background holds none of itself."""
        filmed = FILMED if self.background.kind == "footage" else ()
        return [p for p in self.cast if p.name not in filmed]

    @property
    def countable(self) -> list[Picture]:
        """Things of which there can be several."""
        return [p for p in self.cast if p.article in ("a", "an") and p.plural != p.name]

    @property
    def colourful(self) -> list[Picture]:
        """Things that come in several colours, with a singular name."""
        return [p for p in self.cast if p.colours and p.article in ("a", "an")]

    @property
    def stateful(self) -> list[Picture]:
        """Things whose states can be told with "is"."""
        return [p for p in self.cast if tells_states(p)]

    def pick(
        self, pool: Sequence[Picture], count: int = 1, beside: Sequence[Picture] = ()
    ) -> list[Picture]:
        """`count` different pictures of `pool`, none of them mistakable for another or for one of
        `beside`; raises `Clash` where there are not so many."""
        found: list[Picture] = []
        for picture in self.rng.sample(pool, len(pool)):
            if len(found) == count:
                break
            if not any(mistakable(picture, other) for other in (*beside, *found)):
                found.append(picture)
        if len(found) < count:
            raise Clash(f"{len(found)} pictures, wanted {count}")
        return found

    def alike(self, picture: Picture) -> list[Picture]:
        """Things of the same category, which are easily mistaken for it."""
        return [p for p in self.cast if p.category == picture.category and p != picture]

    def mention(self, picture: Picture, colour: str = "") -> dict[str, str]:
        """Forms of one of the picture's names, most often its first."""
        rng = self.rng
        noun = picture.name
        if rng.random() < 0.3:
            noun = rng.choice(_clear_names(picture, self.pictures))
        found = forms(f"{colour} {noun}" if colour else noun, picture.article)
        if noun == picture.name:
            found["s"] = f"{colour} {picture.plural}" if colour else picture.plural
        return found

    # What is shown.

    def spots(
        self, count: int, gap: float = 0.0, ratio: float = 1.0
    ) -> list[tuple[float, float, float]]:
        """(x, y, size) of `count` things that don't cover one another, left to right.

        gap: the least step from one to the next along x. ratio: the first of two is at least so
        many times as large as the second (or the other way round).
        """
        rng = self.rng
        for _ in range(60):
            low, high = SIZES.get(count, _SMALL)
            sizes = [round(rng.uniform(low, high), 3) for _ in range(count)]
            if ratio > 1:
                sizes = [round(rng.uniform(0.22, 0.3), 3), 0.0]
                sizes[1] = round(min(0.6, sizes[0] * rng.uniform(ratio, 2.2)), 3)
                rng.shuffle(sizes)
            found: list[tuple[float, float, float]] = []
            for size in sizes:
                for _ in range(20):
                    edge = size / 2 - 0.02
                    x, y = rng.uniform(edge, 1 - edge), rng.uniform(edge, 1 - edge)
                    if all(
                        max(abs(x - x2), abs(y - y2)) >= 0.46 * (size + size2)
                        and abs(x - x2) >= gap
                        for x2, y2, size2 in found
                    ):
                        found.append((round(x, 3), round(y, 3), size))
                        break
                else:
                    break
            if len(found) == count:
                return sorted(found)
        raise Clash(f"no room for {count} things")

    def thing(
        self,
        picture: Picture,
        spot: tuple[float, float, float],
        coloured: Coloured = "maybe",
        colour: str = "",
    ) -> Thing:
        """The picture at `spot`, in a drawn state.

        coloured: whether a thing that comes in colours is given one ("maybe": by chance); where
        colours are said it is always, else nobody could tell when to say them.
        """
        rng = self.rng
        given = coloured == "always" or (coloured == "maybe" and rng.random() < 0.5)
        tone = rng.choice(tuple(COLOURS)) if picture.colours and given else ""
        state = rng.choice(picture.states) if picture.states else ""
        return Thing(picture, colour or tone, state, *spot, rng.random() < 0.5)

    def show(self, things: Sequence[Thing], captions: Sequence[Caption] = ()) -> None:
        """One frame of these things and texts."""
        self.play([thing.track() for thing in things], (0.0,), 1.0, captions)
        self.things = tuple(things)

    def play(
        self,
        tracks: Sequence[Track],
        times: Sequence[float],
        duration: float,
        captions: Sequence[Caption] = (),
    ) -> None:
        """The frames at `times` of a scene of `duration` seconds."""
        rng = self.rng
        scene = Scene(
            SIDE,
            SIDE,
            duration,
            rng.randrange(2**31),
            (Cut(0.0, self.background),),
            tuple(tracks),
            tuple(captions),
            self.pictures,
            noise=rng.choice((0.0, 0.01, 0.02)),
            drift=rng.choice((0.0, 0.03)),
        )
        self.scenes, self.times = (scene,) * len(times), tuple(times)
        for track in tracks:
            key = composition("before a background", track.picture, self.background.name)
            if key not in self.compositions:
                self.compositions.append(key)

    # What is said.

    def ask(
        self,
        event: str,
        things: Iterable[str],
        words: dict[str, str] | None = None,
        sought: Sequence[Picture] = (),
        colour: str = "",
    ) -> None:
        """Put a question of `event` in a wording that this split may join with all of `things`.

        A held-out split takes a wording of its own where it has one. sought: the pictures that the
        question names, in `colour` where one is said. Raises `Clash` where the split may hold none.
        """
        keys = {
            text: [composition(event, thing, text) for thing in things]
            for things in [list(things)]
            for text in QUESTIONS[event]
        }
        fit = [t for t, of in keys.items() if all(allowed(key, self.split) for key in of)]
        own = [t for t in fit if any(group(key) == self.split for key in keys[t])]
        if not fit:
            raise Clash(f"{event}: the split {self.split} holds none of these")
        text = self.rng.choice(own if self.split != "train" and own else fit)
        self.compositions += [key for key in keys[text] if key not in self.compositions]
        self.question = text.format(**(words or {}))
        self.sought = tuple((picture.name, colour) for picture in sought)

    def reply(self, answer: str, rule: Rule) -> None:
        """Answer the question, which may get a polite word."""
        self.question = polite(self.rng, self.question)
        self.answer, self.rule = answer, rule

    @property
    def own(self) -> bool:
        """Whether some composition belongs to the split itself."""
        return any(group(key) == self.split for key in self.compositions)


def number(value: int) -> Rule:
    return Rule("number", (str(value),))


def yes_no(yes: bool) -> tuple[str, Rule]:
    return ("Yes." if yes else "No."), Rule("exact", ("Yes" if yes else "No",))


def sentence(text: str) -> str:
    return f"{capital(text)}."


def any_frame(sketch: Sketch) -> None:
    """A frame of one thing or two, in half of the samples."""
    if sketch.rng.random() < 0.5:
        spots = sketch.spots(sketch.rng.randint(1, 2))
        pictures = sketch.pick(sketch.cast, len(spots))
        sketch.show([sketch.thing(p, at) for p, at in zip(pictures, spots, strict=True)])
