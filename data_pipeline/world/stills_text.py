"""Turn-based samples of text: recall from memory lines, copying, counting, small talk.

Half of them come with a frame that has nothing to do with the question.
"""

from __future__ import annotations

from collections.abc import Callable

from data_pipeline.world import languages
from data_pipeline.world.pictures import Picture
from data_pipeline.world.stills_sketch import Clash, Sketch, Thing, number, sentence, yes_no
from data_pipeline.world.stills_wordings import CHAT
from data_pipeline.world.words import PEOPLE, capital
from joyvl_train.memory import Memory, Said, Summary, memory_text
from joyvl_train.timeline import Rule

_NOWHERE = (0.5, 0.5, 0.4)


def _frame(sketch: Sketch) -> None:
    """A frame of one thing or two, in half of the samples."""
    if sketch.rng.random() < 0.5:
        spots = sketch.spots(sketch.rng.randint(1, 2))
        pictures = sketch.pick(sketch.cast, len(spots))
        sketch.show([sketch.thing(p, at) for p, at in zip(pictures, spots, strict=True)])


class _Past:
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
            thing = sketch.thing(picture, _NOWHERE, "always" if self.coloured else "never")
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
    past = _Past(sketch)
    _frame(sketch)
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


def _digest(sketch: Sketch) -> str:
    """A result as a background model returns it: a number, a word, a short line."""
    rng = sketch.rng
    draw = rng.random()
    if draw < 0.5:
        return str(rng.randrange(10 ** rng.randint(1, 5)))
    if draw < 0.65:
        return f"{rng.randint(1, 999)}.{rng.randint(1, 99)}"
    (picture,) = sketch.pick(sketch.cast)
    if draw < 0.8:
        return f"There are {rng.randint(2, 99)} {picture.plural}."
    if draw < 0.9:
        return rng.choice(sorted(set(languages.LINES.values()))) + "."
    return capital(_noun(sketch, picture))


def _noun(sketch: Sketch, picture: Picture) -> str:
    return sketch.thing(picture, _NOWHERE).noun


_PLACES = ("Rome", "Paris", "Lyon", "Oslo", "Lima", "Cairo", "Quito", "Porto", "Bern", "Kyoto")
_FACTS = (
    "the phone number of the station in {}",
    "the number of people living in {}",
    "the postal code of {}",
    "the price of a room in {} tonight",
    "the number of the next train to {}",
    "the height in metres of the tower of {}",
)


def background(sketch: Sketch) -> None:
    """What a background line says. Its context lines are the background lines of a turn."""
    rng = sketch.rng
    if rng.random() < 0.4:
        asked = rng.choice(_FACTS).format(rng.choice(_PLACES))
        value = rng.randint(100, 99999)
        if rng.random() < 0.5:
            x, y = rng.randint(12, 999), rng.randint(12, 99)
            asked, value = f"{x} times {y}", x * y
        _frame(sketch)
        sketch.context = f"[Background {rng.randint(1, 9)}] {capital(asked)} is {value}."
        sketch.ask("lookup", [asked], {"text": asked})
        sketch.reply(f"It is {value}.", number(value))
        return
    first = rng.randint(1, 4)
    digests = [_digest(sketch) for _ in range(rng.choices((1, 2, 3), (5, 2, 1))[0])]
    lines = dict(enumerate(digests, first))
    _frame(sketch)
    sketch.context = "\n".join(f"[Background {n}] {digest}" for n, digest in lines.items())
    wanted = rng.choice(sorted(lines))
    if len(lines) == 1 and rng.random() < 0.7:
        sketch.ask("background", [digests[0][:1]])
    else:
        sketch.ask("background_n", [str(wanted)], {"n": str(wanted)})
    sketch.reply(lines[wanted], Rule("exact"))


def _phrase(sketch: Sketch) -> str:
    """Something to be said again, of words in no order, of digits, or of letters."""
    rng = sketch.rng
    if rng.random() < 0.4:
        # A long text in no order can be said again by looking back alone, which it so teaches.
        words = [name for picture in sketch.cast for name in picture.names]
        words += sorted(set(languages.WORDS.values()))
        return " ".join(rng.choices(words, k=rng.randint(6, 16)))
    draw = rng.random()
    if draw < 0.25:
        return " ".join(rng.choices("0123456789", k=rng.randint(2, 16)))
    if draw < 0.4:
        return str(rng.randrange(10 ** rng.randint(1, 6)))
    if draw < 0.5:
        return " ".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=rng.randint(2, 6)))
    if draw < 0.6:
        return " ".join(text for _, text in rng.sample(sorted(languages.WORDS), rng.randint(1, 3)))
    words = [rng.choice(picture.names) for picture in sketch.pick(sketch.cast, rng.randint(1, 3))]
    words += rng.sample(sorted(set(languages.WORDS.values())), rng.randint(0, 3))
    rng.shuffle(words)
    return " ".join(words)


def repeat(sketch: Sketch) -> None:
    """A text that is said again, word for word."""
    text = _phrase(sketch)
    _frame(sketch)
    sketch.ask("repeat", [text.split(" ")[0]], {"text": text})
    sketch.reply(text, Rule("exact"))


def digits(sketch: Sketch) -> None:
    """Numbers that go on: the next one of a row, counting up or down, the sum of two digits."""
    rng = sketch.rng
    _frame(sketch)
    if rng.random() < 0.25:
        x, y = rng.randint(1, 9), rng.randint(1, 9)
        sketch.ask("easy", [f"{x} {y}"], {"x": str(x), "y": str(y)})
        sketch.reply(str(x + y), number(x + y))
        return
    if rng.random() < 0.65:
        step = rng.choice((1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 10))
        start = rng.randint(1, 30) if step == 1 else step * rng.randint(1, 6)
        row = [start + step * i for i in range(rng.randint(2 if step > 1 else 1, 4))]
        text = ", ".join(map(str, row))
        sketch.ask("next_number", [text], {"text": text})
        sketch.reply(str(row[-1] + step), number(row[-1] + step))
        return
    start = rng.randint(1, 15)
    step = -1 if start > 6 and rng.random() < 0.3 else 1
    row = [start + step * i for i in range(rng.randint(2, 7))]
    row = [n for n in row if n > 0]
    sketch.ask("count_up", [str(start)], {"n": str(row[0]), "m": str(row[-1])})
    sketch.reply(", ".join(map(str, row)), Rule("exact"))


def follow_up(sketch: Sketch) -> None:
    """Something that the user said before, in the same breath or in the dialogue memory."""
    rng = sketch.rng
    facts: list[tuple[str, str, str, str, dict[str, str]]] = []
    person = rng.choice(PEOPLE)
    said = rng.choice(("My name is {}.", "I am {}.", "I am called {}.", "Call me {}."))
    facts.append(("name_back", said.format(person), f"You are {person}.", person, {}))
    code = str(rng.randrange(10 ** rng.randint(2, 5)))
    said = rng.choice(("The code is {}.", "Remember the code {}.", "My code is {}."))
    facts.append(("code", said.format(code), code, code, {}))
    liked, kept, holder = sketch.pick(sketch.countable, 3)
    said = rng.choice(("I like {}.", "I love {} most.", "My favourite is {}."))
    line = said.format(f"the {liked.name}")
    facts.append(("like_back", line, f"The {liked.name}.", liked.name, {}))
    said = rng.choice(("I put {} in {}.", "I left {} in {}.", "Remember: {} is in {}."))
    places = [p for p in sketch.cast if p.name in ("box", "car", "house", "hat", "boat", "cup")]
    where = rng.choice(places or [holder]).name
    if where != kept.name:
        words = sketch.mention(kept)
        line = said.format(f"the {kept.name}", f"the {where}")
        facts.append(("keeping", line, f"In the {where}.", where, words))
    chosen = rng.sample(facts, rng.randint(1, min(3, len(facts))))
    event, _, answer, fact, words = rng.choice(chosen)
    _frame(sketch)
    sketch.ask(event, [fact], words)
    sketch.reply(answer, Rule("key_facts", (fact,)))
    lines = [line for _, line, _, _, _ in chosen]
    if rng.random() < 0.5:
        sketch.question = f"{' '.join(lines)} {sketch.question}"
        return
    second, dialogue = rng.randint(0, 40), list[Said]()
    for line in lines:
        dialogue.append(Said(second, "user", line))
        if rng.random() < 0.5:
            dialogue.append(Said(second, "assistant", rng.choice(("All right.", "I see.", "Yes."))))
        second += rng.randint(1, 40)
    sketch.context = memory_text(Memory(dialogue=tuple(dialogue)))


def chat(sketch: Sketch) -> None:
    """Small talk."""
    event = sketch.rng.choice(sorted(CHAT))
    _frame(sketch)
    sketch.ask(event, ["you"])
    sketch.reply(CHAT[event], Rule("exact"))


KINDS: dict[str, Callable[[Sketch], None]] = {
    "recall": recall,
    "background": background,
    "repeat": repeat,
    "digits": digits,
    "follow_up": follow_up,
    "chat": chat,
}
