"""Correct timelines of the rendered world, damaged in a known way: what a verifier ought to find.

    damaged = damage(timeline, "wrong object", seed=0)
    flow = corrupting(share=0.2, seed=0)[1](candidates)

Each kind of damage is a function of a timeline and random numbers; it changes one thing and tells
what, or gives None where the timeline has nothing that could be damaged so. What it makes is wrong
by the world's log: a thing that is put in is in no second of the scene, a colour is nothing's.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from data_pipeline.candidates import CORRUPTION, Candidate, id_of
from data_pipeline.families import Step
from data_pipeline.world import scene as world_scene
from data_pipeline.world.pictures import COLOURS, Picture, picture_set
from data_pipeline.world.scene import Scene
from data_pipeline.world.words import MANY, a, capital
from joyvl_train import content
from joyvl_train.timeline import Event, Timeline

STAGE = CORRUPTION
MOVES = (1, 2, 4)
"""Seconds by which an onset is moved."""

EARLY = 3
"""An answer before its evidence comes at least so many seconds before it."""

_NOTE = "Let me look that up."
_BACK = 3
_ARTICLE = r"(?:\b(a|an|some)\s+)?"
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Damaged:
    """A timeline of which one thing is wrong. `event` is the id of the line that is, `second` when
    it is said, `detail` what was done."""

    timeline: Timeline
    kind: str
    event: str
    second: int
    detail: str


Change = tuple[Timeline, Event, str]
"""The damaged timeline, the event in it that is wrong, and what was done."""

Damage = Callable[[Timeline, random.Random], Change | None]


def damage(timeline: Timeline, kind: str, seed: int = 0) -> Damaged | None:
    """The timeline with one damage of this kind; None where there is nothing to damage so.

    Equal arguments give equal damage. `ValueError` for an unknown kind, or a clip without a scene,
    of which nobody knows what is right.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    if timeline.clip.scene is None:
        raise ValueError(f"clip {timeline.clip.id!r} has no scene: only the world's can be damaged")
    rng = random.Random(f"{seed} | {timeline.clip.id} | {kind}")
    change = KINDS[kind](timeline, rng)
    if change is None:
        return None
    wrong, event, detail = change
    return Damaged(wrong, kind, event.id, event.second, detail)


def corrupting(share: float, *, seed: int = 0, kinds: Sequence[str] = ()) -> Step:
    """A stage that damages this share of the open candidates, by `kinds` in turn (all, where none
    are named), and lets the others by. What it did stands in the history.

    Of n candidates `share * n` are damaged, rounded down, as long as they offer something to
    damage; equal candidates in equal order come out equal.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share {share!r}: from 0 to 1")
    chosen = tuple(kinds) or tuple(KINDS)
    if unknown := [kind for kind in chosen if kind not in KINDS]:
        raise ValueError(f"kinds {unknown!r}: known are {', '.join(KINDS)}")

    def stage(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        owed, done = 0.0, dict.fromkeys(chosen, 0)
        for candidate in candidates:
            if candidate.status != "open" or candidate.timeline.clip.scene is None:
                yield candidate
                continue
            owed += share
            damaged = None
            if owed >= 1 - 1e-9:
                for kind in sorted(chosen, key=lambda kind: done[kind]):
                    damaged = damage(candidate.timeline, kind, seed)
                    if damaged is not None:
                        break
            if damaged is None:
                yield candidate
                continue
            owed -= 1
            done[damaged.kind] += 1
            yield _as_candidate(candidate, damaged, seed)

    return STAGE, stage


def _as_candidate(candidate: Candidate, damaged: Damaged, seed: int) -> Candidate:
    told = {"kind": damaged.kind, "event": damaged.event, "second": damaged.second}
    made = replace(
        candidate,
        id=id_of(candidate.id, STAGE, damaged.kind, seed),
        work={**candidate.work, STAGE: told},
        summaries=(),
    )
    return made.changed(STAGE, damaged.timeline, f"{damaged.kind}: {damaged.detail}")


# The kinds.


def moved(by: int, timeline: Timeline, rng: random.Random) -> Change | None:
    """A line comes `by` seconds too early or too late."""
    choices = []
    for event in _lines(timeline):
        for seconds, spared in ((-by, event.early), (by, event.late)):
            second = event.second + seconds
            if by > (spared or 0) and second > _earliest(timeline, event):
                if _free(timeline, second, event):
                    choices.append((event, seconds))
    if not choices:
        return None
    event, seconds = rng.choice(choices)
    wrong = _at(event, event.second + seconds)
    way = "early" if seconds < 0 else "late"
    return _with(timeline, wrong), wrong, f"{event.text!r} {by} s {way}, at {wrong.second} s"


def wrong_object(timeline: Timeline, rng: random.Random) -> Change | None:
    """A line names another thing than it should, one that the clip never shows."""
    scene, others = _scene(timeline), _absent(timeline)
    choices = []
    for event in _lines(timeline):
        for one in picture_set(scene.pictures):
            for name in one.names:
                # "A traffic light" is no light.
                if re.search(rf"\b{name}\b", event.text, re.IGNORECASE) and not any(
                    name != longer and name in longer and longer in event.text.lower()
                    for other in picture_set(scene.pictures)
                    for longer in other.names
                ):
                    choices.append((event, name))
    if not choices or not others:
        return None
    event, name = rng.choice(choices)
    other = rng.choice(others)
    text = _renamed(event.text, name, other)
    wrong = replace(event, text=text, rule=None)
    return _with(timeline, wrong), wrong, f"{event.text!r} became {text!r}"


def wrong_words(timeline: Timeline, rng: random.Random) -> Change | None:
    """A line says what another line of the clip says."""
    lines = _lines(timeline)
    choices = []
    for event in lines:
        for text in dict.fromkeys(e.text for e in lines):
            right = content.right(event.rule, event.text, text)
            if right is False and content.tokens(text) != content.tokens(event.text):
                choices.append((event, text))
    if not choices:
        return None
    event, text = rng.choice(choices)
    wrong = replace(event, text=text, rule=None)
    return _with(timeline, wrong), wrong, f"{event.text!r} became {text!r}"


def wrong_count(timeline: Timeline, rng: random.Random) -> Change | None:
    """A line tells one more or one less."""
    counted = [e for e in _lines(timeline) if e.rule and e.rule.kind == "number"]
    counted = [e for e in counted if len(_NUMBER.findall(e.text)) == 1]
    if not counted:
        return None
    event = rng.choice(counted)
    number = int(_NUMBER.findall(event.text)[0])
    other = number + (rng.choice((-1, 1)) if number > 1 else 1)
    wrong = replace(event, text=_NUMBER.sub(str(other), event.text), rule=None)
    return _with(timeline, wrong), wrong, f"{event.text!r} became {wrong.text!r}"


def wrong_colour(timeline: Timeline, rng: random.Random) -> Change | None:
    """A line tells another colour, one that nothing in the clip has."""
    tracks = _scene(timeline).tracks
    shown = {track.colour for track in tracks} | {k.state for t in tracks for k in t.keys}
    others = [colour for colour in COLOURS if colour not in shown]
    choices = []
    for event in _lines(timeline):
        said = [c for c in COLOURS if re.search(rf"\b{c}\b", event.text, re.IGNORECASE)]
        choices += [(event, colour) for colour in said if colour in shown]
    if not choices or not others:
        return None
    event, colour = rng.choice(choices)
    text = _replaced(event.text, colour, rng.choice(others))
    wrong = replace(event, text=text, rule=None)
    return _with(timeline, wrong), wrong, f"{event.text!r} became {text!r}"


def before_evidence(timeline: Timeline, rng: random.Random) -> Change | None:
    """A line comes after what asked for it, but before what it rests on."""
    choices = []
    for event in _lines(timeline):
        first = _earliest(timeline, event) + 1
        for second in range(first, event.second - EARLY + 1):
            if _free(timeline, second, event):
                choices.append((event, second))
    if not choices:
        return None
    event, second = rng.choice(choices)
    wrong = _at(event, second)
    return _with(timeline, wrong), wrong, f"{event.text!r} at {second} s, not {event.second} s"


def seen_earlier(timeline: Timeline, rng: random.Random) -> Change | None:
    """An alert about what was there before it was asked for: the instruction and the alert are
    moved into the state that the alert reports."""
    choices = []
    for event in _lines(timeline):
        query = _query(timeline, event)
        if event.until is None or query is None or query.second >= event.second:
            continue
        for second in list(event.held_seconds)[3:-1]:
            if _free(timeline, second, event) and second < event.until:
                choices.append((event, query, second))
    if not choices:
        return None
    event, query, second = rng.choice(choices)
    asked = replace(query, time=float(event.second + 1))
    wrong = replace(event, time=float(second))
    # What was said on the instruction before it is given now has nothing to answer.
    gone = {
        e.id
        for e in timeline.of("assistant")
        if e.answers == query.id and e.id != event.id and e.second <= second
    }
    left = [e for e in timeline.events if e.id not in gone]
    made = _with(replace(timeline, events=tuple(left)), asked, wrong)
    return made, wrong, f"{event.text!r} at {second} s, asked for at {asked.second} s, there before"


def ungrounded(timeline: Timeline, rng: random.Random) -> Change | None:
    """Talk about a thing that the clip never shows, in a second that should be silent."""
    others, seconds = _absent(timeline), timeline.clip.seconds or 0
    asked = [e.second for e in timeline.of("user")]
    silent = [
        second
        for second in range(1 + min(asked, default=-1), seconds)
        if second not in asked and all(_free(timeline, t) for t in (second - 1, second, second + 1))
    ]
    if not silent or not others:
        return None
    second, thing = rng.choice(silent), rng.choice(others)
    noun = a(thing.name, thing.article)
    text = f"I see {noun}." if timeline.family == "chat" else f"{capital(noun)} appeared."
    before = [e.id for e in timeline.of("user") if e.second < second]
    query = before[-1] if before else None
    wrong = Event(_new_id(timeline), second + 0.5, "assistant", text, answers=query)
    made = replace(timeline, events=(*timeline.events, wrong))
    return made, wrong, f"{text!r} at {second} s, which is never seen"


def easy_delegation(timeline: Timeline, rng: random.Random) -> Change | None:
    """A question that is answered at once is handed over instead, and its answer comes later."""
    choices = []
    for event in _lines(timeline):
        query = _query(timeline, event)
        back = event.second + _BACK
        if query is not None and query.id == event.answers and query.second == event.second:
            if back < (timeline.clip.seconds or 0) and _free(timeline, back, event):
                choices.append((event, query, back))
    if not choices:
        return None
    event, query, back = rng.choice(choices)
    wrong = replace(event, text=_NOTE, question=query.text, rule=None, until=None)
    number = _new_id(timeline)
    result = Event(f"{number}b", float(back), "background", event.text, answers=event.id)
    told = replace(event, id=number, time=back + 0.5, answers=result.id, until=None)
    made = replace(_with(timeline, wrong), events=(*_with(timeline, wrong).events, result, told))
    return made, wrong, f"{query.text!r} is handed over"


KINDS: Mapping[str, Damage] = {
    **{f"moved {by} s": partial(moved, by) for by in MOVES},
    "wrong object": wrong_object,
    "wrong words": wrong_words,
    "wrong count": wrong_count,
    "wrong colour": wrong_colour,
    "before evidence": before_evidence,
    "seen earlier": seen_earlier,
    "ungrounded talk": ungrounded,
    "easy delegation": easy_delegation,
}


# What they stand on.


def _scene(timeline: Timeline) -> Scene:
    assert timeline.clip.scene is not None
    return world_scene.from_json(timeline.clip.scene)


def _lines(timeline: Timeline) -> list[Event]:
    """What is said once; what is repeated would stay right in the other seconds."""
    return [e for e in timeline.of("assistant") if e.question is None and not e.repeat]


def _query(timeline: Timeline, event: Event) -> Event | None:
    """What the user said that a line follows from, over a delegation and its result if need be."""
    events = {e.id: e for e in timeline.events}
    found = events.get(event.answers or "")
    while found is not None and found.role != "user":
        found = events.get(found.answers or "")
    return found


def _earliest(timeline: Timeline, event: Event) -> int:
    """The second of what a line follows from: an answer before that needs no look to be found."""
    events = {e.id: e for e in timeline.events}
    cause = events.get(event.answers or "")
    if cause is not None and cause.role == "background":
        cause = events.get(cause.answers or "")
    return -1 if cause is None else cause.second


def _free(timeline: Timeline, second: int, event: Event | None = None) -> bool:
    """Whether nothing is said in this second, and, of an event that is moved there, nothing that
    would make it right: the same words, due there or a second beside."""
    if not 0 <= second < (timeline.clip.seconds or 0):
        return False
    for other in timeline.of("assistant"):
        if event is not None and other.id == event.id:
            continue
        if other.second == second or (other.repeat and second in other.held_seconds):
            return False
        if event is not None and content.tokens(other.text) == content.tokens(event.text):
            held = other.held_seconds
            if held.start - 1 <= second <= held.stop:
                return False
    return True


def _at(event: Event, second: int) -> Event:
    """The event in another second; a state that would be over by then is not held."""
    time = round(second + event.time - event.second, 3)
    held = event.until is not None and event.until > time
    return replace(event, time=time, until=event.until if held else None)


def _with(timeline: Timeline, *events: Event) -> Timeline:
    """The timeline with these events in the place of those of the same ids."""
    new = {event.id: event for event in events}
    return replace(timeline, events=tuple(new.get(e.id, e) for e in timeline.events))


def _new_id(timeline: Timeline) -> str:
    """An id like the others, so that it tells nothing."""
    taken = {e.id for e in timeline.events}
    return next(f"e{n}" for n in range(len(taken) + 1) if f"e{n}" not in taken)


def _absent(timeline: Timeline) -> list[Picture]:
    """Things that the clip never shows, and of which nothing on it is said."""
    scene = _scene(timeline)
    shown = {track.picture for track in scene.tracks}
    said = " ".join([timeline.opening, *(e.text for e in timeline.events)])
    return [
        one
        for one in picture_set(scene.pictures)
        if one.name not in shown | MANY and not any(content.says(n, said) for n in one.names)
    ]


def _renamed(text: str, name: str, other: Picture) -> str:
    """The text with another thing in the place of the one of this name, with its article; it keeps
    its colour where the other thing may have it."""

    def put(match: re.Match[str]) -> str:
        colour = match[2] if match[2] and other.colours else ""
        noun = f"{colour.lower()} {other.name}" if colour else other.name
        made = a(noun, other.article) if match[1] else noun
        return capital(made) if match[0][0].isupper() else made

    colours = "|".join(COLOURS)
    pattern = rf"{_ARTICLE}(?:\b({colours})\s+)?\b{name}\b"
    return re.sub(pattern, put, text, count=1, flags=re.IGNORECASE)


def _replaced(text: str, colour: str, other: str) -> str:
    """The text with another colour, and the article that goes with it."""

    def put(match: re.Match[str]) -> str:
        made = a(other) if match[1] else other
        return capital(made) if match[0][0].isupper() else made

    return re.sub(rf"{_ARTICLE}\b{colour}\b", put, text, count=1, flags=re.IGNORECASE)
