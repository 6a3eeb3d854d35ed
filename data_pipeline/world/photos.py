"""The photographic pictures: which file of the fetched stamps shows what.

The stamps are those of Tux Paint; `python -m data_pipeline.assets photo` fetches them.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from data_pipeline.assets import cache_folder
from joyvl_train.config import UserError

_SEEN = 24
"""Alpha from which on a pixel counts as part of the thing, when empty borders are cut off."""


class PhotoError(UserError):
    """A stamp that isn't in the cache."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One stamp: its names (the first is the one used), and a file for each of its states.

    Files are named below the stamps' folder, without the ending.
    """

    names: tuple[str, ...]
    category: str
    files: tuple[str, ...]
    plural: str
    states: tuple[str, ...] = ()
    article: str = "a"


def _photo(
    names: str, category: str, files: str, plural: str = "", states: str = "", article: str = ""
) -> Photo:
    every = tuple(names.split("|"))
    return Photo(
        every,
        category,
        tuple(files.split()),
        plural or every[0] + "s",
        tuple(states.split()),
        article or ("an" if every[0][0] in "aeio" else "a"),
    )


PHOTOS: tuple[Photo, ...] = (
    _photo("firefighter|fireman", "person", "people/fireman240a"),
    _photo("astronaut|spaceman", "person", "space/spacewalk"),
    _photo("dog|husky", "animal", "animals/mammals/dogs/dog"),
    _photo("horse", "animal", "animals/mammals/equines/horse"),
    _photo("cow", "animal", "animals/mammals/bovines/cow"),
    _photo("sheep", "animal", "animals/mammals/bovines/sheep", "sheep"),
    _photo("elephant", "animal", "animals/mammals/elephant"),
    _photo("giraffe", "animal", "animals/mammals/giraffe"),
    _photo("zebra", "animal", "animals/mammals/equines/zebra"),
    _photo("tiger", "animal", "animals/mammals/cats/tiger"),
    _photo("bear", "animal", "animals/mammals/bears/bear"),
    _photo("rabbit|bunny", "animal", "animals/mammals/rabbit_little"),
    _photo("squirrel", "animal", "animals/mammals/rodents/squirrel"),
    _photo("kangaroo", "animal", "animals/marsupials/kangaroo"),
    _photo("camel", "animal", "animals/mammals/camel/camel"),
    _photo("gorilla|ape", "animal", "animals/mammals/apes/gorilla"),
    _photo("dolphin", "animal", "animals/mammals/aquatic/dolphin"),
    _photo("duck", "animal", "animals/birds/duck"),
    _photo("hen|chicken", "animal", "animals/birds/hen"),
    _photo("owl", "animal", "animals/birds/owl"),
    _photo("penguin", "animal", "animals/birds/penguin"),
    _photo("parrot", "animal", "animals/birds/rainbow-lorikeet"),
    _photo("fish", "animal", "animals/fish/clownfish", "fish"),
    _photo("apple", "food", "food/fruit/apple_red"),
    _photo("banana", "food", "food/fruit/banana"),
    _photo("orange", "food", "food/fruit/orange"),
    _photo("strawberry", "food", "food/fruit/strawberry", "strawberries"),
    _photo("bunch of grapes|grapes", "food", "food/fruit/grapes", "bunches of grapes"),
    _photo("pear", "food", "food/fruit/pear"),
    _photo("lemon", "food", "food/fruit/lemon"),
    _photo("tomato", "food", "food/vegetables/tomato", "tomatoes"),
    _photo("broccoli", "food", "food/vegetables/broccoli", "broccoli", article="some"),
    _photo("pumpkin", "food", "food/vegetables/pumpkin_small"),
    _photo("mushroom", "plant", "food/vegetables/mushroom"),
    _photo("rose|red flower", "plant", "plants/flowers/rose"),
    _photo("daffodil|yellow flower", "plant", "plants/flowers/daffodil"),
    _photo("palm tree|palm", "plant", "plants/trees/liberia-palm"),
    _photo("fire|flame|flames", "danger", "naturalforces/fire"),
    _photo("key", "object", "household/key"),
    _photo("hammer", "object", "household/tools/hammer"),
    _photo("saw", "object", "household/tools/saw"),
    _photo(
        "scissors",
        "object",
        "household/arttools/scissors_small_closed household/arttools/scissors_small_open",
        "scissors",
        "closed open",
        article="some",
    ),
    _photo("toolbox", "object", "household/tools/toolbox", "toolboxes"),
    _photo("cup|mug", "object", "household/dishes/mug"),
    _photo("teapot", "object", "household/dishes/teapot"),
    _photo("light bulb|lightbulb", "object", "household/Lightbulb"),
    _photo("camera", "object", "hobbies/camera_35mm"),
    _photo("guitar", "object", "hobbies/music/string/guitar_classical"),
    _photo("violin", "object", "hobbies/music/string/violin"),
    _photo("drum", "object", "hobbies/music/percussion/drum_tomtom_floor"),
    _photo("trash can|garbage can", "object", "household/garbagecan"),
    _photo("toilet", "object", "household/toilet"),
    _photo("clock", "object", "symbols/clockface"),
    _photo("hat|top hat", "object", "clothes/hats/tophat"),
    _photo("trophy", "object", "sports/trophy_cup", "trophies"),
    _photo("mailbox", "object", "town/usps_mailbox", "mailboxes"),
    _photo("rubber duck", "toy", "household/rubberduck"),
    _photo("teddy bear", "toy", "animals/mammals/bears/toys/edward_bear"),
    _photo("basketball", "toy", "sports/basketball"),
    _photo("soccer ball|football", "toy", "sports/soccer"),
    _photo("tennis ball", "toy", "sports/tennis_ball"),
    _photo("stop sign", "sign", "town/roadsigns/stop"),
    _photo("traffic cone|cone", "sign", "town/roadsigns/traffic_cone"),
    _photo(
        "traffic light|stoplight",
        "sign",
        "town/roadsigns/stoplight_01_red town/roadsigns/stoplight_02_yellow "
        "town/roadsigns/stoplight_03_green",
        states="red yellow green",
    ),
    _photo("flag|red flag", "sign", "town/flags/redflag"),
    _photo("car|automobile", "vehicle", "vehicles/auto/beetle"),
    _photo("sports car", "vehicle", "vehicles/auto/sportscar2"),
    _photo("truck|pickup truck", "vehicle", "vehicles/auto/truck"),
    _photo("fire truck|fire engine", "vehicle", "vehicles/emergency/firetruck"),
    _photo("bus", "vehicle", "vehicles/masstransit/green_korean_bus", "buses"),
    _photo("plane|airplane|aircraft", "vehicle", "vehicles/flight/planes/747"),
    _photo("hot air balloon", "vehicle", "vehicles/flight/balloon360"),
    _photo("tricycle", "vehicle", "vehicles/cycle/pink_tricycle"),
    _photo("boat|sailing ship|ship", "vehicle", "vehicles/ship/chineseJunk"),
    _photo("moon|full moon", "sky", "space/moon/moon_full", article="the"),
    _photo("earth|globe", "sky", "space/planets/3_earth", article="the"),
)

WRITTEN = frozenset(
    ("camera", "clock", "fire truck", "mailbox", "plane", "stop sign", "toolbox"),
)
"""Stamps with letters or digits on them, which are never shown mirrored."""

_BY_NAME = {photo.names[0]: photo for photo in PHOTOS}


def load(name: str, state: str = "") -> Image.Image:
    """The stamp as RGBA, cut to what is visible; `PhotoError` where it wasn't fetched."""
    photo = _BY_NAME[name]
    file = photo.files[photo.states.index(state) if state else 0]
    path = cache_folder() / "photo" / f"{file}.png"
    if not path.is_file():
        raise PhotoError(
            f"the photograph of {name!r} is not in {path.parent}: run "
            "`python -m data_pipeline.assets photo`, or take the drawn pictures"
        )
    with Image.open(path) as opened:
        stamp = opened.convert("RGBA")
    seen = stamp.getchannel("A").point([0] * _SEEN + [255] * (256 - _SEEN))
    return stamp.crop(seen.getbbox())


def available() -> bool:
    """Whether every stamp is in the cache."""
    folder = cache_folder() / "photo"
    return all((folder / f"{file}.png").is_file() for photo in PHOTOS for file in photo.files)
