"""Questions at any time about what was, what is and what comes next."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from data_pipeline.world.stories.actor import Actor, Entry, appeared, named, seen_now
from data_pipeline.world.stories.draft import COLOUR_NAMES, Clash, Draft, Kind
from data_pipeline.world.words import capital
from joyvl_train.timeline import Rule

Question = Callable[[Draft, int], None]


def moments(draft: Draft, start: int = 2, gap: int = 2) -> list[int]:
    """Seconds in which a question fits: nothing moves in them, and their windows don't meet."""
    found: list[int] = []
    second = start + draft.rng.randint(0, 2)
    while second < draft.seconds:
        if draft.quiet(second) and draft.free(second):
            found.append(second)
            second += gap + draft.rng.randint(0, 2)
        else:
            second += 1
    return found


def came(draft: Draft, second: int) -> list[Entry]:
    """What came up to the end of `second`, in order."""
    return [e for e in draft.log if e.what == "came" and e.second <= second]


def ask_now(draft: Draft, second: int) -> None:
    draft.all_seen()
    here = draft.present(second)
    if len({x.picture.name for x in here}) < len(here):
        raise Clash("several of one thing")
    _, text = draft.pick("now", [x.noun for x in here] or ["nothing"])
    for actor in here:
        draft.record("now", actor.noun, text)
    said, rule = seen_now(here)
    draft.reply(second, said, draft.ask(second, text), rule)


def ask_is_there(draft: Draft, second: int) -> None:
    here = {x.picture.name for x in draft.present(second)}
    yes = draft.rng.random() < 0.5
    name, text = draft.pick("is_there", here if yes else set(draft.singular) - here)
    query = draft.ask(second, text.format(**draft.mention(name)))
    draft.reply(second, "Yes." if yes else "No.", query, Rule("exact", ("Yes" if yes else "No",)))


def ask_colour(draft: Draft, second: int) -> None:
    here = [x for x in draft.present(second) if x.colour]
    _, text = draft.pick("colour", [x.noun for x in here])
    actor = next(x for x in here if draft.compositions[-1].split(" | ")[1] == x.noun)
    query = draft.ask(second, text.format(**draft.mention(actor.picture.name)))
    draft.reply(second, f"{capital(actor.colour)}.", query, Rule("key_facts", (actor.colour,)))


def ask_how_is(draft: Draft, second: int) -> None:
    here = {x.picture.name: x for x in draft.present(second) if x.picture.name in draft.stateful}
    name, text = draft.pick("how_is", list(here))
    now = here[name].state(second)
    other = draft.rng.choice([s for s in here[name].picture.states if s != now])
    two = [now, other]
    draft.rng.shuffle(two)
    words = draft.mention(name) | {"state": two[0], "state2": two[1]}
    query = draft.ask(second, text.format(**words))
    draft.reply(second, f"{capital(now)}.", query, Rule("key_facts", (now,)))


def ask_was_there(draft: Draft, second: int) -> None:
    ever = {e.actor.picture.name for e in came(draft, second)}
    past = ever - {x.picture.name for x in draft.present(second)}
    yes = draft.rng.random() < 0.5
    name, text = draft.pick("was_there", past if yes else set(draft.singular) - ever)
    query = draft.ask(second, text.format(**draft.mention(name)))
    draft.reply(second, "Yes." if yes else "No.", query, Rule("exact", ("Yes" if yes else "No",)))


def ask_before(draft: Draft, second: int) -> None:
    draft.all_seen()
    entries = came(draft, second)
    names = [e.actor.picture.name for e in entries]
    pairs = {
        late.actor.picture.name: early.actor
        for early, late in pairwise(entries)
        if names.count(late.actor.picture.name) == 1 and late.second > early.second
    }
    name, text = draft.pick("before", list(pairs))
    query = draft.ask(second, text.format(**draft.mention(name)))
    draft.reply(second, f"Before the {name} {pairs[name].a} came.", query, named(pairs[name]))


def ask_left_last(draft: Draft, second: int) -> None:
    draft.all_seen()
    gone = [e for e in draft.log if e.what == "left" and e.second <= second]
    if not gone:
        raise Clash("nothing has left")
    actor = gone[-1].actor
    _, text = draft.pick("left_last", [actor.picture.name])
    draft.reply(second, f"{capital(actor.a)}.", draft.ask(second, text), named(actor))


def ask_came_first(draft: Draft, second: int) -> None:
    draft.all_seen()
    actor = came(draft, second)[0].actor
    _, text = draft.pick("came_first", [actor.picture.name])
    draft.reply(second, f"{capital(actor.a)}.", draft.ask(second, text), named(actor))


def ask_next(draft: Draft, second: int) -> None:
    """Asked now, answered when the next thing comes."""
    draft.all_seen()
    coming = [e for e in draft.log if e.what == "came" and e.second > second]
    if not coming:
        raise Clash("nothing comes any more")
    actor = coming[0].actor
    _, text = draft.pick("next", [actor.picture.name])
    query = draft.ask(second, text)
    draft.say(coming[0].at, appeared(actor), query, named(actor), until=draft.held(actor))


PRESENT: tuple[Question, ...] = (ask_now, ask_is_there, ask_colour, ask_how_is)
BACKWARD: tuple[Question, ...] = (ask_was_there, ask_before, ask_left_last, ask_came_first)
FORWARD: tuple[Question, ...] = (ask_next,)


def scene(draft: Draft, most: int = 2, low: int = 2, high: int = 4) -> None:
    """Things come and go, some of them in a colour of their own, some in several states."""
    rng = draft.rng
    pool = rng.sample(draft.names, min(12, len(draft.names)))
    pool += [n for n in draft.stateful if n not in pool and rng.random() < 0.4]
    tones = [n for n in pool if n in draft.colourful and rng.random() < 0.8]
    draft.enter(pool[0], 0, rng.choice(COLOUR_NAMES) if pool[0] in tones else "")
    draft.parade(pool, draft.beats(rng.randint(1, 3), low, high), most, tones)
    for actor in draft.actors:
        if actor.picture.name in draft.stateful:
            _restless(draft, actor)
    draft.log.sort(key=lambda e: e.at)


def _restless(draft: Draft, actor: Actor) -> None:
    stop = draft.seconds if actor.gone is None else actor.gone
    second = actor.came + draft.rng.randint(2, 4)
    while second < stop - 1:
        states = [s for s in actor.picture.states if s != actor.states[-1][2]]
        draft.change(actor, second, draft.rng.choice(states))
        second += draft.rng.randint(3, 6)


def put(draft: Draft, questions: tuple[Question, ...], start: int = 2) -> None:
    """Ask as many questions as fit; one that makes no sense at its moment, or that would ask of the
    past what was answered before, gives way to another."""
    heard: set[str] = set()
    for second in moments(draft, start):
        order = draft.rng.sample(questions, len(questions))
        for question in order:
            mark = draft.mark()
            if not try_question(draft, question, second):
                continue
            asked = draft.compositions[-1].rpartition(" | ")[0]
            if question not in BACKWARD or asked not in heard:
                heard.add(asked)
                break
            draft.undo(mark)
    if not any(e.role == "assistant" for e in draft.events):
        raise Clash("no question fits")
    draft.must_own()


def try_question(draft: Draft, question: Question, second: int) -> bool:
    """Whether the question could be asked; the draft is as before where it could not."""
    mark = draft.mark()
    try:
        question(draft, second)
    except Clash:
        draft.undo(mark)
        return False
    return True


def present(draft: Draft) -> None:
    scene(draft)
    put(draft, PRESENT)


def backward(draft: Draft) -> None:
    scene(draft)
    put(draft, BACKWARD, start=5)


def forward(draft: Draft) -> None:
    scene(draft, low=3, high=5)
    put(draft, FORWARD, start=0)


def mixed(draft: Draft) -> None:
    scene(draft, low=3, high=5)
    put(draft, PRESENT + BACKWARD + FORWARD)


KINDS = {
    "present": Kind(present),
    "backward": Kind(backward, all_seen=True),
    "forward": Kind(forward, all_seen=True),
    "mixed": Kind(mixed, 1.5),
}
