"""Counting things and actions, and conditions of time: intervals, waits, windows, lengths."""

from __future__ import annotations

from collections.abc import Callable

from data_pipeline.world.stories.actor import appeared, named, number, seen_now
from data_pipeline.world.stories.alerting import visits
from data_pipeline.world.stories.draft import Clash, Draft, Kind
from data_pipeline.world.stories.qa import moments, try_question


def _numbers(low: int, high: int) -> list[str]:
    return [str(n) for n in range(low, high + 1)]


def crowd(draft: Draft, name: str, start: int, share: float = 0.65) -> list[float]:
    """Several of one thing come, some staying, among other things; the moments of their coming."""
    rng, found = draft.rng, list[float]()
    others = draft.others(name)
    for second in draft.beats(start, 2, 3):
        old = [x for x in draft.present(second) if second >= x.came + 2]
        room = len(draft.present(second)) < 3
        if old and (not room or rng.random() < 0.3):
            draft.leave(rng.choice(old), second)
        elif room and rng.random() < share:
            found.append(draft.enter(name, second).came_at)
        elif room:
            draft.enter(rng.choice(others), second)
    return found


def arrivals(draft: Draft) -> None:
    """Each one that comes gets its number."""
    name, text = draft.choose("count", draft.countable)
    query = draft.ask(draft.rng.randint(0, 2), text.format(**draft.mention(name)))
    found = crowd(draft, name, 3)
    if not found:
        raise Clash("none came")
    for count, at in enumerate(found, 1):
        draft.say(at, str(count), query, number(count))


def total(draft: Draft) -> None:
    """How many have come, whenever it is asked."""
    name, _ = draft.choose("total", draft.countable)
    draft.compositions.clear()
    found = crowd(draft, name, 1)

    def question(draft: Draft, second: int) -> None:
        _, text = draft.pick("total", [name])
        query = draft.ask(second, text.format(**draft.mention(name)))
        count = sum(at < second + 1 for at in found)
        draft.reply(second, str(count), query, number(count))

    for second in moments(draft, start=3, gap=3):
        try_question(draft, question, second)
    if not draft.events:
        raise Clash("no question fits")
    draft.must_own()


def states(draft: Draft) -> None:
    """How often a thing goes into a state: a lamp that goes on and off."""
    rng = draft.rng
    pairs = [f"{n}: {s}" for n in draft.stateful for s in draft.thing(n).states]
    pair, text = draft.choose("count_state", pairs)
    name, wanted = pair.split(": ")
    rest = [s for s in draft.thing(name).states if s != wanted]
    actor = draft.enter(name, 0, state=rng.choice(rest))
    query = draft.ask(rng.randint(0, 2), text.format(state=wanted, **draft.mention(name)))
    second, count = 3 + rng.randint(0, 2), 0
    while second < draft.seconds - 1:
        count += 1
        draft.say(draft.change(actor, second, wanted).at, str(count), query, number(count))
        second += rng.randint(1, 2)
        if second < draft.seconds:
            draft.change(actor, second, rng.choice(rest))
        second += rng.randint(1, 3)


JUMPERS = (
    "basketball",
    "soccer ball",
    "tennis ball",
    "rubber duck",
    "teddy bear",
    "orange",
    "ball",
    "balloon",
    "apple",
    "box",
    "hat",
    "star",
    "heart",
    "drum",
    "cup",
    "book",
)


def bounces(draft: Draft) -> None:
    """How often a thing that hangs in the air comes down to the ground."""
    rng = draft.rng
    name, text = draft.choose("count_jumps", [n for n in JUMPERS if n in draft.names])
    draft.places = [0, 1]
    actor = draft.enter(name, 0)
    low = 1 - actor.size / 2
    query = draft.ask(rng.randint(0, 2), text.format(**draft.mention(name)))
    second, count = 3 + rng.randint(0, 2), 0
    while second < draft.seconds - 1:
        count += 1
        x, y = actor.x, actor.y
        actor.waypoints += [
            (second + 0.4, x, y),
            (second + 0.85, x, low),
            (second + 1.02, x, low),
            (second + 1.45, x, y),
        ]
        draft.say(second + 0.85, str(count), query, number(count))
        second += rng.randint(2, 4)


def every(draft: Draft) -> None:
    """The time passed since the question, at a fixed interval."""
    interval, text = draft.choose("every", _numbers(3, 8))
    _ticks(
        draft, int(interval), text, lambda n: (f"{n * int(interval)} seconds", n * int(interval))
    )


def ladder(draft: Draft) -> None:
    """A count that goes up by one at a fixed interval."""
    interval, text = draft.choose("ladder", _numbers(3, 8))
    _ticks(draft, int(interval), text, lambda n: (str(n), n))


def _ticks(draft: Draft, interval: int, text: str, said: Callable[[int], tuple[str, int]]) -> None:
    asked = draft.rng.randint(0, 4)
    query = draft.ask(asked, text.format(n=interval))
    _passers(draft)
    for n, second in enumerate(range(asked + interval, draft.seconds, interval), 1):
        words, value = said(n)
        draft.say(second + 0.95, words, query, number(value), early=1, late=1)


def _passers(draft: Draft) -> None:
    """Things come and go that nobody asked for."""
    names = draft.rng.sample(draft.names, min(8, len(draft.names)))
    draft.parade(names, draft.beats(draft.rng.randint(0, 3), 2, 5), 2)


def countdown(draft: Draft) -> None:
    """A timer, and another when it has rung."""
    _passers(draft)
    second = draft.rng.randint(0, 3)
    while True:
        wait, text = draft.pick("countdown", _numbers(3, 12))
        if second + int(wait) >= draft.seconds:
            draft.compositions.pop()
            break
        query = draft.ask(second, text.format(n=wait))
        said = f"{wait} seconds have passed."
        draft.say(second + int(wait) + 0.95, said, query, number(int(wait)), early=1, late=1)
        second += int(wait) + draft.rng.randint(2, 4)
    if not draft.events:
        raise Clash("the stream is too short")
    draft.must_own()


def withhold(draft: Draft) -> None:
    """A question whose answer is to wait: it tells what is there then."""
    rng = draft.rng
    second = rng.randint(1, 3)
    due: list[tuple[int, str]] = []
    while True:
        wait, text = draft.pick("withhold", _numbers(3, 9))
        if second + int(wait) + 1 >= draft.seconds:
            draft.compositions.pop()
            break
        due.append((second + int(wait), draft.ask(second, text.format(n=wait))))
        second += int(wait) + rng.randint(2, 3)
    # Around the moment of the answer nothing moves: a second early or late sees the same.
    still = {t + d for t, _ in due for d in (-1, 0, 1)}
    names = rng.sample(draft.names, min(10, len(draft.names)))
    draft.enter(names[0], 0)
    draft.parade(names, [s for s in draft.beats(2, 1, 3) if s not in still], 2)
    for answer, query in due:
        said, rule = seen_now(draft.present(answer))
        draft.say(answer + 0.95, said, query, rule, early=1, late=1)
    if not due:
        raise Clash("the stream is too short")
    draft.must_own()


def window(draft: Draft) -> None:
    """Alerts only within a span of time from the question."""
    _window(draft, "window")


def window_after(draft: Draft) -> None:
    """Alerts only after a span of time."""
    _window(draft, "window_after")


def _window(draft: Draft, event: str) -> None:
    name, text = draft.choose(event, draft.countable)
    asked = draft.rng.randint(0, 2)
    span = draft.rng.randint(6, max(7, draft.seconds * 2 // 3))
    query = draft.ask(asked, text.format(n=span, **draft.mention(name)))
    turn, reports = asked + span, 0
    for actor in visits(draft, name, draft.others(name), 2, share=0.7):
        if abs(actor.came - turn) <= 1:
            raise Clash("too close to the edge of the window to tell")
        if (actor.came < turn) == (event == "window") and actor.came > asked:
            reports += 1
            draft.say(actor.came_at, appeared(actor), query, named(actor))
    if not reports:
        raise Clash("nothing to report")


def lasted(draft: Draft) -> None:
    """How long each stay was, told at its end."""
    name, text = draft.choose("lasted", draft.countable)
    query = draft.ask(draft.rng.randint(0, 1), text.format(**draft.mention(name)))
    ended = 0
    for actor in visits(draft, name, draft.others(name, count=3), 2, share=0.8):
        if actor.gone is not None:
            ended += 1
            length = actor.gone - actor.came
            draft.say(actor.gone_at, f"{length} seconds", query, number(length))
    if not ended:
        raise Clash("no stay ended")


KINDS = {
    "arrivals": Kind(arrivals, 2.0),
    "total": Kind(total),
    "states": Kind(states, 1.2, ("states",)),
    "bounces": Kind(bounces, 1.0, ("jumpers",)),
    "every": Kind(every),
    "ladder": Kind(ladder),
    "countdown": Kind(countdown),
    "withhold": Kind(withhold, all_seen=True),
    "window": Kind(window, 0.7),
    "window_after": Kind(window_after, 0.7),
    "lasted": Kind(lasted),
}
