"""A thing in a scene: where it stands, when it is seen, and what is said of it.

Geometry decides the second in which something is seen: a thing has come in the first second at
whose end at least 60 % of its box lies inside the frame, and is gone in the first at whose end at
most 15 % do. A second's last frame shows its end, so the label can be seen in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from data_pipeline.world.pictures import Picture
from data_pipeline.world.scene import Key, Track
from data_pipeline.world.words import a, capital, listed
from joyvl_train.timeline import Rule

SEEN = 0.6
GONE = 0.15
"""Parts of a thing's box inside the frame from which it has come, and down to which it is gone."""

What = Literal["came", "left", "changed"]


@dataclass(eq=False)
class Actor:
    """A thing in the scene. `came` and `gone` are seconds (`gone` None: it stays to the end);
    `came_at` and `gone_at` the moments inside them. `told`: its colour is part of its name.
    `states` lists (second, moment, state)."""

    picture: Picture
    colour: str
    place: int
    x: float
    y: float
    size: float
    came: int
    came_at: float
    inward: float | None  # speed of coming in, frame sides a second; None: all at once
    mirrored: bool
    told: bool = False
    states: list[tuple[int, float, str]] = field(default_factory=list)
    gone: int | None = None
    gone_at: float = 0.0
    outward: float | None = None
    edge: tuple[int, int] = (0, 0)
    waypoints: list[tuple[float, float, float]] = field(default_factory=list)

    @property
    def noun(self) -> str:
        """Its name, with the colour where that is told."""
        return f"{self.colour} {self.picture.name}" if self.told else self.picture.name

    @property
    def a(self) -> str:
        return a(self.noun, self.picture.article)

    @property
    def facts(self) -> tuple[str, ...]:
        """What must be said to name it: any of its names, and its colour where that is told."""
        named = "|".join(self.picture.names)
        return (self.colour, named) if self.told else (named,)

    def state(self, second: int) -> str:
        """Its state at the end of `second`."""
        return [state for when, _, state in self.states if when <= second][-1]

    def there(self, second: int) -> bool:
        """Whether it is clearly visible at the end of `second`."""
        return self.came <= second and (self.gone is None or second < self.gone)

    def track(self, duration: float) -> Track:
        """Its way through the scene."""
        far_x = -self.size / 2 if self.edge[0] < 0 else 1 + self.size / 2
        far_y = -self.size / 2 if self.edge[1] < 0 else 1 + self.size / 2
        outside = (far_x, self.y) if self.edge[0] else (self.x, far_y)
        path = abs(self.x - outside[0]) + abs(self.y - outside[1])
        start, stop = self.came_at, duration if self.gone is None else self.gone_at
        spots: list[tuple[float, float, float]] = [(start, self.x, self.y)]
        if self.inward is not None:
            start = self.came_at - SEEN * self.size / self.inward
            spots = [(start, *outside), (start + path / self.inward, self.x, self.y)]
        spots += self.waypoints
        if self.gone is not None and self.outward is not None:
            stop = self.gone_at + GONE * self.size / self.outward
            spots += [(stop - path / self.outward, self.x, self.y), (stop, *outside)]
        moments = [t for t, _, _ in spots] + [t for _, t, _ in self.states[1:]]
        times = sorted({round(t, 3) for t in moments})
        keys = []
        for t in times:
            x, y = _between(spots, t)
            state = [s for _, at, s in self.states if at <= t + 5e-4 or at == self.states[0][1]][-1]
            keys.append(Key(t, round(x, 4), round(y, 4), self.size, state=state))
        return Track(
            self.picture.name,
            round(start, 3),
            round(stop, 3),
            tuple(keys),
            colour=self.colour,
            mirrored=self.mirrored,
        )


def _between(spots: Sequence[tuple[float, float, float]], time: float) -> tuple[float, float]:
    before = [spot for spot in spots if spot[0] <= time]
    after = [spot for spot in spots if spot[0] > time]
    if not before or not after:
        return (before[-1] if before else after[0])[1:]
    (t0, x0, y0), (t1, x1, y1) = before[-1], after[0]
    part = (time - t0) / (t1 - t0)
    return x0 + (x1 - x0) * part, y0 + (y1 - y0) * part


@dataclass(frozen=True)
class Entry:
    """One line of the log: in `second`, at the moment `at`, the actor came, left or changed."""

    second: int
    at: float
    what: What
    actor: Actor
    state: str = ""


def appeared(actor: Actor) -> str:
    return f"{capital(actor.a)} appeared."


def left(actor: Actor) -> str:
    return f"The {actor.noun} left."


def is_now(actor: Actor, state: str) -> str:
    return f"The {actor.noun} is {state}."


def seen_now(actors: Sequence[Actor]) -> tuple[str, Rule]:
    """What is in view, as a response and its rule."""
    if not actors:
        return "Nothing.", Rule("key_facts", ("nothing|none|empty",))
    facts = tuple(fact for actor in actors for fact in actor.facts)
    return f"{capital(listed([actor.a for actor in actors]))}.", Rule("key_facts", facts)


def named(actor: Actor, *facts: str) -> Rule:
    """The rule that the actor's name must be said, and the further `facts`."""
    return Rule("key_facts", (*actor.facts, *facts))


def number(value: int) -> Rule:
    return Rule("number", (str(value),))


CAME = "appeared|came|arrived|comes|appears|here|there"
LEFT = "left|gone|leaves|disappeared|away"
