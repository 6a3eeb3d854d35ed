"""The turn-based pool: frames, a question and its answer, with exact labels from the renderer.

It teaches to see, name, count, read, compare, to use memory text and to speak, and nothing of
when. Answers follow from question and frames alone: a thing that comes in several colours always
has one of its own where colours are said.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from PIL import Image

from data_pipeline.world import (
    languages,
    stills_binding,
    stills_recall,
    stills_several,
    stills_single,
    stills_text,
    stills_watch,
)
from data_pipeline.world.pictures import (
    COLOURS,
    SETS,
    PictureSet,
    PictureSets,
    picture_set,
    sets_of,
)
from data_pipeline.world.scene import Scene
from data_pipeline.world.splits import Split, allowed, check_split
from data_pipeline.world.stills_sketch import Clash, Sketch, Thing, tells_states
from data_pipeline.world.stills_wordings import CHAT, QUESTIONS, WITH_COLOURS
from joyvl_train.timeline import Rule

KINDS = {
    **stills_single.KINDS,
    **stills_binding.KINDS,
    **stills_several.KINDS,
    **stills_recall.KINDS,
    **stills_text.KINDS,
    **stills_watch.KINDS,
}
"""Kind -> the function that writes a sample of it."""

_COLOURED = ("colours", "colour")
_STATED = ("state",)
_TRIES = 2000

_SEASON = 512
_SEASON_TEXTURES = 3
"""A texture costs ten times what a frame does: so many samples in a row share so many seeds of
each texture, which the renderer then finds in its cache; the next ones get fresh ones."""

MIX: Mapping[str, float] = {
    "name": 8,
    "name_all": 8,
    "describe": 16,
    "colours": 5,
    "colour": 2,
    "state": 4,
    "where": 5,
    "count": 8,
    "count_all": 4,
    "is_there": 8,
    "compare": 2,
    "beside": 2,
    "read": 6,
    "translate": 4,
    "language": 0.5,
    "happened": 4,
    "summarize": 4,
    "new": 2,
    "missing": 1.5,
    "which": 2,
    "each": 4,
    "checklist": 6,
    "pick": 4,
    "different": 1.5,
    "order": 2,
    "recall": 6,
    "recall_list": 4,
    "recall_talk": 8,
    "background": 2,
    "repeat": 4,
    "digits": 3,
    "follow_up": 1.5,
    "chat": 0.5,
    "watch": 6,
}
"""Shares of the kinds where none are given: those whose answers hold many facts weigh most."""

BINDING_MIX: Mapping[str, float] = MIX | {
    "name": 2,
    "name_all": 3,
    "describe": 5,
    "colours": 2,
    "colour": 1,
    "state": 2,
    "where": 8,
    "count": 10,
    "count_all": 8,
    "is_there": 12,
    "beside": 3,
    "read": 10,
    "happened": 6,
    "summarize": 5,
    "new": 3,
    "missing": 3,
    "which": 6,
    "each": 10,
    "checklist": 12,
    "pick": 12,
    "order": 3,
    "recall": 8,
    "recall_list": 3,
    "recall_talk": 14,
    "translate": 8,
    "repeat": 6,
    "background": 3,
    "digits": 5,
    "watch": 24,
}
"""Shares for a model that names what it sees: most of them bind a given name to it."""


@dataclass(frozen=True)
class Still:
    """One sample: the frames at `times` (seconds) of `scenes`, a scene a frame; a question; its
    answer, without a control token, and the rule that judges one.

    `context` holds lines that go before the question: memory text in the form of
    `joyvl_train.memory`, or, of the kind "background", the turn's background lines,
    "[Background n] digest". `things` are those that the scene shows, `compositions` what the
    sample joins (`splits.composition`), `sought` the pictures that the question names, each with
    the colour that it says, if any. `before` holds the answers to the frames before the last, where
    each is a turn of its own, and `further` what the frames after the first are asked, where they
    are not asked the same.
    """

    scenes: tuple[Scene, ...]
    times: tuple[float, ...]
    question: str
    answer: str
    rule: Rule
    kind: str
    context: str = ""
    things: tuple[Thing, ...] = ()
    compositions: tuple[str, ...] = ()
    sought: tuple[tuple[str, str], ...] = ()
    before: tuple[str, ...] = ()
    further: tuple[str, ...] = ()

    def frames(self, size: int) -> tuple[Image.Image, ...]:
        """The RGB frames, `size` x `size` pixels each."""
        return tuple(
            scene.frame(time, size, size)
            for scene, time in zip(self.scenes, self.times, strict=True)
        )


@dataclass(frozen=True)
class Pool:
    """What a stage of training draws from: shares of kinds, and kinds of background."""

    mix: Mapping[str, float]
    backgrounds: tuple[str, ...]


@lru_cache(maxsize=8)
def kinds(pictures: PictureSet = "drawn") -> tuple[str, ...]:
    """The kinds that this set of pictures has the colours and states for."""
    every = picture_set(pictures)
    lacking: tuple[str, ...] = ()
    if not any(p.colours for p in every):
        lacking += _COLOURED
    if not any(tells_states(p) for p in every):
        lacking += _STATED
    return tuple(kind for kind in KINDS if kind not in lacking)


def pool(stage: Literal["early", "middle", "late", "binding"]) -> Pool:
    """The curriculum: first names before plain colours, and to say again what was said; then all of
    a frame, then everything; "binding" is for a model that has been through these.

    A run takes the stages one after the other by share of its steps; footage, where there is any,
    is for the caller to add to `backgrounds`.
    """
    if stage == "early":
        first = ("name", "name_all", "describe", "colours", "colour", "repeat")
        return Pool({kind: MIX[kind] for kind in first}, ("plain",))
    if stage == "middle":
        middle = (*stills_single.KINDS, *stills_recall.KINDS, *stills_text.KINDS)
        return Pool({kind: MIX[kind] for kind in middle}, ("plain", "texture"))
    if stage == "late":
        return Pool(MIX, ("plain", "texture", "texture"))
    if stage == "binding":
        return Pool(BINDING_MIX, ("plain", "texture", "texture"))
    raise ValueError(f"stage {stage!r} is none of early, middle, late, binding")


def still(
    seed: int | str,
    split: Split,
    *,
    kind: str | None = None,
    pictures: PictureSet = "drawn",
    backgrounds: Sequence[str] = ("plain", "texture"),
    textures: Sequence[int] | None = None,
) -> Still:
    """The sample of this seed, the same in every process.

    kind: one of `kinds(pictures)`; None draws one by `MIX`. backgrounds: of "plain", "texture",
    "footage", drawn evenly. textures: the seeds of textures to draw from; None draws any.

    Splits differ by seed and by composition: a training sample holds training's compositions only,
    a held-out one at least one of its own split. Raises `ValueError` for an unknown split, kind or
    background, and `FootageError` where footage is wanted and not there.
    """
    check_split(split)
    known = kinds(pictures)
    if kind is not None and kind not in known:
        raise ValueError(f"kind {kind!r} is none of {', '.join(known)} ({pictures} pictures)")
    if not backgrounds:
        raise ValueError("backgrounds: none are given")
    chosen = kind
    if chosen is None:
        shares = [MIX[each] for each in known]
        chosen = random.Random(f"kind | {split} | {seed}").choices(known, shares)[0]
    for attempt in range(_TRIES):
        rng = random.Random(f"{chosen} | {split} | {seed} | {attempt}")
        sketch = Sketch(rng, split, pictures, backgrounds, textures)
        try:
            KINDS[chosen](sketch)
        except Clash:
            continue
        if all(allowed(key, split) for key in sketch.compositions) and (
            split == "train" or sketch.own
        ):
            return Still(
                sketch.scenes,
                sketch.times,
                sketch.question,
                sketch.answer,
                sketch.rule,
                chosen,
                sketch.context,
                sketch.things,
                tuple(sketch.compositions),
                sketch.sought,
                sketch.before,
                sketch.further,
            )
    raise ValueError(f"no sample of kind {chosen!r} in {_TRIES} tries: {split}, {pictures}")


def at(
    index: int,
    split: Split,
    seed: int | str,
    *,
    mix: Mapping[str, float] | None = None,
    pictures: PictureSets = "drawn",
    backgrounds: Sequence[str] = ("plain", "texture"),
) -> Still:
    """Sample `index` of the endless row that `seed` stands for; a data set's `__getitem__`.

    mix: kind -> share (`MIX`, or that of a `pool`); kinds that the picture set lacks are left out.
    Neighbours share their textures, so that a row is quick to draw in about its order. Raises
    `ValueError` for an unknown kind or when nothing is left of the mix, and what `still` raises.
    """
    check_split(split)
    shares = MIX if mix is None else mix
    for kind, share in shares.items():
        if kind not in KINDS or not share >= 0:
            raise ValueError(f"mix: {kind}: {share!r} is no share of a kind of {', '.join(KINDS)}")
    name = f"{seed}/{index}"
    chosen = random.Random(f"set | {split} | {name}").choice(sets_of(pictures))
    known = [kind for kind in kinds(chosen) if shares.get(kind, 0) > 0]
    if not known:
        raise ValueError(f"mix: no kind is left for {chosen} pictures")
    drawn = random.Random(f"mix | {split} | {name}")
    season = random.Random(f"textures | {split} | {seed} | {index // _SEASON}")
    return still(
        name,
        split,
        kind=drawn.choices(known, [shares[kind] for kind in known])[0],
        pictures=chosen,
        backgrounds=backgrounds,
        textures=[season.randrange(2**31) for _ in range(_SEASON_TEXTURES)],
    )


def stills(
    split: Split,
    seed: int | str,
    count: int,
    *,
    mix: Mapping[str, float] | None = None,
    pictures: PictureSets = "drawn",
    backgrounds: Sequence[str] = ("plain", "texture"),
    start: int = 0,
) -> Iterator[Still]:
    """Samples `start` to `start + count` of a row; see `at`."""
    for index in range(start, start + count):
        yield at(index, split, seed, mix=mix, pictures=pictures, backgrounds=backgrounds)


def texts(seed: int, count: int = 20_000) -> Iterator[str]:
    """Texts to train a tokenizer on: the whole vocabulary once, then what training samples say."""
    for name in SETS:
        for picture in picture_set(name):
            yield from (*picture.names, picture.plural, *picture.states)
    yield from COLOURS
    for (_, foreign), english in itertools.chain(languages.WORDS.items(), languages.LINES.items()):
        yield from (foreign, english)
    for (_, foreign), (roman, english) in languages.ROMANIZED.items():
        yield from (foreign, roman, english)
    yield from (*languages.SCREENS, *languages.SLIDES, *languages.POINTS, *WITH_COLOURS)
    yield from CHAT.values()
    yield from itertools.chain.from_iterable(QUESTIONS.values())
    half = count // 2
    shares: tuple[tuple[PictureSet, int], ...] = (
        ("drawn", count - half),
        ("photo", half),
    )
    for pictures, many in shares:
        for sample in stills("train", seed, many, pictures=pictures):
            yield from filter(None, (sample.context, sample.question, sample.answer))
