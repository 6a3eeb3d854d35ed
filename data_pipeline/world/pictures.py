"""The named pictures that scenes are composed of, as sprites of any size.

Two sets: "drawn" needs nothing but this package; "photo" are photographic stamps that
`python -m data_pipeline.assets photo` fetches (see `photos.py` for their names).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from PIL import Image

from data_pipeline.world import photos
from data_pipeline.world.drawing import PAINTERS
from data_pipeline.world.drawing.pen import Colour, Pen
from joyvl_train.config import nearest

PictureSet = Literal["drawn", "photo"]
PictureSets = Literal["drawn", "photo", "both"]

SETS: tuple[PictureSet, ...] = ("drawn", "photo")

COLOURS: dict[str, Colour] = {
    "red": (222, 36, 40),
    "orange": (248, 134, 24),
    "yellow": (250, 218, 40),
    "green": (40, 164, 70),
    "blue": (40, 92, 222),
    "purple": (142, 56, 190),
    "white": (244, 244, 242),
    "black": (52, 52, 60),
}

MAX_PIXELS = 4096
_SMALL = 128
"""Sprites up to this size are kept ready, larger ones are made each time: memory stays bounded."""
_SMALL_MASTER = 256


class PictureError(ValueError):
    """A picture, colour or state that doesn't exist, or whose file isn't there."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One nameable thing. `names` are its synonyms, `name` first; `article` is "a", "an", "the" or
    "" (smoke). `states` (first is the default) are adjectives or verbs: "open", "waving".
    `colours` says that it is drawn in each of `COLOURS`.
    """

    name: str
    names: tuple[str, ...]
    plural: str
    category: str
    states: tuple[str, ...] = ()
    colours: bool = False
    article: str = "a"


def _drawn(
    names: str,
    category: str,
    plural: str = "",
    *,
    states: tuple[str, ...] = (),
    colours: bool = False,
    article: str = "",
) -> Picture:
    every = tuple(names.split("|"))
    name = every[0]
    if not article:
        article = "an" if name[0] in "aeio" or name == "umbrella" else "a"
    return Picture(name, every, plural or name + "s", category, states, colours, article)


DRAWN: tuple[Picture, ...] = (
    _drawn("person|human", "person", "people", states=("standing", "waving"), colours=True),
    _drawn("dog|puppy", "animal"),
    _drawn("cat|kitten", "animal"),
    _drawn("bird", "animal", states=("wings up", "wings down"), colours=True),
    _drawn("fish", "animal", "fish", colours=True),
    _drawn("butterfly", "animal", "butterflies", colours=True),
    _drawn("snake|serpent", "animal"),
    _drawn("turtle|tortoise", "animal"),
    _drawn("car|automobile", "vehicle", colours=True),
    _drawn("truck|lorry", "vehicle", colours=True),
    _drawn("bus|coach", "vehicle", "buses", colours=True),
    _drawn("bicycle|bike", "vehicle", colours=True),
    _drawn("boat|sailboat|ship", "vehicle", colours=True),
    _drawn("plane|airplane|aircraft", "vehicle", colours=True),
    _drawn("train|locomotive", "vehicle", colours=True),
    _drawn("rocket|spaceship", "vehicle", colours=True),
    _drawn("fire|flame|flames", "danger"),
    _drawn("smoke|fumes", "danger", "smoke", article="some"),
    _drawn("lightning|lightning bolt", "danger", "lightning", article="some"),
    _drawn("knife|blade", "danger", "knives"),
    _drawn("warning sign|danger sign", "sign"),
    _drawn("traffic light|stoplight", "sign", states=("red", "yellow", "green")),
    _drawn("traffic cone|cone", "sign"),
    _drawn("flag", "sign", colours=True),
    _drawn("tree", "plant"),
    _drawn("flower|blossom", "plant", colours=True),
    _drawn("mushroom|toadstool", "plant", colours=True),
    _drawn("cactus", "plant", "cacti"),
    _drawn("apple", "food", colours=False),
    _drawn("banana", "food"),
    _drawn("carrot", "food"),
    _drawn("cake|birthday cake", "food"),
    _drawn("ice cream|ice cream cone", "food"),
    _drawn("door", "object", states=("closed", "open"), colours=True),
    _drawn("lamp|light", "object", states=("off", "on")),
    _drawn("box|package|parcel", "object", "boxes", states=("closed", "open"), colours=True),
    _drawn("cup|mug", "object", colours=True),
    _drawn("bottle", "object", colours=True),
    _drawn("book", "object", states=("closed", "open"), colours=True),
    _drawn("phone|telephone|smartphone", "object", states=("quiet", "ringing")),
    _drawn("clock", "object"),
    _drawn("umbrella", "object", states=("open", "closed"), colours=True),
    _drawn("hat", "object", colours=True),
    _drawn("key", "object"),
    _drawn("hammer", "object"),
    _drawn("scissors", "object", "scissors", colours=True, article="some"),
    _drawn("chair|seat", "object", colours=True),
    _drawn("house|home", "building", colours=True),
    _drawn("ball", "toy", colours=True),
    _drawn("balloon", "toy", colours=True),
    _drawn("kite", "toy", colours=True),
    _drawn("drum", "toy", colours=True),
    _drawn("star", "shape", colours=True),
    _drawn("heart", "shape", colours=True),
    _drawn("sun", "sky", article="the"),
    _drawn("moon|crescent moon", "sky", article="the"),
    _drawn("cloud", "sky"),
)

PHOTO: tuple[Picture, ...] = tuple(
    Picture(p.names[0], p.names, p.plural, p.category, p.states, article=p.article)
    for p in photos.PHOTOS
)

_BY_NAME = {
    "drawn": {p.name: p for p in DRAWN},
    "photo": {p.name: p for p in PHOTO},
}

_NATURAL: dict[str, Colour] = {
    "person": (40, 120, 200),
    "dog": (170, 112, 60),
    "cat": (242, 150, 60),
    "bird": (60, 140, 220),
    "fish": (250, 130, 40),
    "butterfly": (230, 90, 190),
    "snake": (70, 160, 60),
    "turtle": (96, 120, 50),
    "tree": (44, 140, 54),
    "flower": (240, 100, 170),
    "mushroom": (210, 40, 40),
    "cactus": (50, 150, 80),
    "cloud": (236, 240, 248),
    "door": (190, 120, 60),
    "box": (206, 160, 100),
    "cup": (80, 160, 200),
    "house": (240, 216, 160),
    "hat": (90, 60, 40),
    "chair": (190, 140, 80),
    "bottle": (40, 140, 80),
    "apple": (222, 36, 40),
}
_ELSE: Colour = (210, 50, 60)


def sets_of(name: PictureSets) -> tuple[PictureSet, ...]:
    """The sets that a name stands for: itself, or "both" of them."""
    return SETS if name == "both" else (name,)


def picture_set(name: str) -> tuple[Picture, ...]:
    """All pictures of the set "drawn" or "photo"."""
    if name not in SETS:
        raise PictureError(f"picture set {name!r} is none of {SETS}")
    return DRAWN if name == "drawn" else PHOTO


def picture(name: str, picture_set: str = "drawn") -> Picture:
    """The picture of this name; `PictureError` where there is none."""
    if picture_set not in SETS:
        raise PictureError(f"picture set {picture_set!r} is none of {SETS}")
    found = _BY_NAME[picture_set].get(name)
    if found is None:
        hint = nearest(name, _BY_NAME[picture_set])
        some = ", ".join(sorted(_BY_NAME[picture_set])[:6])
        told = f"no picture {name!r} in the set {picture_set!r}.{hint}"
        raise PictureError(told if hint else f"{told} It has {some} and more")
    return found


def sprite(
    name: str,
    size: int,
    colour: str = "",
    state: str = "",
    *,
    angle: float = 0.0,
    mirrored: bool = False,
    picture_set: str = "drawn",
) -> Image.Image:
    """The picture as RGBA, its larger side `size` pixels; shared, so never draw into it.

    colour: one of `COLOURS` where the picture takes one; "" is its natural colour. state: one of
    its states; "" is the first. angle: degrees counterclockwise, to whole ones; a turned sprite's
    canvas grows. Raises `PictureError` for what doesn't exist.
    """
    shown = picture(name, picture_set)
    if colour and (colour not in COLOURS or not shown.colours):
        raise PictureError(f"{name!r} takes no colour {colour!r}")
    if state and state not in shown.states:
        raise PictureError(f"{name!r} has no state {state!r}, only {shown.states}")
    if not 1 <= size <= 2 * MAX_PIXELS:
        raise PictureError(f"{name!r}: size {size!r} is outside [1, {2 * MAX_PIXELS}]")
    state = state or (shown.states[0] if shown.states else "")
    key = (picture_set, name, colour, state, size, round(angle) % 360, mirrored)
    return _small(*key) if size <= _SMALL else _sized(*key)


def _sized(
    picture_set: str, name: str, colour: str, state: str, size: int, angle: int, mirrored: bool
) -> Image.Image:
    side = _master_side(size)
    master = (_master if side == _SMALL_MASTER else _large_master)(
        picture_set, name, colour, state, side
    )
    scale = size / max(master.size)
    shape = (max(1, round(master.width * scale)), max(1, round(master.height * scale)))
    # Premultiplied while resizing, else the colour of transparent pixels bleeds into the edge.
    small = master.convert("RGBa").resize(shape, Image.Resampling.LANCZOS)
    if mirrored and not (picture_set == "photo" and name in photos.WRITTEN):
        small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if angle:
        small = small.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    return small.convert("RGBA")


_small = lru_cache(maxsize=2048)(_sized)


def _master_side(size: int) -> int:
    """At least four times the size asked for, up to what is worth drawing."""
    return _SMALL_MASTER if size <= 64 else 512 if size <= 128 else 1024


def _painted_master(picture_set: str, name: str, colour: str, state: str, side: int) -> Image.Image:
    if picture_set == "photo":
        return photos.load(name, state)
    whole = _painted(name, colour, state, side)
    # All states share one frame, so that a change of state neither moves nor resizes the thing.
    states = picture(name).states or ("",)
    boxes = [_painted(name, colour, other, side).getbbox() for other in states]
    left, top, right, bottom = zip(*(box for box in boxes if box is not None), strict=True)
    return whole.crop((min(left), min(top), max(right), max(bottom)))


_master = lru_cache(maxsize=512)(_painted_master)
_large_master = lru_cache(maxsize=24)(_painted_master)


@lru_cache(maxsize=16)
def _painted(name: str, colour: str, state: str, side: int) -> Image.Image:
    pen = Pen(side)
    PAINTERS[name](pen, COLOURS[colour] if colour else _NATURAL.get(name, _ELSE), state)
    return pen.outlined()
