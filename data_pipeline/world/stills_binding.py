"""Turn-based samples that bind a given name to what is seen: many small answers to one question.

Nothing but the name tells the answers apart: what is asked for and what stands beside it come and
go alike.
"""

from __future__ import annotations

from collections.abc import Callable

from data_pipeline.world.pictures import Picture
from data_pipeline.world.scene import Track
from data_pipeline.world.stills_sketch import Sketch, mistakable, sentence
from data_pipeline.world.words import capital, listed
from joyvl_train.timeline import Rule

_THERE = 0.45
"""How often a thing is there."""


def distinct(sketch: Sketch, count: int) -> list[Picture]:
    """`count` things of which none is taken for another; half of the time two are alike."""
    (first,) = sketch.pick(sketch.certain)
    near = [p for p in sketch.alike(first) if p in sketch.certain and not mistakable(p, first)]
    found = [first, *(sketch.pick(near) if near and sketch.rng.random() < 0.5 else [])]
    found += sketch.pick(sketch.certain, count - len(found), beside=found)
    sketch.rng.shuffle(found)
    return found


def each(sketch: Sketch) -> None:
    """Frame by frame, whether a thing is there."""
    rng = sketch.rng
    count = rng.randint(4, 8)
    spots = sketch.spots(rng.randint(2, 4))
    pictures = distinct(sketch, len(spots))
    things = [sketch.thing(p, spot) for p, spot in zip(pictures, spots, strict=True)]
    there = [[rng.random() < _THERE for _ in range(count)] for _ in things]
    tracks: list[Track] = []
    for thing, frames in zip(things, there, strict=True):
        tracks += [thing.track(i, i + 1) for i in range(count) if frames[i]]
    sketch.play(tracks, [i + 0.5 for i in range(count)], float(count))
    sketch.things = tuple(things)
    sketch.ask("each", [pictures[0].name], sketch.mention(pictures[0]), pictures[:1])
    answers = ("yes" if here else "no" for here in there[0])
    sketch.reply(sentence(", ".join(answers)), Rule("exact"))


def _list(sketch: Sketch, event: str) -> list[tuple[str, bool]]:
    """A frame, and a list to look for in it: each thing as it is named, and whether it is there."""
    rng = sketch.rng
    spots = sketch.spots(rng.randint(1, 4))
    wanted = rng.randint(2, 5)
    pictures = distinct(sketch, wanted + len(spots))
    shown, rest = pictures[: len(spots)], pictures[len(spots) :]
    there = min(len(shown), sum(rng.random() < 0.5 for _ in range(wanted)))
    on = rng.sample(shown, there) + rest[: wanted - there]
    rng.shuffle(on)
    sketch.show([sketch.thing(p, spot) for p, spot in zip(shown, spots, strict=True)])
    named = [sketch.mention(p)["a"] for p in on]
    sketch.ask(event, [p.name for p in on], {"list": ", ".join(named)}, on)
    sketch.question = capital(sketch.question)
    return [(name, p in shown) for name, p in zip(named, on, strict=True)]


def checklist(sketch: Sketch) -> None:
    """Name by name, whether a thing is there."""
    found = _list(sketch, "checklist")
    answer = ", ".join("yes" if there else "no" for _, there in found)
    sketch.reply(sentence(answer), Rule("exact"))


def pick(sketch: Sketch) -> None:
    """Of a list of names, those that are there, in the list's order."""
    there = [name for name, here in _list(sketch, "pick") if here]
    sketch.reply(sentence(listed(there)) if there else "None of them.", Rule("exact"))


KINDS: dict[str, Callable[[Sketch], None]] = {"each": each, "checklist": checklist, "pick": pick}
