"""Turn-based samples of several turns: a question, then frame after frame, each of them answered.

They are a stream in which every turn is asked: what a later stage makes of it, when to speak and
when not, they do not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from data_pipeline.world.pictures import COLOURS, Picture
from data_pipeline.world.scene import Track
from data_pipeline.world.stills_binding import distinct
from data_pipeline.world.stills_sketch import Sketch, Thing, sentence
from data_pipeline.world.words import listed
from joyvl_train.timeline import Rule

_TURNS = (4, 14)
_COMES, _LEAVES = 0.3, 0.35
"""How likely a thing that is away comes, and one that is there leaves, from frame to frame."""

_OF_ONE = ("watch_there", "watch_comes", "watch_leaves", "watch_times")
_EVENTS = (*_OF_ONE, "watch_comes", "watch_new", "watch_gone", "watch_either")

_NOTHING = "Nothing."


def watch(sketch: Sketch) -> None:
    """Frame by frame: is it there, has it come, has it left, what is new, what is gone, how many
    times has it come."""
    rng = sketch.rng
    spots = sketch.spots(rng.randint(2, 4))
    things = [
        sketch.thing(p, at) for p, at in zip(distinct(sketch, len(spots)), spots, strict=True)
    ]
    event = rng.choice(_EVENTS)
    first, second = things[0].picture, things[1].picture
    sought = {"watch_either": [first, second], "watch_new": [], "watch_gone": []}
    colour = ""
    if event in _OF_ONE and first.colours and rng.random() < 0.4:
        # Another one of it, in another colour, comes and goes beside it.
        colour, other = rng.sample(tuple(COLOURS), 2)
        things[0] = replace(things[0], colour=colour)
        things[1] = sketch.thing(first, spots[1], colour=other)
    there = _comings(sketch, things, rng.randint(*_TURNS))
    _ask(sketch, event, sought.get(event, [first]), colour)
    answers = [_answer(event, things, there, frame) for frame in range(len(there))]
    sketch.before = tuple(answers[:-1])
    sketch.reply(answers[-1], Rule("exact"))


def _comings(sketch: Sketch, things: list[Thing], count: int) -> list[list[bool]]:
    """Which of the things are there in each frame; they are drawn so. The first frame is empty now
    and then, and shows each of them as often as not."""
    rng = sketch.rng
    there = [[rng.random() < 0.4 for _ in things]]
    while len(there) < count:
        there.append([rng.random() > _LEAVES if on else rng.random() < _COMES for on in there[-1]])
    tracks: list[Track] = []
    for number, thing in enumerate(things):
        tracks += [thing.track(i, i + 1) for i in range(count) if there[i][number]]
    sketch.play(tracks, [i + 0.5 for i in range(count)], float(count))
    sketch.things = tuple(things)
    return there


def _ask(sketch: Sketch, event: str, sought: list[Picture], colour: str) -> None:
    words: dict[str, str] = {}
    for picture, ending in zip(sought, ("", "2"), strict=False):
        told = sketch.mention(picture, colour)
        words |= {f"{form}{ending}": text for form, text in told.items()}
    names = [f"{colour} {picture.name}".strip() for picture in sought] or ["anything"]
    sketch.ask(event, names, words, sought, colour)


def _new(there: list[list[bool]], number: int, frame: int) -> bool:
    """Whether a thing is there that was not in the frame before, if there is one."""
    return there[frame][number] and (frame == 0 or not there[frame - 1][number])


def _gone(there: list[list[bool]], number: int, frame: int) -> bool:
    return frame > 0 and there[frame - 1][number] and not there[frame][number]


def _answer(event: str, things: list[Thing], there: list[list[bool]], frame: int) -> str:
    if event == "watch_there":
        return "Yes." if there[frame][0] else "No."
    if event == "watch_comes":
        return "Yes." if _new(there, 0, frame) else "No."
    if event == "watch_leaves":
        return "Yes." if _gone(there, 0, frame) else "No."
    if event == "watch_times":
        return f"{sum(_new(there, 0, each) for each in range(frame + 1))}."
    found = _gone if event == "watch_gone" else _new
    among = things[:2] if event == "watch_either" else things
    named = [thing.a(False) for i, thing in enumerate(among) if found(there, i, frame)]
    return sentence(listed(named)) if named else _NOTHING


KINDS: dict[str, Callable[[Sketch], None]] = {"watch": watch}
