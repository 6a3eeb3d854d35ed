"""Long-horizon recall: what the opening memory holds, or what happened much earlier in the clip."""

from __future__ import annotations

from dataclasses import dataclass

from data_pipeline.world.past import long_or_short, remembered
from data_pipeline.world.stories.actor import appeared, named, number
from data_pipeline.world.stories.alerting import visits
from data_pipeline.world.stories.draft import COLOUR_NAMES, Clash, Draft, Kind
from data_pipeline.world.stories.qa import (
    ask_before,
    ask_came_first,
    ask_was_there,
    moments,
    put,
    scene,
    try_question,
)
from data_pipeline.world.words import a, capital
from joyvl_train.actions import Silence
from joyvl_train.memory import Limits, memory_text
from joyvl_train.stream import Turn
from joyvl_train.timeline import Rule

STANDING_CHUNKS = 30
"""Chunks that may lie between an instruction and the clip."""

ASK_MEMORY: dict[str, tuple[str, ...]] = {
    "when": ("When did {the} come?", "At what second did {the} come?", "When was {the} here?",
             "Do you remember when {the} came?", "At which time did {a} come?",
             "When did you see {the} earlier?", "What was the time when {the} came?",
             "How many seconds in did {the} come?"),
    "old_colour": ("What colour was {the} earlier?", "Which colour did {the} have back then?",
                   "Do you remember the colour of {the}?", "In what colour was {the} before?",
                   "What was the colour of {the} you saw?", "{The} of before, what colour was it?",
                   "Earlier, what colour was {the}?", "The colour of {the} back then?"),
    "old_before": ("What came before {the}, back then?", "Earlier, what came just before {the}?",
                   "What did you see before {the}?", "In your memory, what came before {the}?",
                   "Before {the}, what had come?", "What was it that came before {the}?",
                   "Which thing came earlier than {the}?", "And just before {the} came what?"),
    "old_after": ("What came after {the}, back then?", "Earlier, what came just after {the}?",
                  "What did you see after {the}?", "In your memory, what came after {the}?",
                  "After {the}, what came?", "What was it that came after {the}?",
                  "Which thing came next after {the} then?", "And just after {the} came what?"),
    "old_count": ("How many {s} came earlier?", "How many {s} do you remember?",
                  "Earlier, how many {s} did you see?", "How many {s} were there before?",
                  "What was the number of {s} back then?", "Do you recall how many {s} came?",
                  "In your memory, how many {s} came?", "The number of {s} earlier?"),
}  # fmt: skip


@dataclass(frozen=True)
class Memo:
    """One remembered coming."""

    second: int
    name: str
    colour: str

    @property
    def noun(self) -> str:
        return f"{self.colour} {self.name}" if self.colour else self.name


def opening_text(draft: Draft, memos: list[Memo], chunk: int) -> str:
    """The memory as a log, or in the form that a stream gives it after a chunk."""
    nouns = [(m.second, a(m.noun, draft.thing(m.name).article)) for m in memos]
    style = draft.rng.randrange(3)
    if style == 0:
        return "\n".join(f"{second} s: {capital(noun)} came." for second, noun in nouns)
    form = "{s} s assistant: {n} appeared." if style == 1 else "{s} s: {n} came."
    lines = "; ".join(form.format(s=second, n=capital(noun)) for second, noun in nouns)
    return f"Earlier:\n0 to {chunk} s: {lines}"


def _memos(draft: Draft, repeated: bool = False) -> tuple[list[Memo], str]:
    """What was seen before the stream began, and the memory text that says it."""
    rng = draft.rng
    names = rng.sample(draft.countable, rng.randint(3, 5))
    if repeated:
        names += [names[0]] * rng.randint(1, 3)
        rng.shuffle(names)
    chunk = 100 * rng.randint(1, 3)
    seconds = sorted(rng.sample(range(2, chunk - 2, 2), len(names)))
    memos = [
        Memo(s, n, rng.choice(COLOUR_NAMES) if n in draft.colourful and rng.random() < 0.6 else "")
        for s, n in zip(seconds, names, strict=True)
    ]
    return memos, opening_text(draft, memos, chunk)


def opening(draft: Draft) -> None:
    """Questions about what only the opening memory holds, while other things come and go."""
    repeated = draft.rng.random() < 0.35
    memos, draft.opening = _memos(draft, repeated)
    rest = [n for n in draft.names if all(n != m.name for m in memos)]
    draft.parade(draft.rng.sample(rest, min(8, len(rest))), draft.beats(1, 3, 5), 2)
    kinds = ["old_count"] if repeated else ["when", "old_colour", "old_before", "old_after"]
    for second in moments(draft, start=1, gap=3):
        for kind in draft.rng.sample(kinds, len(kinds)):
            event = kind

            def question(draft: Draft, second: int, event: str = event) -> None:
                _ask_memo(draft, second, event, memos)

            if try_question(draft, question, second):
                break
    if not draft.events:
        raise Clash("no question fits")
    draft.must_own()


def _ask_memo(draft: Draft, second: int, event: str, memos: list[Memo]) -> None:
    rng = draft.rng
    i = rng.randrange(len(memos))
    memo = memos[i]
    _, text = draft.pick(event, [memo.name], ASK_MEMORY[event])
    query = draft.ask(second, text.format(**draft.mention(memo.name)))
    if event == "when":
        said = f"The {memo.name} came at {memo.second} s."
        draft.reply(second, said, query, number(memo.second))
    elif event == "old_count":
        count = sum(m.name == memo.name for m in memos)
        draft.reply(second, str(count), query, number(count))
    elif event == "old_colour":
        if not memo.colour:
            raise Clash("no colour remembered")
        rule = Rule("key_facts", (memo.colour,))
        draft.reply(second, f"The {memo.name} was {memo.colour}.", query, rule)
    else:
        j = i - 1 if event == "old_before" else i + 1
        if not 0 <= j < len(memos):
            raise Clash("nothing on that side")
        thing, word = draft.thing(memos[j].name), "Before" if j < i else "After"
        said = f"{word} the {memo.name} {a(thing.name, thing.article)} came."
        draft.reply(second, said, query, Rule("key_facts", ("|".join(thing.names),)))


def within(draft: Draft) -> None:
    """Questions in the last third about what came much earlier in the clip."""
    scene(draft, low=3, high=4)
    put(draft, (ask_came_first, ask_before, ask_was_there), start=draft.seconds * 2 // 3)


def standing(draft: Draft) -> None:
    """The opening memory holds an instruction, of minutes or up to an hour ago; it still counts."""
    rng = draft.rng
    name, text = draft.choose("appear", draft.singular)
    order = text.format(**draft.mention(name))
    second = rng.randint(0, 40)
    if rng.random() < 0.3:
        draft.opening = f"Instructions:\n{second} s: {order}"
    else:
        stops = [100 * n - 10 for n in range(1, long_or_short(STANDING_CHUNKS, rng) + 1)]
        given = Turn(second, queries=(order,), action=Silence())
        others = [thing for thing in draft.things if thing.name != name]
        draft.opening = memory_text(remembered((given,), stops, others, Limits(), rng))
        draft.meta["before"] = stops[-1]
    for actor in visits(draft, name, draft.others(name), rng.randint(1, 3)):
        draft.say(actor.came_at, appeared(actor), None, named(actor), until=draft.held(actor))


KINDS = {
    "opening": Kind(opening, 2.0),
    "within": Kind(within, all_seen=True),
    "standing": Kind(standing),
}
