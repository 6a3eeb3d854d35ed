"""Hard questions are handed to the background model; easy ones are answered at once.

The result returns after a drawn delay. Meanwhile the stream goes on: alerts, easy questions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from data_pipeline.world.splits import composition, group
from data_pipeline.world.stories.actor import Actor, appeared, named, number
from data_pipeline.world.stories.draft import Clash, Draft, Kind
from data_pipeline.world.stories.qa import ask_is_there, ask_now, moments, try_question
from data_pipeline.world.words import capital
from joyvl_train.timeline import Rule

ASK_HARD: dict[str, tuple[str, ...]] = {
    "sum": ("{q}", "I need to know: {q}", "Please work out: {q}", "A question: {q}",
            "Can you tell me: {q}", "Quick: {q}", "Calculate this: {q}", "Help me with this: {q}"),
    "lookup": ("{q}", "I need to know: {q}", "Please find out: {q}", "A question: {q}",
               "Can you tell me: {q}", "Look this up: {q}", "Do you know: {q}",
               "Help me with this: {q}"),
    "plan": ("{q}", "I need your help: {q}", "Please do this: {q}", "One more thing: {q}",
             "Can you do this: {q}", "A task for you: {q}", "Next: {q}", "Help me with this: {q}"),
    "seen": ("What is the number of {s} here, times {n}?",
             "Multiply the number of {s} you see by {n}.",
             "Count the {s} in view and multiply by {n}.",
             "What is {n} times the number of {s} in view?",
             "Take the number of {s} you see, times {n}.",
             "If each of the {s} costs {n}, what do they all cost?",
             "What do the {s} in view cost at {n} each?", "Give me {n} times the number of {s}."),
    "easy": ("What is {x} plus {y}?", "{x} plus {y} is what?", "Add {x} and {y}.",
             "How much is {x} plus {y}?", "Tell me {x} plus {y}.", "What do {x} and {y} make?",
             "What is the sum of {x} and {y}?", "Work out {x} plus {y}."),
}  # fmt: skip

NOTES = {
    "sum": "Let me work that out.",
    "lookup": "Let me look that up.",
    "plan": "Let me think about that.",
}

PLACES = ("Rome", "Paris", "Lyon", "Oslo", "Lima", "Cairo", "Quito", "Porto", "Bern", "Kyoto")
WHAT = {
    "the phone number of the station in {p}": (10000, 99999),
    "the number of visitors in the museum of {p} today": (1000, 9999),
    "the postal code of {p}": (1000, 99999),
    "the price in euros of a room in {p} tonight": (60, 480),
    "the number of the next train to {p}": (1000, 9999),
    "the year in which the bridge of {p} was built": (1750, 1995),
    "the number of rooms in the museum of {p}": (20, 400),
    "the height in metres of the tower of {p}": (30, 320),
}
"""What is looked up, and between which numbers the answer lies, so that it could be one."""

TASKS = ("a day in {p}", "a weekend in {p}", "an afternoon in {p}", "a walk through {p}",
         "an evening in {p}", "a trip to {p}", "a tour of {p}", "a morning in {p}")  # fmt: skip
STEPS = ("museum", "bridge", "park", "market", "castle", "theatre", "gallery", "garden", "river",
         "library", "church", "tower")  # fmt: skip

ERROR = 0.06
"""Share of delegations that come back with an error."""


@dataclass(frozen=True)
class Hard:
    """A hard question: what the user says, what is delegated, what comes back, what is said."""

    query: str
    note: str
    question: str
    digest: str
    answer: str
    rule: Rule


def _drawn(draft: Draft, kind: str, question: Callable[[], str], first: bool) -> tuple[str, str]:
    """A question and a wording that the split may hold together; the `first` is its own."""
    asked = {event.question for event in draft.events}
    for _ in range(200):
        thing, text = question(), draft.rng.choice(ASK_HARD[kind])
        if thing in asked:
            continue
        owner = group(composition(kind, thing, text))
        if owner == draft.split or (owner == "train" and not first):
            draft.compositions.append(composition(kind, thing, text))
            return thing, text
    raise Clash(f"no {kind} of the split's own")


def arithmetic(draft: Draft, second: int, first: bool) -> Hard:
    rng = draft.rng

    def question() -> str:
        sign = rng.choice(("times", "plus", "minus"))
        x, y = (
            rng.randint(120, 999),
            rng.randint(12, 99) if sign == "times" else rng.randint(100, 999),
        )
        return f"What is {max(x, y)} {sign} {min(x, y)}?"

    thing, text = _drawn(draft, "sum", question, first)
    x, sign, y = thing[8:-1].split(" ")
    value = {"times": int(x) * int(y), "plus": int(x) + int(y), "minus": int(x) - int(y)}[sign]
    digest = f"{x} {sign} {y} is {value}."
    rule = Rule("key_facts", (str(value),))
    return Hard(text.format(q=thing), NOTES["sum"], thing, digest, f"It is {value}.", rule)


def lookup(draft: Draft, second: int, first: bool) -> Hard:
    rng = draft.rng

    bounds = {what.format(p=place): span for what, span in WHAT.items() for place in PLACES}

    def question() -> str:
        return f"What is {rng.choice(list(bounds))}?"

    thing, text = _drawn(draft, "lookup", question, first)
    value = rng.randint(*bounds[thing[8:-1]])
    digest = f"{capital(thing[8:-1])} is {value}."
    rule = Rule("key_facts", (str(value),))
    return Hard(text.format(q=thing), NOTES["lookup"], thing, digest, f"It is {value}.", rule)


def plan(draft: Draft, second: int, first: bool) -> Hard:
    rng = draft.rng

    def question() -> str:
        return f"Plan {rng.choice(TASKS).format(p=rng.choice(PLACES))}."

    thing, text = _drawn(draft, "plan", question, first)
    steps = rng.sample(STEPS, 3)
    digest = f"Plan: {', '.join(steps)}."
    answer = f"First the {steps[0]}, then the {steps[1]}, then the {steps[2]}."
    rule = Rule("key_facts", tuple(steps))
    return Hard(text.format(q=thing), NOTES["plan"], thing, digest, answer, rule)


def seen(draft: Draft, second: int, first: bool) -> Hard:
    """The question rests on what is seen: what is delegated says it, so that it stands alone."""
    here = [x.picture.name for x in draft.present(second) if x.picture.name in draft.countable]
    # Once a number is no hard question.
    several = sorted({name for name in here if here.count(name) > 1})
    if not several:
        raise Clash("nothing to count")
    name = draft.rng.choice(several)
    count, price = here.count(name), draft.rng.randint(1201, 9899)
    wordings = ASK_HARD["seen"]
    _, text = (
        draft.choose("seen", [name], wordings) if first else draft.pick("seen", [name], wordings)
    )
    query = text.format(n=price, **draft.mention(name))
    value = count * price
    question = f"What is {count} times {price}?"
    digest = f"{count} times {price} is {value}."
    rule = Rule("key_facts", (str(value),))
    return Hard(query, NOTES["sum"], question, digest, f"It is {value}.", rule)


Maker = Callable[[Draft, int, bool], Hard]


def hand_off(draft: Draft, hard: Hard, second: int) -> int | None:
    """Delegate in `second`; returns the second of the result, None where the stream ends first."""
    note = Rule("key_facts", ("let me|moment|will",))
    query = draft.ask(second, hard.query, plain=True)
    task = draft.say(second + 0.95, hard.note, query, note, question=hard.question)
    back = second + draft.rng.randint(3, 12)
    if not draft.free(back):
        back += 2
    if back >= draft.seconds:
        return None
    if draft.rng.random() < ERROR:
        result = draft.result(back, "Error: no answer was found.", task)
        rule = Rule("key_facts", ("sorry",))
        draft.reply(back, "Sorry, I could not find out.", result, rule)
    else:
        draft.reply(back, hard.answer, draft.result(back, hard.digest, task), hard.rule)
    return back


def easy_sum(draft: Draft, second: int) -> None:
    x, y = draft.rng.randint(1, 9), draft.rng.randint(1, 9)
    _, text = draft.pick("easy", [f"{x} {y}"], ASK_HARD["easy"])
    query = draft.ask(second, text.format(x=x, y=y), plain=True)
    draft.reply(second, str(x + y), query, number(x + y))


def _story(draft: Draft, makers: tuple[Maker, ...], alert: bool, easy: bool) -> None:
    rng = draft.rng
    second = rng.randint(2, 4)
    watched: tuple[str, str] | None = None
    if alert:
        name, text = draft.choose("appear", draft.singular)
        watched = (name, draft.ask(rng.randint(0, 1), text.format(**draft.mention(name))))
    # The scene first: questions are asked where nothing moves, alerts come where they fall.
    pool = draft.others(watched[0], count=7) if watched else rng.sample(draft.names, 7)
    pool = [n for n in pool if watched is None or n != watched[0]]
    draft.enter(pool[0], 0)
    comings: list[Actor] = []
    for beat in draft.beats(2, 2, 4):
        here = draft.present(beat)
        old = [x for x in draft.present(beat) if beat >= x.came + 2]
        # What is watched for comes as an alert, and never as a further one of its kind.
        copied = [x.picture.name for x in old if watched is None or x.picture.name != watched[0]]
        copied = [name for name in copied if name in draft.countable]
        if old and (len(here) > 2 or (len(here) > 1 and rng.random() < 0.6)):
            draft.leave(rng.choice(old), beat)
        elif watched and not draft.recent(watched[0], beat) and rng.random() < 0.5:
            comings.append(draft.enter(watched[0], beat))
        elif seen in makers and copied and rng.random() < 0.5:
            draft.enter(copied[0], beat)  # several of one thing, to be counted
        else:
            free = [n for n in pool if not draft.recent(n, beat)]
            draft.enter(rng.choice(free), beat)
    for actor in comings:
        assert watched is not None
        draft.say(actor.came_at, appeared(actor), watched[1], named(actor), until=draft.held(actor))
    # Then the hard questions, one pending at a time, or now and then two.
    first, handed = not alert, 0
    while second < draft.seconds - 4:
        if not (draft.quiet(second) and draft.free(second)):
            second += 1
            continue
        mark = draft.mark()
        try:
            hard = rng.choice(makers)(draft, second, first)
            back = hand_off(draft, hard, second)
        except Clash:
            draft.undo(mark)
            second += 1
            continue
        first, handed = False, handed + 1
        if back is None:
            break
        second = back + 2 if rng.random() < 0.75 else second + rng.randint(3, 5)
    if not handed:
        raise Clash("nothing was delegated")
    if easy:
        for moment in moments(draft, start=2, gap=3):
            try_question(draft, rng.choice((ask_now, ask_is_there, easy_sum)), moment)
    draft.must_own()


def sums(draft: Draft) -> None:
    _story(draft, (arithmetic,), alert=False, easy=True)


def lookups(draft: Draft) -> None:
    _story(draft, (lookup,), alert=False, easy=True)


def plans(draft: Draft) -> None:
    _story(draft, (plan,), alert=False, easy=True)


def seen_sums(draft: Draft) -> None:
    _story(draft, (seen, arithmetic), alert=False, easy=True)


def beside_alerts(draft: Draft) -> None:
    """Delegations while a standing alert goes on."""
    _story(draft, (arithmetic, lookup, plan), alert=True, easy=False)


def mixed(draft: Draft) -> None:
    _story(draft, (arithmetic, lookup, plan, seen), alert=True, easy=True)


KINDS = {
    "sums": Kind(sums, 1.5),
    "lookups": Kind(lookups),
    "plans": Kind(plans),
    "seen_sums": Kind(seen_sums, 0.7),
    "beside_alerts": Kind(beside_alerts),
    "mixed": Kind(mixed, 1.5),
}
