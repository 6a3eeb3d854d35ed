"""What is seen in each second of a rendered clip, read off its scene: the world's log."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_pipeline.world import scene as world_scene
from data_pipeline.world.pictures import COLOURS, Picture, picture, picture_set
from data_pipeline.world.scene import Scene, Track
from data_pipeline.world.stories.actor import GONE, SEEN
from data_pipeline.world.words import STATES, a
from joyvl_train import content
from joyvl_train.timeline import Timeline


@dataclass(frozen=True)
class Thing:
    """One thing in a clip: it is seen in the seconds [came, gone); its state in each of them."""

    picture: Picture
    colour: str
    came: int
    gone: int
    states: tuple[str, ...]

    @property
    def a(self) -> str:
        noun = f"{self.colour} {self.picture.name}" if self.colour else self.picture.name
        return a(noun, self.picture.article)

    def there(self, second: int) -> bool:
        return self.came <= second < self.gone

    def state(self, second: int) -> str:
        return self.states[second - self.came]


@dataclass(frozen=True)
class Meant:
    """What a text is about: a thing by its names, and its colour, state or going where told."""

    picture: Picture
    colours: frozenset[str] = field(default=frozenset())
    states: frozenset[str] = field(default=frozenset())
    left: bool = False

    def fits(self, thing: Thing) -> bool:
        return thing.picture == self.picture and (not self.colours or thing.colour in self.colours)


class Truth:
    """The things of one clip."""

    def __init__(self, timeline: Timeline) -> None:
        assert timeline.clip.scene is not None
        scene = world_scene.from_json(timeline.clip.scene)
        self.pictures = scene.pictures
        self.seconds = timeline.clip.seconds or 0
        found = [_thing(scene, track, self.seconds) for track in scene.tracks]
        self.things = sorted((t for t in found if t is not None), key=lambda t: (t.came, t.a))

    def meant(self, text: str) -> Meant | None:
        """What a text is about; None where it names no one thing."""
        spoken = []
        for one in picture_set(self.pictures):
            names = [name for name in one.names if content.says(name, text)]
            if names:
                spoken.append((max(names, key=len), one))
        # "traffic light" is no light, "ice cream cone" no traffic cone.
        spoken = [
            (name, one)
            for name, one in spoken
            if not any(name != other and content.says(name, other) for other, _ in spoken)
        ]
        if len(spoken) != 1:
            return None
        words, shown = set(content.tokens(text)), spoken[0][1]
        states = frozenset(words & set(STATES) & set(shown.states))
        colours = frozenset(words & set(COLOURS)) if shown.colours else frozenset()
        return Meant(shown, colours, states, bool(words & {"left", "gone"}))

    def seen(self, text: str, second: int) -> bool:
        """Whether what a text is about is seen in the picture of this second."""
        meant = self.meant(text)
        if meant is None:
            return False
        mine = [thing for thing in self.things if meant.fits(thing)]
        here = [thing for thing in mine if thing.there(second)]
        if meant.left:
            return not here and any(thing.gone <= second for thing in mine)
        return any(not meant.states or thing.state(second) in meant.states for thing in here)

    def first(self, text: str, start: int, stop: int) -> int | None:
        """The first second of [start, stop) in which it is seen."""
        return next((t for t in range(start, stop) if self.seen(text, t)), None)

    def here(self, second: int) -> list[Thing]:
        return [thing for thing in self.things if thing.there(second)]

    def comings(self, text: str, start: int, stop: int) -> list[int]:
        """The seconds of [start, stop) in which one more comes, one entry each."""
        meant = self.meant(text)
        return [t.came for t in self.things if meant and meant.fits(t) and start <= t.came < stop]


def _thing(scene: Scene, track: Track, seconds: int) -> Thing | None:
    came, gone = None, seconds
    states: list[str] = []
    shown = picture(track.picture, scene.pictures)
    for second in range(seconds):
        instant = min(second + 1 - 1e-3, scene.duration - 1e-3)
        key = track.at(instant)
        part = 0.0
        if key is not None:
            half = key.size / 2
            across = min(key.x + half, 1) - max(key.x - half, 0)
            down = min(key.y + half, 1) - max(key.y - half, 0)
            part = max(across, 0) * max(down, 0) / key.size**2
        if came is None and part >= SEEN - 1e-6:
            came = second
        elif came is not None and part <= GONE + 1e-6:
            gone = second
            break
        if came is not None and key is not None:
            states.append(key.state or (shown.states[0] if shown.states else ""))
    if came is None:
        return None
    return Thing(shown, track.colour, came, gone, tuple(states))
