"""Turn-based samples of memory text: one question, or a list of them, about what it holds."""

from __future__ import annotations

from collections.abc import Callable

from data_pipeline.world.pictures import Picture
from data_pipeline.world.splits import allowed
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
from data_pipeline.world.words import capital, forms, listed, polite
from joyvl_train.memory import NOTHING, Memory, Summary, memory_text
from joyvl_train.timeline import Rule

_TALK = (6, 14)
_EVENTS = (
    "when", "when", "at", "came_first", "came_last", "left_last", "before", "came_after",
    "was_there", "was_there", "was_colour", "how_many_came", "came_times",
)  # fmt: skip


class Past:
    """What memory tells: (second, what happened, thing), in order."""

    def __init__(self, sketch: Sketch, most: int = 6) -> None:
        rng = sketch.rng
        self.came: list[tuple[int, Thing]] = []
        self.left: list[tuple[int, Thing]] = []
        self.log: list[tuple[int, str]] = []
        self.coloured = sketch.pictures == "drawn" and rng.random() < 0.5
        pictures = sketch.pick(sketch.cast, rng.randint(2, most))
        if len(pictures) > 2 and rng.random() < 0.3:
            # One of them comes several times.
            pictures += rng.choices(pictures[:1], k=rng.randint(1, 3))
            rng.shuffle(pictures)
        pause = rng.choice((8, 25, 60))
        second = rng.randint(0, 20)
        here: list[Thing] = []
        leaves = rng.choice((0.0, 0.35))
        for picture in pictures:
            thing = sketch.thing(picture, NOWHERE, "always" if self.coloured else "never")
            self.came.append((second, thing))
            self.log.append((second, f"{thing.a()} appeared"))
            here.append(thing)
            second += rng.randint(1, pause)
            if rng.random() < leaves:
                gone = here.pop(rng.randrange(len(here)))
                self.left.append((second, gone))
                self.log.append((second, f"the {gone.noun} left"))
                second += rng.randint(1, pause)
        self.end = second + rng.randint(0, 30)
        names = [thing.picture for _, thing in self.came]
        self.once = [each for each in self.came if names.count(each[1].picture) == 1]

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
        summaries = [Summary(0, cut, "; ".join(first) or NOTHING)]
        if rest:
            summaries.append(Summary(cut, self.end + 1, "; ".join(rest)))
        return memory_text(Memory(mid=tuple(summaries)))


def recall(sketch: Sketch) -> None:
    """What memory lines hold: when, what, first, last, before, after, whether, which colour, how
    many."""
    past = Past(sketch)
    any_frame(sketch)
    sketch.context = past.text(sketch)
    sketch.reply(*_asked(sketch, past, sketch.rng.choice(_EVENTS)))


def recall_talk(sketch: Sketch) -> None:
    """The same, question after question, each with a frame, as in a stream."""
    rng = sketch.rng
    past = Past(sketch, most=8)
    if rng.random() < 0.5:
        any_frame(sketch)
    sketch.context = past.text(sketch)
    questions: list[str] = []
    answers: list[tuple[str, Rule]] = []
    wanted = rng.randint(*_TALK)
    for event in rng.choices(_EVENTS, k=4 * wanted):
        if len(answers) == wanted:
            break
        known = list(sketch.compositions)
        try:
            answers.append(_asked(sketch, past, event))
        except Clash:
            continue
        if all(allowed(key, sketch.split) for key in sketch.compositions):
            questions.append(sketch.question)
        else:
            answers.pop()
            sketch.compositions = known
    if len(answers) < 2:
        raise Clash("fewer than two questions")
    tracks = [thing.track(0, len(answers)) for thing in sketch.things]
    sketch.play(tracks, [i + 0.5 for i in range(len(answers))], float(len(answers)))
    sketch.before = tuple(said for said, _ in answers[:-1])
    sketch.further = tuple(polite(rng, question) for question in questions[1:])
    sketch.question = questions[0]
    sketch.reply(*answers[-1])


def _asked(sketch: Sketch, past: Past, event: str) -> tuple[str, Rule]:
    """Ask about `event`; the answer and its rule. Raises `Clash` where it can't be asked.

    An answer says again what was asked for before what is told of it: so small a model looks up
    what follows, or goes before, a thing that it has just named.
    """
    rng = sketch.rng
    second, thing = rng.choice(past.once)
    picture = thing.picture
    words = sketch.mention(picture)
    the = forms(picture.name, picture.article)["The"]
    if event == "when":
        sketch.ask(event, [picture.name], words)
        return f"{the} came at {second} s.", number(second)
    if event == "at":
        sketch.ask(event, [picture.name], {"n": str(second)})
        return f"At {second} s {thing.a()} came.", _fact(thing)
    if event in ("came_first", "came_last", "left_last"):
        found = past.left if event == "left_last" else past.came
        if not found:
            raise Clash("nothing has left")
        thing = found[0 if event == "came_first" else -1][1]
        sketch.ask(event, [thing.picture.name])
        return sentence(thing.a()), _fact(thing)
    if event in ("before", "came_after"):
        at = past.came.index((second, thing)) + (1 if event == "came_after" else -1)
        if not 0 <= at < len(past.came):
            raise Clash("nothing on that side")
        sketch.ask(event, [picture.name], words)
        other, word = past.came[at][1], "After" if event == "came_after" else "Before"
        return f"{word} {the.lower()} {other.a()} came.", _fact(other)
    if event == "was_there":
        yes = rng.random() < 0.5
        if not yes:
            here = [thing.picture for _, thing in past.came]
            (picture,) = sketch.pick(sketch.cast, beside=here)
        sketch.ask(event, [picture.name], sketch.mention(picture))
        return yes_no(yes)
    if event == "was_colour":
        if not thing.colour:
            raise Clash("no colour told")
        sketch.ask(event, [thing.noun], words)
        return f"{the} was {thing.colour}.", Rule("key_facts", (thing.colour,))
    if event == "came_times":
        _, thing = rng.choice(past.came)
        count = sum(other.picture == thing.picture for _, other in past.came)
        sketch.ask(event, [thing.picture.name, str(count)], sketch.mention(thing.picture))
        return str(count), number(count)
    sketch.ask("how_many_came", [str(len(past.came))])
    return str(len(past.came)), number(len(past.came))


def _fact(thing: Thing) -> Rule:
    return Rule("key_facts", (thing.fact(),))


def recall_list(sketch: Sketch) -> None:
    """Several things that memory lines hold, asked for at once: an answer tells of many lines."""
    rng = sketch.rng
    past = Past(sketch)
    any_frame(sketch)
    sketch.context = past.text(sketch)
    if len(past.once) < len(past.came):
        raise Clash("one of them comes several times")
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


KINDS: dict[str, Callable[[Sketch], None]] = {
    "recall": recall,
    "recall_list": recall_list,
    "recall_talk": recall_talk,
}
