"""A stream in the making: its scene, the log of what happens in it, and what is said.

A story calls `enter`, `change` and `leave` in order of time and says what is due.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from data_pipeline.world import scene as world_scene
from data_pipeline.world.backgrounds import Background
from data_pipeline.world.captions import Caption
from data_pipeline.world.pictures import COLOURS, Picture, picture_set
from data_pipeline.world.scene import Cut, Scene
from data_pipeline.world.splits import Split, allowed, composition, group, own_pairs
from data_pipeline.world.stories.actor import Actor, Entry
from data_pipeline.world.stories.backdrop import SHOWS
from data_pipeline.world.wordings import ASK
from data_pipeline.world.words import MANY, STATES, fits, forms, polite
from joyvl_train.timeline import Clip, Event, Rule, Timeline

SIDE = 96
"""Width and height of the scenes, in pixels; they are drawn at any other size as well."""

BOX = ((0.27, 0.28), (0.73, 0.28), (0.27, 0.72), (0.73, 0.72))
"""Centres of the places where things stand; no two things share one."""

COLOUR_NAMES = tuple(COLOURS)


class Clash(Exception):
    """This draw of a story doesn't work out; the next one is taken."""


@dataclass(frozen=True)
class Kind:
    """One kind of stream: `write` tells its story into a draft; `weight` is its share in the
    family. `needs` is what the picture set must offer: "states", "colours". `all_seen`: it tells of
    all that is seen, so it is never told before footage, which shows things of its own."""

    write: Callable[[Draft], None]
    weight: float = 1.0
    needs: tuple[str, ...] = ()
    all_seen: bool = False


def stateful(things: Iterable[Picture]) -> tuple[str, ...]:
    """Those of `things`, by name, whose states can be told with "is": "The door is open."."""
    return tuple(
        p.name
        for p in things
        if p.article in ("a", "an") and len(p.states) > 1 and set(p.states) <= set(STATES)
    )


@lru_cache(maxsize=4096)
def _pairs(
    event: str, things: tuple[str, ...], wordings: tuple[str, ...], split: Split
) -> list[tuple[str, str]]:
    return own_pairs(event, things, wordings, split)


class Draft:
    """What a story writes into. `seconds` is the whole length of the stream."""

    def __init__(
        self,
        rng: random.Random,
        split: Split,
        seconds: int,
        pictures: Literal["drawn", "photo"],
        background: Background,
    ) -> None:
        self.rng = rng
        self.split: Split = split
        self.seconds = seconds
        self.pictures = pictures
        self.background = background
        shown = SHOWS.get(background.name, ()) if background.kind == "footage" else ()
        self.things = tuple(p for p in picture_set(pictures) if p.name not in shown)
        self.opening = ""
        self.meta: dict[str, object] = {}
        self.actors: list[Actor] = []
        self.captions: list[Caption] = []
        self.events: list[Event] = []
        self.log: list[Entry] = []
        self.compositions: list[str] = []
        self.places = list(range(len(BOX)))
        self._onsets: list[tuple[int, int]] = []

    # What there is to choose from.

    def thing(self, name: str) -> Picture:
        return next(p for p in self.things if p.name == name)

    @property
    def names(self) -> tuple[str, ...]:
        """All things by name."""
        return tuple(p.name for p in self.things)

    @property
    def singular(self) -> tuple[str, ...]:
        """Things that go with a verb in the singular: all but scissors and their like."""
        return tuple(p.name for p in self.things if p.name not in MANY)

    @property
    def countable(self) -> tuple[str, ...]:
        """Things of which there can be several."""
        return tuple(p.name for p in self.things if p.article in ("a", "an"))

    @property
    def colourful(self) -> tuple[str, ...]:
        """Things that come in several colours, with a singular name."""
        return tuple(p.name for p in self.things if p.colours and p.article in ("a", "an"))

    @property
    def stateful(self) -> tuple[str, ...]:
        """Things whose states can be told with "is"."""
        return stateful(self.things)

    def choose(
        self, event: str, things: Iterable[str], ask: str | Sequence[str] | None = None
    ) -> tuple[str, str]:
        """A (thing, wording) of `event` that belongs to this split, recorded as a composition."""
        wordings = ASK[ask or event] if ask is None or isinstance(ask, str) else tuple(ask)
        pairs = self._fitting(_pairs(event, tuple(sorted(things)), wordings, self.split))
        if not pairs:
            raise Clash(f"{event}: the split {self.split} holds none of these")
        thing, text = self.rng.choice(pairs)
        self.compositions.append(composition(event, thing, text))
        return thing, text

    def pick(
        self, event: str, things: Iterable[str], ask: str | Sequence[str] | None = None
    ) -> tuple[str, str]:
        """As `choose`, but where the split holds none of these a pair of training will do."""
        wordings = ASK[ask or event] if ask is None or isinstance(ask, str) else tuple(ask)
        names = tuple(sorted(things))
        splits: tuple[Split, ...] = (self.split, "train")
        for split in splits:
            pairs = self._fitting(_pairs(event, names, wordings, split))
            if pairs:
                thing, text = self.rng.choice(pairs)
                self.compositions.append(composition(event, thing, text))
                return thing, text
        raise Clash(f"{event}: the split {self.split} holds none of these")

    def _fitting(self, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those of the pairs that read well; what is no thing by name goes with every wording."""
        articles = {p.name: p.article for p in self.things}
        return [(name, text) for name, text in pairs if fits(text, articles.get(name, "a"))]

    @property
    def own(self) -> bool:
        """Whether the stream holds a composition that is its split's alone."""
        return any(group(key) == self.split for key in self.compositions)

    def must_own(self) -> None:
        """Raise `Clash` unless a composition of the split's own is among those recorded."""
        if not self.own:
            raise Clash("no composition of the split's own")

    def mark(self) -> tuple[int, int, int]:
        """A point that `undo` goes back to: what was said, asked and recorded until now."""
        return len(self.events), len(self.compositions), len(self._onsets)

    def undo(self, mark: tuple[int, int, int]) -> None:
        del self.events[mark[0] :], self.compositions[mark[1] :], self._onsets[mark[2] :]

    def fellows(self, event: str, things: Iterable[str], text: str) -> list[str]:
        """Those of `things` that may be reported under this wording as well."""
        own = [(t, text) for t in things if allowed(composition(event, t, text), self.split)]
        return [thing for thing, _ in self._fitting(own)]

    def record(self, event: str, thing: str, text: str) -> None:
        """Record a further composition; raises `Clash` where the split may not hold it."""
        key = composition(event, thing, text)
        if not allowed(key, self.split):
            raise Clash(key)
        if key not in self.compositions:
            self.compositions.append(key)

    def mention(self, name: str, colour: str = "") -> dict[str, str]:
        """Forms of one of the thing's names, most often its first."""
        thing = self.thing(name)
        noun = (
            thing.name
            if self.rng.random() < 0.7
            else self.rng.choice([n for n in thing.names if n not in MANY] or thing.names)
        )
        found = forms(f"{colour} {noun}" if colour else noun, thing.article)
        if noun == thing.name:
            found["s"] = f"{colour} {thing.plural}".strip()
        return found

    def alike(self, name: str) -> list[str]:
        """Things of the same category, which are easily mistaken for it."""
        category = self.thing(name).category
        return [p.name for p in self.things if p.category == category and p.name != name]

    def others(self, *names: str, count: int = 6) -> list[str]:
        """Some other things, those like the first of `names` ahead of the rest."""
        near = [n for n in self.alike(names[0]) if n not in names]
        self.rng.shuffle(near)
        rest = [n for n in self.names if n not in names and n not in near]
        return (near[: count // 2] + self.rng.sample(rest, min(count, len(rest))))[:count]

    # What happens.

    def beats(self, start: int, low: int, high: int, stop: int | None = None) -> list[int]:
        """Seconds from `start` to before `stop` (the stream's last but one), `low` to `high`
        apart."""
        found, second = [], start
        while second < (self.seconds - 1 if stop is None else stop):
            found.append(second)
            second += self.rng.randint(low, high)
        return found

    def all_seen(self) -> None:
        """Raise `Clash` where more is to be seen than the story shows: before footage nobody can
        say what all there is, what came first or what comes next."""
        if self.background.kind == "footage":
            raise Clash("footage shows things of its own")

    def present(self, second: int) -> list[Actor]:
        """The actors visible at the end of `second`, in order of coming."""
        return [actor for actor in self.actors if actor.there(second)]

    def enter(
        self, name: str, second: int, colour: str = "", state: str = "", told: bool = False
    ) -> Actor:
        """A thing comes: it is first seen at the end of `second`, all at once or moving in.

        At second 0 it is there from the start. Where no colour is asked for, some things get one.
        Raises `Clash` where no place is free.
        """
        rng, thing = self.rng, self.thing(name)
        if not colour and thing.colours and rng.random() < 0.4:
            colour = rng.choice(COLOUR_NAMES)
        taken = {
            actor.place for actor in self.actors if actor.gone is None or actor.gone >= second - 1
        }
        free = [place for place in self.places if place not in taken]
        if not free:
            raise Clash(f"no place for {name} at {second} s")
        place = rng.choice(free)
        moving = second > 0 and rng.random() < 0.5
        size = round(rng.uniform(0.32, 0.46), 3)
        room = 0.02 + (0.46 - size) / 2
        # Who moves in does so within the second: a second earlier there is next to nothing of it.
        early = 0.3 if moving else 0.05
        actor = Actor(
            thing,
            colour,
            place,
            BOX[place][0] + rng.uniform(-room, room),
            BOX[place][1] + rng.uniform(-room, room),
            size,
            second,
            0.0 if second == 0 else round(second + rng.uniform(early, 0.6), 2),
            rng.uniform(0.9, 2.0) if moving else None,
            rng.random() < 0.5,
            told,
            edge=rng.choice(
                ((-1 if BOX[place][0] < 0.5 else 1, 0), (0, -1 if BOX[place][1] < 0.5 else 1))
            ),
        )
        first = state or (thing.states[0] if thing.states else "")
        actor.states.append((second, actor.came_at, first))
        self.actors.append(actor)
        self.log.append(Entry(second, actor.came_at, "came", actor, first))
        return actor

    def leave(self, actor: Actor, second: int) -> Entry:
        """The actor goes: it is first gone at the end of `second`."""
        assert actor.gone is None and second >= actor.came + 2, (actor.came, second)
        actor.gone, actor.gone_at = second, round(second + self.rng.uniform(0.4, 0.85), 2)
        if self.rng.random() < 0.5:
            actor.outward = self.rng.uniform(0.9, 2.0)
        entry = Entry(second, actor.gone_at, "left", actor)
        self.log.append(entry)
        return entry

    def change(self, actor: Actor, second: int, state: str) -> Entry:
        """The actor's state changes in `second`."""
        assert actor.there(second) and second > actor.states[-1][0]
        at = round(second + self.rng.uniform(0.05, 0.85), 2)
        actor.states.append((second, at, state))
        entry = Entry(second, at, "changed", actor, state)
        self.log.append(entry)
        return entry

    def parade(
        self,
        names: Sequence[str],
        seconds: Sequence[int],
        most: int = 3,
        coloured: Sequence[str] = (),
        told: bool = False,
        often: Sequence[str] = (),
    ) -> list[Entry]:
        """At each of `seconds` something comes or goes: at most `most` at once, none twice at
        once; those of `coloured` in a colour of their own. Those of `often` come again and again.
        Returns its part of the log."""
        log: list[Entry] = []
        fresh = list(names)
        for second in seconds:
            here = [actor for actor in self.present(second) if actor.came <= second - 2]
            count = len(self.present(second))
            coming = [n for n in fresh if all(n != x.picture.name for x in self.actors)]
            if not coming:
                here_names = {x.picture.name for x in self.present(second)}
                coming = [n for n in fresh if n not in here_names and not self.recent(n, second)]
            again = [n for n in often if not self.recent(n, second)]
            if again and self.rng.random() < 0.6:
                coming = again
            go = here and (count >= most or not coming or (count > 0 and self.rng.random() < 0.4))
            if go:
                log.append(self.leave(self.rng.choice(here), second))
            elif coming and count < most:
                name = self.rng.choice(coming)
                colour = self.rng.choice(COLOUR_NAMES) if name in coloured else ""
                self.enter(name, second, colour, told=told and bool(colour))
                log.append(self.log[-1])
        return log

    def recent(self, name: str, second: int) -> bool:
        """Whether the thing is there, or was a moment ago."""
        return any(
            x.picture.name == name and (x.gone is None or x.gone >= second - 1) for x in self.actors
        )

    def recent_other(self, actor: Actor, second: int) -> bool:
        """Whether another thing of the actor's name is there."""
        return any(
            x is not actor and x.picture.name == actor.picture.name for x in self.present(second)
        )

    def quiet(self, second: int) -> bool:
        """Whether nothing comes, goes or changes in this second."""
        return all(entry.second != second for entry in self.log)

    # What is said.

    def free(self, second: int, early: int = 0, late: int = 1) -> bool:
        """Whether a response due in `second` leaves the windows of all others alone."""
        return 0 <= second < self.seconds and all(
            second - early > last or second + late < first for first, last in self._onsets
        )

    def ask(self, second: int, text: str, plain: bool = False) -> str:
        """The user says `text` in `second`, now and then with a polite word (never where `plain`);
        returns the event's id."""
        if not 0 <= second < self.seconds:
            raise Clash(f"a question at {second} s")
        at = round(second + self.rng.uniform(0.02, 0.4), 2)
        text = text if plain else polite(self.rng, text)
        return self._add(Event(f"q{len(self.events)}", at, "user", text))

    def result(self, second: int, text: str, answers: str) -> str:
        """The background model returns `text` in `second`."""
        at = round(second + self.rng.uniform(0.05, 0.6), 2)
        return self._add(Event(f"b{len(self.events)}", at, "background", text, answers=answers))

    def say(
        self,
        at: float,
        text: str,
        answers: str | None,
        rule: Rule,
        until: float | None = None,
        repeat: bool = False,
        question: str | None = None,
        early: int | None = None,
        late: int | None = None,
    ) -> str:
        """A response is due at the moment `at`. Raises `Clash` where windows would overlap."""
        second = int(at)
        before, after = early or 0, 1 if late is None else late
        if not self.free(second, before, after):
            raise Clash(f"two responses around {second} s")
        if repeat and until is not None:
            after = max(after, int(until) - second)
        self._onsets.append((second - before, second + after))
        event = Event(
            f"a{len(self.events)}",
            at,
            "assistant",
            text,
            question=question,
            until=until,
            repeat=repeat,
            answers=answers,
            rule=rule,
            early=early,
            late=late,
        )
        return self._add(event)

    def reply(self, second: int, text: str, answers: str, rule: Rule) -> str:
        """A response at the end of the second in which it was asked for."""
        return self.say(second + 0.95, text, answers, rule)

    def held(self, actor: Actor) -> float:
        """Until when the actor is there, as `Event.until`: whole seconds."""
        return float(self.seconds if actor.gone is None else actor.gone)

    def _add(self, event: Event) -> str:
        self.events.append(event)
        return event.id

    # The end.

    def timeline(self, family: str, kind: str, clip_id: str, rate: float) -> Timeline:
        """The finished record; the clip's scene is plain data."""
        rng = self.rng
        scene = Scene(
            SIDE,
            SIDE,
            float(self.seconds),
            rng.randrange(2**31),
            (Cut(0.0, self.background),),
            tuple(actor.track(float(self.seconds)) for actor in self.actors),
            tuple(self.captions),
            self.pictures,
            noise=rng.choice((0.0, 0.01, 0.02)),
            drift=rng.choice((0.0, 0.03)),
        )
        roles = {"user": 0, "background": 1, "assistant": 2}
        events = sorted(self.events, key=lambda e: (e.time, roles[e.role]))
        return Timeline(
            Clip(clip_id, float(self.seconds), scene=world_scene.to_json(scene)),
            family,
            "world",
            tuple(events),
            rate,
            self.opening,
            {
                "kind": kind,
                "split": self.split,
                "pictures": self.pictures,
                "background": self.background.kind,
                "compositions": list(self.compositions),
                **self.meta,
            },
        )
