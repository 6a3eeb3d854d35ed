"""The stream of a case as a few readable lines, and the scene of the rendered world it stands for.

    seconds: 30
    background: {texture: bricks}
    things:
      - {thing: house, place: top left}
      - {thing: fire, from: 12, to: 25, moves: true}
      - {thing: lamp, states: {0: "off", 9: "on"}}
      - {thing: ball, place: top right, bounces: [5, 9]}
    words:
      - {text: Feuer, language: de, from: 12, to: 16}

`from` is the first second at whose end a thing is seen, `to` the first in which it is gone; a state
holds from its second on, a bounce touches the ground in it. So a script says in what second each
thing happens, and what a case claims of it can be checked.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_pipeline.packages import CLIPS
from data_pipeline.world.backgrounds import PLAIN, TEXTURES, Background
from data_pipeline.world.captions import Caption
from data_pipeline.world.pictures import COLOURS, PictureError, picture
from data_pipeline.world.scene import Cut, Scene
from data_pipeline.world.stories.actor import Actor
from data_pipeline.world.stories.draft import BOX, SIDE
from eval.fields import CaseError, Fields

PLACES = ("top left", "top right", "bottom left", "bottom right")
"""Where things stand: the names of `BOX`."""

MAX_SECONDS = 3600
_SIZE = 0.4


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that can be seen in `second`: `what` is came, left, bounced, or a state; of words,
    shown."""

    second: int
    thing: str
    what: str


@dataclass(frozen=True, slots=True)
class Script:
    """The scene, and all that happens in it."""

    scene: Scene
    happenings: tuple[Happening, ...]

    def seen(self, second: int, thing: str, what: str) -> bool:
        return Happening(second, thing, what) in self.happenings


def read_script(given: Fields) -> Script:
    """The script of a case's `stream`; `CaseError` says what is wrong with it."""
    seconds = given.number("seconds", 1, MAX_SECONDS, whole=True)
    pictures = given.choice("pictures", ("drawn", "photo"), "drawn")
    seed = given.number("seed", 0, 2**31 - 1, None, whole=True)
    seed = zlib.crc32(given.where.encode()) >> 1 if seed is None else seed
    cuts = [Cut(0.0, _background(given, "background", seed))]
    for item in given.each("cuts"):
        at = item.number("at", 1, seconds, whole=True)
        cuts.append(Cut(float(at), _background(item, "background", seed + at)))
        item.end()
    happenings: list[Happening] = []
    actors: list[Actor] = []
    for number, item in enumerate(given.each("things")):
        actor = _actor(item, number, seconds, pictures, happenings)
        item.end()
        for other in actors:
            if other.place == actor.place and _meet(other, actor, seconds):
                raise CaseError(
                    f"{item.where}: {PLACES[actor.place]} is taken by the {other.picture.name} "
                    f"from {other.came} on; give another place, or another time"
                )
        actors.append(actor)
    tracks = [actor.track(float(seconds)) for actor in actors]
    captions = [_caption(item, seconds, happenings) for item in given.each("words")]
    noise = given.number("noise", 0, 0.5, 0.01)
    given.end()
    try:
        scene = Scene(
            SIDE,
            SIDE,
            float(seconds),
            seed,
            tuple(cuts),
            tuple(tracks),
            tuple(captions),
            pictures,
            noise=float(noise),
        )
    except ValueError as error:
        raise CaseError(f"{given.where}: {error}") from None
    return Script(scene, tuple(happenings))


def _background(given: Fields, name: str, seed: int) -> Background:
    item = Fields(given.take(name, {"plain": "grey"}), f"{given.where}, {name}")
    kinds = [kind for kind in ("plain", "texture", "footage") if kind in item]
    if len(kinds) != 1:
        raise CaseError(f"{item.where}: takes one of plain, texture, footage")
    (kind,) = kinds
    known = {"plain": tuple(PLAIN), "texture": TEXTURES}
    known["footage"] = tuple(clip.name for clip in CLIPS)
    shown = item.choice(kind, known[kind])
    offset = item.number("offset", 0, 86400, 0)
    item.end()
    return Background(kind, shown, seed, offset=float(offset))  # type: ignore[arg-type]


def _actor(
    item: Fields, number: int, seconds: int, pictures: Any, happenings: list[Happening]
) -> Actor:
    name = item.text("thing")
    try:
        shown = picture(name, pictures)
    except PictureError as error:
        raise CaseError(f"{item.where}: {error}") from None
    colour = item.choice("colour", tuple(COLOURS), "")
    came = item.number("from", 0, seconds - 1, 0, whole=True)
    gone = item.number("to", came + 1, seconds, None, whole=True)
    place = PLACES.index(item.choice("place", PLACES, PLACES[number % len(PLACES)]))
    size = item.number("size", 0.1, 0.9, _SIZE)
    moves = item.flag("moves")
    if moves and came == 0:
        raise CaseError(f"{item.where}: moves, but is there from second 0; give a later from")
    noun = f"{colour} {name}".strip()
    actor = Actor(
        shown,
        colour,
        place,
        *BOX[place],
        size,
        came,
        0.0 if came == 0 else came + (0.5 if moves else 0.3),
        1.4 if moves else None,
        False,
        edge=(-1 if BOX[place][0] < 0.5 else 1, 0),
    )
    happenings.append(Happening(came, noun, "came"))
    if gone is not None and gone < seconds:
        actor.gone, actor.gone_at = gone, gone + 0.5
        actor.outward = 1.4 if moves else None
        happenings.append(Happening(gone, noun, "left"))
    there = range(came, seconds if gone is None else gone)
    _states(item, actor, noun, there, happenings)
    _bounces(item, actor, noun, there, happenings)
    return actor


def _meet(one: Actor, two: Actor, seconds: int) -> bool:
    """Whether both are there at once."""
    ends = [seconds if actor.gone is None else actor.gone for actor in (one, two)]
    return one.came < ends[1] and two.came < ends[0]


def _states(
    item: Fields, actor: Actor, noun: str, there: range, happenings: list[Happening]
) -> None:
    given = item.take("states", {})
    known = actor.picture.states
    if given and not known:
        raise CaseError(f"{item.where}: {actor.picture.name!r} has no states; take them out")
    if not isinstance(given, Mapping):
        raise CaseError(f"{item.where}: states takes seconds with a state each, as {{0: open}}")
    states = {actor.came: known[0]} if known else {actor.came: ""}
    for second, state in given.items():
        if isinstance(second, bool) or not isinstance(second, int) or second not in there:
            raise CaseError(f"{item.where}: states: {second!r} is no second in which it is there")
        if state not in known:
            raise CaseError(
                f"{item.where}: states: {state!r} is none of {', '.join(known)}; quote on and off"
            )
        states[second] = state
    last = None
    for second, state in sorted(states.items()):
        at = actor.came_at if second == actor.came else second + 0.4
        actor.states.append((second, at, state))
        if state and last is not None and state != last:
            happenings.append(Happening(second, noun, state))
        last = state


def _bounces(
    item: Fields, actor: Actor, noun: str, there: range, happenings: list[Happening]
) -> None:
    given = item.take("bounces", [])
    if not isinstance(given, list) or not all(
        isinstance(s, int) and not isinstance(s, bool) for s in given
    ):
        raise CaseError(f"{item.where}: bounces takes a list of seconds")
    if given and actor.place > 1:
        raise CaseError(f"{item.where}: bounces from a place at the top; give place: top left")
    low = 1 - actor.size / 2
    for before, second in zip([actor.came, *given], given, strict=False):
        if second not in there:
            raise CaseError(f"{item.where}: bounces: {second} is no second in which it is there")
        if second < before + 2:
            raise CaseError(f"{item.where}: bounces: {second} comes too soon after {before}")
        actor.waypoints += [
            (second + 0.4, actor.x, actor.y),
            (second + 0.85, actor.x, low),
            (second + 1.02, actor.x, low),
            (second + 1.45, actor.x, actor.y),
        ]
        happenings.append(Happening(second, noun, "bounced"))


def _caption(item: Fields, seconds: int, happenings: list[Happening]) -> Caption:
    style = item.choice("style", ("outline", "box", "slide", "screen"), "box")
    full = style in ("slide", "screen")
    text = item.text("text")
    start = item.number("from", 0, seconds - 1, whole=True)
    stop = item.number("to", start + 1, seconds, whole=True)
    caption = Caption(
        text,
        item.text("language", "en"),
        0.0 if start == 0 else start + 0.3,
        float(stop),
        place="full" if full else item.choice("place", ("top", "center", "bottom"), "center"),
        style=style,
        size=item.number("size", 0.05, 1, 0.24),
    )
    item.end()
    happenings.append(Happening(start, text.split("\n")[0], "shown"))
    return caption
