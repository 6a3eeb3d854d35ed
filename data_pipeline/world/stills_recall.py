"""Turn-based samples of memory text: one question, or a list of them, about what it holds."""

from __future__ import annotations

from collections.abc import Callable

from data_pipeline.world.pictures import Picture
from data_pipeline.world.stills_sketch import (
    NOWHERE,
    Clash,
    Sketch,
    Thing,
    any_frame,
    number,
    sentence,
    yes_no,
)
from data_pipeline.world.words import capital, listed
from joyvl_train.memory import Memory, Summary, memory_text
from joyvl_train.timeline import Rule


class Past:
    """What memory tells: (second, what happened, thing), in order."""

    def __init__(self, sketch: Sketch) -> None:
        rng = sketch.rng
        self.came: list[tuple[int, Thing]] = []
        self.left: list[tuple[int, Thing]] = []
        self.log: list[tuple[int, str]] = []
        self.coloured = sketch.pictures == "drawn" and rng.random() < 0.5
        pictures = sketch.pick(sketch.cast, rng.randint(2, 6))
        second = rng.randint(0, 20)
        here: list[Thing] = []
        for picture in pictures:
            thing = sketch.thing(picture, NOWHERE, "always" if self.coloured else "never")
            self.came.append((second, thing))
            self.log.append((second, f"{thing.a()} appeared"))
            here.append(thing)
            second += rng.randint(1, 25)
            if rng.random() < 0.35:
                gone = here.pop(rng.randrange(len(here)))
                self.left.append((second, gone))
                self.log.append((second, f"the {gone.noun} left"))
                second += rng.randint(1, 25)
        self.end = second + rng.randint(0, 30)

    def text(self, sketch: Sketch) -> str:
        """The past as the memory text of a stream, in one of the forms that it takes there."""
        form = sketch.rng.randrange(4)
        who = " assistant" if form == 2 else ""
        lines = [f"{second} s{who}: {sentence(line)}" for second, line in self.log]
        if form % 2:
            lines = [line.replace(" appeared.", " came.") for line in lines]
        if form < 2:
            return "\n".join(lines)
        # Summaries cover stretches of the stream: here one, or two of half the length.
        cut = self.end if sketch.rng.random() < 0.5 else self.end // 2
        first = [line for line, (second, _) in zip(lines, self.log, strict=True) if second < cut]
        rest = lines[len(first) :]
        summaries = [Summary(0, cut, "; ".join(first) or "Nothing was said.")]
        if rest:
            summaries.append(Summary(cut, self.end + 1, "; ".join(rest)))
        return memory_text(Memory(mid=tuple(summaries)))


def recall(sketch: Sketch) -> None:
    """What memory lines hold: when, what, first, last, before, whether, which colour, how many."""
    rng = sketch.rng
    past = Past(sketch)
    any_frame(sketch)
    sketch.context = past.text(sketch)
    second, thing = rng.choice(past.came)
    picture, named = thing.picture, Rule("key_facts", (thing.fact(),))
    words = sketch.mention(picture)
    event = rng.choice(
        ("when", "at", "came_first", "came_last", "left_last", "before", "was_there",
         "was_there", "was_colour", "how_many_came")
    )  # fmt: skip
    if event == "when":
        sketch.ask(event, [picture.name], words)
        sketch.reply(f"At {second} s.", number(second))
    elif event == "at":
        sketch.ask(event, [picture.name], {"n": str(second)})
        sketch.reply(sentence(thing.a()), named)
    elif event in ("came_first", "came_last", "left_last"):
        found = past.left if event == "left_last" else past.came
        if not found:
            raise Clash("nothing has left")
        thing = found[0 if event == "came_first" else -1][1]
        sketch.ask(event, [thing.picture.name])
        sketch.reply(sentence(thing.a()), Rule("key_facts", (thing.fact(),)))
    elif event == "before":
        i = rng.randrange(1, len(past.came))
        former, later = past.came[i - 1][1], past.came[i][1]
        sketch.ask(event, [later.picture.name], sketch.mention(later.picture))
        sketch.reply(sentence(former.a()), Rule("key_facts", (former.fact(),)))
    elif event == "was_there":
        yes = rng.random() < 0.5
        if not yes:
            here = [thing.picture for _, thing in past.came]
            (picture,) = sketch.pick(sketch.cast, beside=here)
        sketch.ask(event, [picture.name], sketch.mention(picture))
        sketch.reply(*yes_no(yes))
    elif event == "was_colour":
        if not thing.colour:
            raise Clash("no colour told")
        sketch.ask(event, [thing.noun], words)
        sketch.reply(sentence(thing.colour), Rule("key_facts", (thing.colour,)))
    else:
        sketch.ask(event, [str(len(past.came))])
        sketch.reply(str(len(past.came)), number(len(past.came)))


def recall_list(sketch: Sketch) -> None:
    """Several things that memory lines hold, asked for at once: an answer tells of many lines."""
    rng = sketch.rng
    past = Past(sketch)
    any_frame(sketch)
    sketch.context = past.text(sketch)
    found = rng.sample(past.came, min(len(past.came), rng.randint(2, 5)))
    pictures = [thing.picture for _, thing in found]
    event = rng.choice(
        ("when_each", "at_each", "came_each", "colour_each", "next_each", "all_came")
    )
    if event == "when_each":
        _ask_each(sketch, event, pictures)
        sketch.reply(sentence(", ".join(f"{second} s" for second, _ in found)), Rule("exact"))
    elif event == "at_each":
        times = ", ".join(f"{second} s" for second, _ in found)
        sketch.ask(event, [p.name for p in pictures], {"list": times})
        sketch.reply(sentence(listed([t.a() for _, t in found])), Rule("exact"))
    elif event == "came_each":
        here = [thing.picture for _, thing in past.came]
        others = sketch.pick(sketch.cast, rng.randint(1, 3), beside=here)
        asked = [*pictures[:3], *others]
        rng.shuffle(asked)
        _ask_each(sketch, event, asked, "a")
        sketch.reply(
            sentence(", ".join("yes" if p in here else "no" for p in asked)), Rule("exact")
        )
    elif event == "colour_each":
        coloured = [thing for _, thing in past.came if thing.colour][:4]
        if len(coloured) < 2:
            raise Clash("too few colours told")
        rng.shuffle(coloured)
        _ask_each(sketch, event, [thing.picture for thing in coloured])
        sketch.reply(sentence(", ".join(thing.colour for thing in coloured)), Rule("exact"))
    elif event == "next_each":
        pairs = list(zip(past.came, past.came[1:], strict=False))
        pairs = rng.sample(pairs, min(len(pairs), 3))
        _ask_each(sketch, event, [one.picture for (_, one), _ in pairs])
        sketch.reply(sentence(listed([next.a() for _, (_, next) in pairs])), Rule("exact"))
    else:
        sketch.ask(event, [thing.picture.name for _, thing in past.came])
        sketch.reply(sentence(listed([thing.a() for _, thing in past.came])), Rule("exact"))


def _ask_each(sketch: Sketch, event: str, pictures: list[Picture], form: str = "the") -> None:
    """Ask about a list of pictures, each as it is named."""
    names = ", ".join(sketch.mention(picture)[form] for picture in pictures)
    sketch.ask(event, [picture.name for picture in pictures], {"list": names})
    sketch.question = capital(sketch.question)


KINDS: dict[str, Callable[[Sketch], None]] = {"recall": recall, "recall_list": recall_list}
