"""What a scene plays before: plain colours, textures, and real moving footage.

Footage is made by `python -m data_pipeline.assets footage`. Nothing stands in for it: where it is
missing `footage_clips()` is empty, and drawing it raises `FootageError`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.assets import cache_folder
from data_pipeline.packages import CLIPS
from data_pipeline.world.keeping import kept
from joyvl_train.config import UserError

Pixels = NDArray[np.uint8]

PLAIN: dict[str, tuple[int, int, int]] = {
    "white": (238, 238, 236),
    "grey": (150, 152, 156),
    "sky": (166, 204, 236),
    "sand": (222, 204, 160),
    "mint": (176, 220, 190),
    "lilac": (202, 188, 226),
    "rose": (232, 190, 194),
    "slate": (86, 98, 118),
    "night": (34, 38, 62),
    "forest": (60, 92, 70),
}
TEXTURES = ("noise", "stripes", "bricks", "checks", "grass", "dots", "wood", "waves")
SPLITS = ("train", "validation", "test")

_TILE = 256
"""Textures are made once at this size, then scaled to the frame, so that they look alike at any."""


class BackgroundError(ValueError):
    """A background that names nothing or is out of bounds."""


class FootageError(BackgroundError, UserError):
    """A clip of footage that isn't in the cache."""


@dataclass(frozen=True, slots=True)
class Background:
    """plain: `name` of `PLAIN`; texture: of `TEXTURES`; footage: of `footage_clips()`.

    `seed` draws its shades, and a clip's crop and mirroring. `motion` moves a texture by so many
    frame heights a second, right and down. `offset` is where footage starts, in seconds.
    """

    kind: Literal["plain", "texture", "footage"]
    name: str
    seed: int = 0
    motion: tuple[float, float] = (0.0, 0.0)
    offset: float = 0.0


def check(background: Background, where: str = "background") -> None:
    """Raise `BackgroundError` where a value is out of bounds. Whether footage is there is asked
    only when it is drawn, so that a script can be read without it."""
    names: dict[str, Any] = {"plain": PLAIN, "texture": TEXTURES}
    if background.kind not in ("plain", "texture", "footage"):
        raise BackgroundError(f"{where}: kind {background.kind!r}")
    if background.kind in names and background.name not in names[background.kind]:
        raise BackgroundError(f"{where}: no {background.kind} {background.name!r}")
    seed = background.seed
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise BackgroundError(f"{where}: seed {seed!r} is no integer in [0, 2**63)")
    if len(background.motion) != 2:
        raise BackgroundError(f"{where}: motion {background.motion!r} is no pair")
    for name, value, most in (
        ("motion", background.motion[0], 10),
        ("motion", background.motion[1], 10),
        ("offset", background.offset, 86400),
    ):
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise BackgroundError(f"{where}: {name} {value!r} is no number")
        if abs(value) > most:
            raise BackgroundError(f"{where}: {name} {value} is past {most}")
    if background.offset < 0:
        raise BackgroundError(f"{where}: offset {background.offset} is negative")


def draw(background: Background, time: float, width: int, height: int) -> Image.Image:
    """The RGB background `time` seconds after it came into view; the caller may draw into it."""
    if background.kind == "footage":
        return _footage(background, time, width, height)
    if background.kind == "plain":
        return _plain(background.name, background.seed, width, height).copy()
    sheet = _sheet(background.name, background.seed, width, height)
    left = round(-background.motion[0] * time * height) % height
    top = round(-background.motion[1] * time * height) % height
    return sheet.crop((left, top, left + width, top + height))


@kept(64)
def _plain(name: str, seed: int, width: int, height: int) -> Image.Image:
    """A soft gradient in a drawn direction."""
    draws = np.random.default_rng([seed, 1])
    angle = draws.uniform(0, 2 * math.pi)
    depth = draws.uniform(0, 34)
    y, x = np.mgrid[0:height, 0:width]
    slope = (x / width - 0.5) * math.cos(angle) + (y / height - 0.5) * math.sin(angle)
    tone = np.array(PLAIN[name]) + draws.integers(-12, 13, 3)
    return Image.fromarray(_bytes(tone + depth * slope[..., None]))


def _bytes(values: NDArray[Any]) -> Pixels:
    clipped: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return clipped


@kept(32)
def _sheet(name: str, seed: int, width: int, height: int) -> Image.Image:
    """The periodic tile, as high as the frame, repeated so far that every offset can be cropped."""
    tile = Image.fromarray(_tile(name, seed)).resize((height, height), Image.Resampling.BICUBIC)
    sheet = Image.new("RGB", (width + height, 2 * height))
    for left in range(0, width + height, height):
        for top in (0, height):
            sheet.paste(tile, (left, top))
    return sheet


def _tile(name: str, seed: int) -> Pixels:
    """A `[256, 256, 3]` texture that repeats without a seam."""
    draws = np.random.default_rng([seed, 2])
    y, x = np.mgrid[0:_TILE, 0:_TILE]
    base = draws.integers(70, 190) + draws.integers(-28, 29, 3)
    other = base + draws.choice([-1, 1]) * draws.integers(22, 46) + draws.integers(-8, 9, 3)
    grain = draws.normal(0, 5, (_TILE, _TILE, 1))
    count = int(draws.choice([4, 8, 16]))
    part: NDArray[Any]
    if name == "noise":
        part = _clouds(draws)
    elif name == "stripes":
        slant = int(draws.integers(-2, 3))
        part = 0.5 + 0.5 * np.sin(2 * math.pi * (count * x + slant * count * y) / _TILE)
    elif name == "checks":
        part = ((x * count // _TILE + y * count // _TILE) % 2).astype(float)
    elif name == "bricks":
        row = y * 8 // _TILE
        shifted = (x + (row % 2) * _TILE // 8) % _TILE
        joint = ((y * 8) % _TILE < 18) | ((shifted * 4) % _TILE < 10)
        tones = draws.uniform(0.3, 1, (8, 4))
        part = np.where(joint, 0.0, tones[row, shifted * 4 // _TILE])
    elif name == "grass":
        base, other = np.array([70, 124, 56]), np.array([112, 168, 84])
        blades = draws.uniform(0, 1, (_TILE, _TILE))
        part = np.mean([np.roll(blades, step, 0) for step in range(12)], axis=0) * 3 - 1
    elif name == "dots":
        near_x = (x * count % _TILE) / _TILE - 0.5
        near_y = (y * count % _TILE) / _TILE - 0.5
        part = (near_x**2 + near_y**2 < 0.07).astype(float)
    elif name == "wood":
        base, other = np.array([176, 128, 80]), np.array([140, 96, 56])
        wave = 10 * np.sin(2 * math.pi * x / _TILE + draws.uniform(0, 6))
        part = 0.5 + 0.5 * np.sin(2 * math.pi * 9 * (y + wave) / _TILE) * (
            0.6 + 0.4 * _clouds(draws)
        )
    elif name == "waves":
        base, other = np.array([60, 112, 160]), np.array([112, 164, 200])
        swell = 7 * np.sin(2 * math.pi * 3 * x / _TILE)
        part = 0.5 + 0.5 * np.sin(2 * math.pi * 10 * (y + swell) / _TILE)
    else:
        raise BackgroundError(f"no texture {name!r}")
    return _bytes(base + (other - base) * np.asarray(part)[..., None] + grain)


def _clouds(draws: np.random.Generator) -> NDArray[np.float64]:
    """Periodic noise of several scales in about [0, 1], `[256, 256]`."""
    total = np.zeros((_TILE, _TILE))
    for side, weight in ((4, 0.5), (8, 0.3), (32, 0.2)):
        coarse = Image.fromarray(
            np.tile(draws.uniform(0, 1, (side, side)), (3, 3)).astype(np.float32)
        )
        fine = np.asarray(coarse.resize((3 * _TILE, 3 * _TILE), Image.Resampling.BICUBIC))
        total += weight * fine[_TILE : 2 * _TILE, _TILE : 2 * _TILE]
    return total


@lru_cache(maxsize=8)
def noise_bank(height: int, width: int, deviation: float) -> NDArray[np.int16]:
    """Sensor noise `[height, width, 3]`, of which each frame takes a crop of its own."""
    draws = np.random.default_rng([height, width])
    return np.rint(draws.normal(0, 255 * deviation, (height, width, 3))).astype(np.int16)


def footage_clips(split: str | None = None) -> list[str]:
    """The clips in the cache, by name, of one split ("train", "validation", "test") or of all.

    Empty where none was fetched: callers then take textures, and say so.
    """
    if split is not None and split not in SPLITS:
        raise BackgroundError(f"split {split!r} is none of {SPLITS}")
    found = sorted(path.parent.name for path in _footage_folder().glob("*/clip.json"))
    folder = str(_footage_folder())
    return [name for name in found if split in (None, _clip(folder, name)["split"])]


def footage_shows(name: str) -> tuple[str, ...]:
    """The names of pictures that this clip itself shows at times, of both sets.

    No stream before it may be labelled as having none of them, nor count them.
    """
    return next((clip.shows for clip in CLIPS if clip.name == name), ())


def _footage_folder() -> Path:
    return cache_folder() / "footage"


@lru_cache(maxsize=64)
def _clip(folder: str, name: str) -> dict[str, Any]:
    path = Path(folder) / name / "clip.json"
    if not path.is_file():
        raise FootageError(
            f"footage {name!r} is not in {folder}: run `python -m data_pipeline.assets footage`, "
            "or choose a texture"
        )
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def _footage(background: Background, time: float, width: int, height: int) -> Image.Image:
    """The clip's frame of that moment; past its end it runs backwards, so that nothing jumps."""
    folder = str(_footage_folder())
    clip = _clip(folder, background.name)
    last = int(clip["frames"]) - 1
    step = int((background.offset + time) * float(clip["rate"])) % max(1, 2 * last)
    index = step if step <= last else 2 * last - step
    return _footage_frame(folder, background.name, index, background.seed, width, height).copy()


@kept(64)
def _footage_frame(
    folder: str, name: str, index: int, seed: int, width: int, height: int
) -> Image.Image:
    """A crop of the frame, of the wanted shape, by the seed zoomed up to 1.4 times and mirrored."""
    draws = np.random.default_rng([seed, 3])
    zoom, across, down = 1 + 0.4 * draws.random(), draws.random(), draws.random()
    mirrored = draws.random() < 0.5
    with Image.open(Path(folder) / name / f"{index:05d}.jpg") as whole:
        whole.draft("RGB", (round(width * zoom), round(height * zoom)))
        scale = min(whole.width / width, whole.height / height) / zoom
        wide, high = width * scale, height * scale
        left, top = across * (whole.width - wide), down * (whole.height - high)
        frame = whole.convert("RGB").resize(
            (width, height), Image.Resampling.BILINEAR, (left, top, left + wide, top + high)
        )
    return frame.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else frame
