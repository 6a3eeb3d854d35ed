"""The script of a rendered stream as plain data, and the frame of each moment.

A scene is resolution independent: x is relative to the frame's width, y and size to its height, so
that one script is drawn at 64x64 for a small model and at 640x480 for people. A scene holds its
own seed and names everything it shows; equal scenes give equal bytes in every process.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from data_pipeline.world import backgrounds, captions, pictures
from data_pipeline.world.backgrounds import Background
from data_pipeline.world.captions import Caption

MAX_SIDE = 4096
MAX_SECONDS = 24 * 3600
MAX_CUTS = 4096
MAX_TRACKS = 4096
MAX_KEYS = 16384
MAX_CAPTIONS = 4096

_NOISE_MARGIN = 64
"""The bank of noise is larger than the frame by this much; each frame takes its own crop of it."""


class SceneError(ValueError):
    """A scene that can't be drawn; the message names the value and where it stands."""


@dataclass(frozen=True, slots=True)
class Key:
    """Where a picture is at `time` (seconds): centre, larger side, degrees counterclockwise.

    `state` is one of the picture's states ("" is its first) and holds from this key on.
    """

    time: float
    x: float
    y: float
    size: float
    angle: float = 0.0
    state: str = ""


@dataclass(frozen=True, slots=True)
class Track:
    """One picture on its way through the scene; seen in [start, stop) and nowhere else.

    Between keys position, size and angle move linearly; before the first and after the last key
    they rest. Drawn pictures face right; `mirrored` turns them left. Higher `z` is nearer.
    """

    picture: str
    start: float
    stop: float
    keys: tuple[Key, ...]
    colour: str = ""
    z: int = 0
    mirrored: bool = False

    def at(self, time: float) -> Key | None:
        """The interpolated key of this moment; None where the picture isn't there."""
        if not self.start <= time < self.stop:
            return None
        after = bisect_right(self.keys, time, key=lambda key: key.time)
        if after == 0:
            return self.keys[0]
        before = self.keys[after - 1]
        if after == len(self.keys):
            return before
        following = self.keys[after]
        part = (time - before.time) / (following.time - before.time)

        def between(a: float, b: float) -> float:
            return a + (b - a) * part

        return Key(
            time,
            between(before.x, following.x),
            between(before.y, following.y),
            between(before.size, following.size),
            between(before.angle, following.angle),
            before.state,
        )


@dataclass(frozen=True, slots=True)
class Cut:
    """From `start` seconds on the scene plays before this background."""

    start: float
    background: Background


@dataclass(frozen=True, slots=True)
class Scene:
    """A stream of `duration` seconds. Pictures are of the set `pictures`, "drawn" or "photo".

    The first cut starts at 0. `noise` is the standard deviation of the sensor's noise and `drift`
    the amplitude of the slow change of brightness, both as parts of full white.
    """

    width: int
    height: int
    duration: float
    seed: int
    cuts: tuple[Cut, ...]
    tracks: tuple[Track, ...] = ()
    captions: tuple[Caption, ...] = ()
    pictures: Literal["drawn", "photo"] = "drawn"
    noise: float = 0.0
    drift: float = 0.0

    def __post_init__(self) -> None:
        check(self)

    def frame(
        self, time: float, width: int | None = None, height: int | None = None
    ) -> Image.Image:
        """The RGB picture at `time` seconds, at the scene's size or another one."""
        return draw(self, time, width, height)

    def visible(self, time: float) -> list[tuple[Track, Key]]:
        """What is there at `time` and where, farthest first; parts may lie outside the frame."""
        seen = [(track, key) for track in self.tracks if (key := track.at(time)) is not None]
        return sorted(seen, key=lambda item: item[0].z)


def check(scene: Scene) -> None:
    """Raise `SceneError` where a value is out of bounds or names nothing."""
    for name, side in (("width", scene.width), ("height", scene.height)):
        _side(name, side)
    _between("duration", scene.duration, 1e-3, MAX_SECONDS)
    _between("noise", scene.noise, 0, 0.5)
    _between("drift", scene.drift, 0, 0.5)
    if (
        isinstance(scene.seed, bool)
        or not isinstance(scene.seed, int)
        or not 0 <= scene.seed < 2**63
    ):
        raise SceneError(f"scene: seed {scene.seed!r} is no integer in [0, 2**63)")
    if scene.pictures not in pictures.SETS:
        raise SceneError(f"scene: pictures {scene.pictures!r} is none of {pictures.SETS}")
    for what, items, most in (
        ("cuts", scene.cuts, MAX_CUTS),
        ("tracks", scene.tracks, MAX_TRACKS),
        ("captions", scene.captions, MAX_CAPTIONS),
    ):
        if len(items) > most:
            raise SceneError(f"scene: {len(items)} {what}, at most {most}")
    if not scene.cuts or scene.cuts[0].start != 0:
        raise SceneError("scene: the first cut must start at 0")
    for i, cut in enumerate(scene.cuts):
        _between(f"cut {i}: start", cut.start, 0, MAX_SECONDS)
        if i and cut.start <= scene.cuts[i - 1].start:
            raise SceneError(f"cut {i}: start {cut.start} does not grow")
        backgrounds.check(cut.background, f"cut {i}")
    for i, caption in enumerate(scene.captions):
        captions.check(caption, f"caption {i}")
    for i, track in enumerate(scene.tracks):
        _check_track(track, f"track {i} ({track.picture!r})", scene.pictures)


def _check_track(track: Track, where: str, picture_set: str) -> None:
    shown = pictures.picture(track.picture, picture_set)
    if track.colour and (not shown.colours or track.colour not in pictures.COLOURS):
        raise SceneError(f"{where}: takes no colour {track.colour!r}")
    _between(f"{where}: start", track.start, -MAX_SECONDS, MAX_SECONDS)
    _between(f"{where}: stop", track.stop, track.start, MAX_SECONDS)
    if not 1 <= len(track.keys) <= MAX_KEYS:
        raise SceneError(f"{where}: {len(track.keys)} keys, wanted 1 to {MAX_KEYS}")
    for i, key in enumerate(track.keys):
        at = f"{where}: key {i}"
        _between(f"{at}: time", key.time, -MAX_SECONDS, MAX_SECONDS)
        _between(f"{at}: x", key.x, -4, 5)
        _between(f"{at}: y", key.y, -4, 5)
        _between(f"{at}: size", key.size, 0.005, 2)
        _between(f"{at}: angle", key.angle, -36000, 36000)
        if key.state and key.state not in shown.states:
            raise SceneError(f"{at}: state {key.state!r} is none of {shown.states}")
        if i and key.time <= track.keys[i - 1].time:
            raise SceneError(f"{at}: time {key.time} does not grow")


def _side(name: str, side: int) -> None:
    if isinstance(side, bool) or not isinstance(side, int) or not 16 <= side <= MAX_SIDE:
        raise SceneError(f"scene: {name} {side!r} is no integer in [16, {MAX_SIDE}]")


def _between(what: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SceneError(f"{what} {value!r} is no number")
    if not low <= value <= high:
        raise SceneError(f"{what} {value} is outside [{low}, {high}]")


def draw(
    scene: Scene, time: float, width: int | None = None, height: int | None = None
) -> Image.Image:
    """The RGB frame of `scene` at `time` seconds, `width` x `height` pixels (default: the scene's).

    Raises `SceneError` for a time outside [0, duration) or a size out of bounds, and
    `backgrounds.FootageError` where the scene plays before footage that isn't there.
    """
    width = scene.width if width is None else width
    height = scene.height if height is None else height
    _side("width", width)
    _side("height", height)
    if not 0 <= time < scene.duration:
        raise SceneError(f"scene: time {time!r} is outside [0, {scene.duration})")
    cut = scene.cuts[bisect_right(scene.cuts, time, key=lambda cut: cut.start) - 1]
    frame = backgrounds.draw(cut.background, time - cut.start, width, height)
    for track, key in scene.visible(time):
        pixels = max(2, round(key.size * height))
        sprite = pictures.sprite(
            track.picture,
            pixels,
            colour=track.colour,
            state=key.state,
            angle=key.angle,
            mirrored=track.mirrored,
            picture_set=scene.pictures,
        )
        left = round(key.x * width - sprite.width / 2)
        top = round(key.y * height - sprite.height / 2)
        frame.paste(sprite, (left, top), sprite)
    for caption in scene.captions:
        if caption.start <= time < caption.stop:
            captions.draw(caption, frame)
    return _sensor(scene, time, frame)


def frames(
    scene: Scene, rate: float, width: int | None = None, height: int | None = None
) -> Iterator[Image.Image]:
    """The frames of the whole scene at `rate` a second: frame i shows the moment i / rate."""
    for i in range(math.ceil(scene.duration * rate - 1e-6)):
        yield draw(scene, i / rate, width, height)


def _sensor(scene: Scene, time: float, frame: Image.Image) -> Image.Image:
    """The frame as a camera saw it: brightness that drifts over tens of seconds, then noise."""
    if not scene.noise and not scene.drift:
        return frame
    values = np.asarray(frame, dtype=np.int16)
    if scene.drift:
        phase = (scene.seed % 997) / 997
        values = values + round(255 * scene.drift * math.sin(2 * math.pi * (time / 37 + phase)))
    if scene.noise:
        height, width = values.shape[:2]
        bank = backgrounds.noise_bank(height + _NOISE_MARGIN, width + _NOISE_MARGIN, scene.noise)
        draws = np.random.default_rng([scene.seed, round(time * 1000)])
        top, left = draws.integers(0, _NOISE_MARGIN, 2)
        values = values + bank[top : top + height, left : left + width]
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def to_json(scene: Scene) -> dict[str, Any]:
    """Plain data for a JSON line; `from_json` reads it back to an equal scene."""
    return asdict(scene)


def from_json(data: Mapping[str, Any]) -> Scene:
    """The scene of plain data; `SceneError` where it isn't one."""
    try:
        rest = {k: v for k, v in data.items() if k not in ("cuts", "tracks", "captions")}
        cuts = []
        for item in data["cuts"]:
            background = dict(item["background"])
            background["motion"] = tuple(background.get("motion", (0.0, 0.0)))
            cuts.append(Cut(item["start"], Background(**background)))
        tracks = []
        for item in data.get("tracks", ()):
            plain = {k: v for k, v in item.items() if k != "keys"}
            tracks.append(Track(keys=tuple(Key(**key) for key in item["keys"]), **plain))
        texts = tuple(Caption(**item) for item in data.get("captions", ()))
        return Scene(cuts=tuple(cuts), tracks=tuple(tracks), captions=texts, **rest)
    except (KeyError, TypeError, AttributeError) as error:
        raise SceneError(f"no scene: {type(error).__name__}: {error}") from error
