"""Turn-based samples of text: results of the background, copying, counting, small talk.

Half of them come with a frame that has nothing to do with the question.
"""

from __future__ import annotations

from collections.abc import Callable

from data_pipeline.world import languages
from data_pipeline.world.pictures import Picture
from data_pipeline.world.stills_sketch import NOWHERE, Sketch, any_frame, number
from data_pipeline.world.stills_wordings import CHAT
from data_pipeline.world.words import PEOPLE, capital
from joyvl_train.memory import Memory, Said, memory_text
from joyvl_train.timeline import Rule


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
    return sketch.thing(picture, NOWHERE).noun


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
        any_frame(sketch)
        sketch.context = f"[Background {rng.randint(1, 9)}] {capital(asked)} is {value}."
        sketch.ask("lookup", [asked], {"text": asked})
        sketch.reply(f"It is {value}.", number(value))
        return
    first = rng.randint(1, 4)
    digests = [_digest(sketch) for _ in range(rng.choices((1, 2, 3), (5, 2, 1))[0])]
    lines = dict(enumerate(digests, first))
    any_frame(sketch)
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
    any_frame(sketch)
    sketch.ask("repeat", [text.split(" ")[0]], {"text": text})
    sketch.reply(text, Rule("exact"))


def digits(sketch: Sketch) -> None:
    """Numbers that go on: the next one of a row, counting up or down, the sum of two digits."""
    rng = sketch.rng
    any_frame(sketch)
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
    any_frame(sketch)
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
    any_frame(sketch)
    sketch.ask(event, ["you"])
    sketch.reply(CHAT[event], Rule("exact"))


KINDS: dict[str, Callable[[Sketch], None]] = {
    "background": background,
    "repeat": repeat,
    "digits": digits,
    "follow_up": follow_up,
    "chat": chat,
}
