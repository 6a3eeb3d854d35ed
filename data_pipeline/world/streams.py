"""Streams of the rendered world: an exactly labelled timeline from a few plain arguments.

    timeline = stream("alerting", seed=7, split="train")
    frames = WorldFrames(timeline, size=64)

Equal arguments give equal timelines in every process. Training, validation and test differ by seed
and by composition (`data_pipeline.world.splits`); the families "screens" and "cadence" exist in the
test split only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from PIL import Image

from data_pipeline.world import scene as world_scene
from data_pipeline.world.backgrounds import FootageError, footage_clips
from data_pipeline.world.languages import LINES, ROMANIZED, WORDS
from data_pipeline.world.pictures import (
    COLOURS,
    PictureSet,
    PictureSets,
    picture_set,
    sets_of,
)
from data_pipeline.world.splits import Split, check_split
from data_pipeline.world.stories import (
    alerting,
    backdrop,
    chat,
    commentary,
    counting,
    delegation,
    procedure,
    qa,
    recall,
    screens,
    translation,
)
from data_pipeline.world.stories.draft import Clash, Draft, Kind, stateful
from data_pipeline.world.words import a, plural
from joyvl_train.timeline import Timeline

STORIES: dict[str, dict[str, Kind]] = {
    "alerting": alerting.KINDS,
    "qa": qa.KINDS,
    "counting": counting.KINDS,
    "commentary": commentary.KINDS,
    "chat": chat.KINDS,
    "delegation": delegation.KINDS,
    "translation": translation.KINDS,
    "recall": recall.KINDS,
    "procedure": procedure.KINDS,
    "screens": screens.KINDS,
    "cadence": commentary.CADENCE,
}
"""Family -> its kinds."""

HELD_OUT = ("screens", "cadence")
"""Families of the test split alone."""

FAMILIES = tuple(name for name in STORIES if name not in HELD_OUT)
"""Families of every split, the default mix."""

SECONDS = (12, 32)
"""Bounds of a stream's length where none is asked for."""

BACKGROUNDS = ("plain", "texture")

_TRIES = 400


def kinds(family: str, pictures: PictureSet = "drawn") -> tuple[str, ...]:
    """The kinds of `family` that can be told with this picture set."""
    if family not in STORIES:
        raise ValueError(f"family {family!r} is none of {', '.join(STORIES)}")
    things = picture_set(pictures)
    offered = {
        # With fewer than three, some split has no composition of its own.
        "states": len(stateful(things)) >= 3,
        "switches": {thing for thing, _ in procedure.VERBS} <= {p.name for p in things},
        "colours": any(p.colours for p in things),
        "jumpers": any(p.name in counting.JUMPERS for p in things),
    }
    return tuple(k for k, kind in STORIES[family].items() if all(offered[n] for n in kind.needs))


def stream(
    family: str,
    seed: int,
    split: Split,
    *,
    pictures: PictureSet = "drawn",
    kind: str | None = None,
    seconds: int | None = None,
    frames_per_second: float = 1.0,
    backgrounds: Sequence[str] | Mapping[str, float] = BACKGROUNDS,
) -> Timeline:
    """One stream: `clip.scene` is its script, `events` what is asked and due.

    kind: one of `kinds(family)`, drawn by weight where None. seconds: the length, 8 or more; drawn
    from `SECONDS` where None. backgrounds: kinds of background ("plain", "texture", "footage") with
    equal or given weights; nothing that claims to be all there is to see is told before footage.
    Raises `ValueError` for what doesn't exist.
    """
    check_split(split)
    offered = kinds(family, pictures)
    if family in HELD_OUT and split != "test":
        raise ValueError(
            f"family {family!r} is held out of the split {split!r}; it is in test only"
        )
    if kind is not None and kind not in offered:
        raise ValueError(f"kind {kind!r} is none of {', '.join(offered)} of {family!r}")
    if seconds is not None and (isinstance(seconds, bool) or not 8 <= seconds <= 3600):
        raise ValueError(f"seconds {seconds!r}: a stream has 8 to 3600")
    if frames_per_second != int(frames_per_second) or not 1 <= frames_per_second <= 60:
        raise ValueError(f"frames_per_second {frames_per_second!r}: a whole number from 1 to 60")
    weights = _weights(backgrounds, split)
    if kind is None and set(weights) == {"footage"}:
        # Where none is left, the family itself is refused below.
        offered = tuple(k for k in offered if not STORIES[family][k].all_seen) or offered
    key = f"{family}/{kind}/{split}/{seed}/{pictures}/{seconds}"
    rng = random.Random(key)
    if kind is None:
        kind = rng.choices(offered, [STORIES[family][k].weight for k in offered])[0]
    clip_id = f"world-{pictures}-{split}-{family}-{kind}-{seed}"
    # The story is the same before any background but footage, which shows things of its own.
    if STORIES[family][kind].all_seen:
        weights = _without_footage(weights, f"{family}/{kind}")
    background = backdrop.choose(random.Random(f"{key}/background"), weights, split)
    for attempt in range(_TRIES):
        rng = random.Random(f"{key}/{kind}/{attempt}")
        length = rng.randint(*SECONDS) if seconds is None else seconds
        draft = Draft(rng, split, length, pictures, background)
        try:
            STORIES[family][kind].write(draft)
        except Clash:
            continue
        return draft.timeline(family, kind, clip_id, float(frames_per_second))
    raise ValueError(
        f"no stream of {family}/{kind} in {seconds} seconds with {pictures} pictures, {split} split"
    )


def streams(
    split: Split,
    seed: int,
    count: int,
    mix: Sequence[str] | Mapping[str, float] = FAMILIES,
    pictures: PictureSets = "drawn",
    *,
    seconds: int | None = None,
    frames_per_second: float = 1.0,
    backgrounds: Sequence[str] | Mapping[str, float] = BACKGROUNDS,
) -> Iterator[Timeline]:
    """`count` streams, families by `mix` (names, or name -> weight) in about equal spacing.

    Of "both" sets of pictures, a round of families is told with the one, the next with the other.
    The first n of a longer call are those of a shorter one. Streams of different `seed` differ.
    """
    shares = dict(mix) if isinstance(mix, Mapping) else dict.fromkeys(mix, 1.0)
    total = sum(shares.values())
    if not shares or total <= 0 or min(shares.values()) < 0:
        raise ValueError(f"mix {mix!r} has no weight to draw by")
    owed = dict.fromkeys(shares, 0.0)
    sets = sets_of(pictures)
    for i in range(count):
        for family, share in shares.items():
            owed[family] += share / total
        family = max(owed, key=lambda name: owed[name])
        owed[family] -= 1
        yield stream(
            family,
            seed * 1_000_003 + i,
            split,
            pictures=sets[i // len(shares) % len(sets)],
            seconds=seconds,
            frames_per_second=frames_per_second,
            backgrounds=backgrounds,
        )


def _weights(backgrounds: Sequence[str] | Mapping[str, float], split: Split) -> dict[str, float]:
    given = (
        dict(backgrounds) if isinstance(backgrounds, Mapping) else dict.fromkeys(backgrounds, 1.0)
    )
    known = ("plain", "texture", "footage")
    for name, weight in given.items():
        if name not in known or weight < 0:
            raise ValueError(f"backgrounds: {name!r} with weight {weight!r}; known are {known}")
    if sum(given.values()) <= 0:
        raise ValueError("backgrounds: none has a weight")
    if given.get("footage") and not footage_clips(split):
        raise FootageError(
            f"backgrounds: no footage of the split {split!r} in the cache: run "
            "`python -m data_pipeline.assets footage`, or leave footage out (data.footage=false)"
        )
    return {name: weight for name, weight in given.items() if weight}


def _without_footage(weights: dict[str, float], told: str) -> dict[str, float]:
    rest = {name: weight for name, weight in weights.items() if name != "footage"}
    if not rest:
        raise ValueError(
            f"backgrounds: {told} tells of all that is seen, and footage shows things of its own; "
            "name plain or texture as well"
        )
    return rest


class WorldFrames:
    """The frames of a timeline whose clip is a scene, by second; `size` in pixels, (width, height)
    or one side of a square."""

    def __init__(self, timeline: Timeline, size: int | tuple[int, int]) -> None:
        if timeline.clip.scene is None:
            raise ValueError(f"clip {timeline.clip.id!r} has no scene")
        self._scene = world_scene.from_json(timeline.clip.scene)
        self._size = (size, size) if isinstance(size, int) else size
        self._rate = int(timeline.frames_per_second)
        self.seconds = timeline.clip.seconds or 0

    def sizes(self, second: int) -> tuple[tuple[int, int], ...]:
        """(width, height) of what `frames` gives; nothing is drawn for it."""
        return (self._size,) * self._rate

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        """The frames of second t: number i shows the last instant before t + (i + 1) / rate."""
        if not 0 <= second < self.seconds:
            raise ValueError(f"second {second} of a clip of {self.seconds}")
        times = frame_times(self._rate, self._scene.duration, second)
        return tuple(world_scene.draw(self._scene, t, *self._size) for t in times)


def frame_times(rate: int, duration: float, second: int) -> list[float]:
    """When each of a second's frames is taken: the last instant before its share of it is over."""
    return [min(second + (i + 1) / rate, duration) - 1e-3 for i in range(rate)]


def texts(seed: int) -> Iterator[str]:
    """Endless text for a tokenizer: names, numbers, instructions, responses, memory."""
    for pictures in ("drawn", "photo"):
        for thing in picture_set(pictures):
            for name in thing.names:
                yield f"{a(name, thing.article)}, the {name}, {plural(name)}"
    yield from COLOURS
    yield from (f"{foreign}: {english}" for (_, foreign), english in (WORDS | LINES).items())
    yield from (f"{word} {roman} {english}" for (_, word), (roman, english) in ROMANIZED.items())
    yield from map(str, range(1000))
    rng = random.Random(f"texts/{seed}")
    while True:
        timeline = stream(rng.choice(FAMILIES), rng.randrange(10**9), "train")
        if timeline.opening:
            yield timeline.opening
        for event in timeline.events:
            yield event.text
            if event.question:
                yield event.question
