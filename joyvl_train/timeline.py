"""What happens when on one clip, and the action that is due in each second.

Needs nothing but the standard library. Times are seconds from the start of the clip; second t is
the half-open interval [t, t+1), and an event at time x belongs to second floor(x).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeGuard, get_args

from joyvl_train.actions import Action, ActionFormatError, Delegation, Response, Silence

Role = Literal["user", "assistant", "background"]
RuleKind = Literal["exact", "number", "key_facts", "similarity", "judged"]
RULE_KINDS = get_args(RuleKind)
FAMILIES = ("alerting", "qa", "counting", "commentary", "chat", "delegation")
"""The six families of the corpus; further ones (translation, recall, ...) are names like any."""

MAX_SECONDS = 24 * 3600
"""A clip longer than a day is taken for a broken record."""


class TimelineError(ValueError):
    """A record that can't be used. `reason` is a short fixed phrase that is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Rule:
    """How a response's text is judged right.

    exact: equal to the gold text or one of `facts` after normalization. number: the numbers in
    `facts` (or in the gold text) are the numbers said. key_facts: every fact is said; a fact may
    list alternatives, "car|automobile". similarity: close enough to the gold text. judged: by a
    model that reads `facts` as the rubric.
    """

    kind: RuleKind = "exact"
    facts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """One thing said or returned, at `time` seconds.

    user: `text` is the query. assistant: `text` is the response, or the note where `question`
    makes it a delegation. background: `text` is the digest of the result of the delegation
    `answers`. `answers` is the id of the query, delegation or result that this one follows from.
    `until` ends the state that an assistant event reports (exclusive, seconds); `repeat` says that
    the instruction asks for the response again in every second of it. `early` and `late` are the
    whole seconds by which the response may come before and after its second (None: the defaults of
    `joyvl_train.timing`).
    """

    id: str
    time: float
    role: Role
    text: str
    question: str | None = None
    until: float | None = None
    repeat: bool = False
    answers: str | None = None
    rule: Rule | None = None
    early: int | None = None
    late: int | None = None

    @property
    def second(self) -> int:
        return math.floor(self.time)

    @property
    def held_seconds(self) -> range:
        """The seconds of the state that this event reports; its own second where none is held."""
        if self.until is None:
            return range(self.second, self.second + 1)
        return range(self.second, max(math.ceil(self.until), self.second + 1))


@dataclass(frozen=True, slots=True)
class Clip:
    """Where the pictures come from. `duration` is None while it is not known yet.

    At most one of: `video`, a file; `images`, a picture file a frame, in order; `scene`, a script
    of the rendered world as plain data.

    `offset` is the whole second of its footage at which a clip begins: second t of the clip is
    second offset + t of the video. Pictures of `images` are the clip's own, from its start on.
    """

    id: str
    duration: float | None = None
    video: str | None = None
    images: tuple[str, ...] = ()
    scene: Mapping[str, Any] | None = None
    offset: int = 0

    @property
    def seconds(self) -> int | None:
        """Whole seconds that are stepped: a started last second counts."""
        return None if self.duration is None else math.ceil(self.duration - 1e-6)


@dataclass(frozen=True, slots=True)
class Timeline:
    """One clip and what is said on it. `opening` is memory text that the stream starts with."""

    clip: Clip
    family: str
    source: str
    events: tuple[Event, ...] = ()
    frames_per_second: float = 1.0
    opening: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self)

    def of(self, *roles: Role) -> list[Event]:
        """The events of these roles, by time."""
        return sorted((e for e in self.events if e.role in roles), key=lambda e: e.time)


def check(timeline: Timeline) -> None:
    """Raise `TimelineError` with a countable reason where the record can't be used."""
    clip = timeline.clip
    where = f"clip {clip.id!r}"
    if clip.duration is not None:
        if not _is_number(clip.duration) or not 0 < clip.duration <= MAX_SECONDS:
            raise TimelineError("bad duration", f"{where}: {str(clip.duration)[:20]} s")
    if sum(map(bool, (clip.video, clip.images, clip.scene))) > 1:
        raise TimelineError("several frame sources", where)
    if type(clip.offset) is not int or not 0 <= clip.offset <= MAX_SECONDS:
        raise TimelineError("bad offset", f"{where}: {str(clip.offset)[:20]} s")
    if clip.offset and clip.scene is not None:
        raise TimelineError("bad offset", f"{where}: a scene begins where it is told to")
    rate = timeline.frames_per_second
    if not _is_number(rate) or not 0 < rate <= 60:
        raise TimelineError("bad frame rate", f"{where}: {str(rate)[:20]}")
    ids: set[str] = set()
    for event in timeline.events:
        _check_event(event, clip, where)
        if event.id in ids:
            raise TimelineError("duplicate event id", f"{where}: {event.id!r}")
        ids.add(event.id)
    for event in timeline.events:
        if event.answers is not None and event.answers not in ids:
            raise TimelineError("answers nothing", f"{where}: {event.id!r} -> {event.answers!r}")
    action_seconds(timeline.events, where)


def _is_number(value: Any) -> TypeGuard[float]:
    """A finite number; a boolean or a text that looks like one is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _check_event(event: Event, clip: Clip, where: str) -> None:
    what = f"{where}: event {event.id!r}"
    for name, value in (("time", event.time), ("until", event.until)):
        if value is None and name == "until":
            continue
        if not _is_number(value):
            raise TimelineError("time is no number", f"{what}: {name} {value!r}")
        if value > MAX_SECONDS:  # it would be stepped through, where a state is held so long
            raise TimelineError("time past a day", f"{what}: {name} {str(value)[:20]} s")
    if event.time < 0:
        raise TimelineError("negative time", f"{what} at {event.time} s")
    if event.role not in ("user", "assistant", "background"):
        raise TimelineError("unknown role", f"{what}: {event.role!r}")
    if not event.text.strip():
        raise TimelineError("empty text", what)
    if event.until is not None and event.until < event.time:
        raise TimelineError("ends before it starts", f"{what}: {event.time} to {event.until} s")
    if event.repeat and event.until is None:
        raise TimelineError("repeats without an end", what)
    if event.question is not None and event.role != "assistant":
        raise TimelineError("delegation by another role", what)
    if event.question is not None and event.repeat:
        raise TimelineError("delegation repeats", what)
    if event.role == "assistant":
        try:
            action_of(event)
        except ActionFormatError as error:
            raise TimelineError("format", f"{what}: {error}") from error
    if event.rule is not None and event.rule.kind not in RULE_KINDS:
        raise TimelineError("unknown rule", f"{what}: {event.rule.kind!r}")
    for name, window in (("early", event.early), ("late", event.late)):
        if window is not None and (not isinstance(window, int) or not 0 <= window <= 3600):
            raise TimelineError("bad window", f"{what}: {name} {window!r}")
    if clip.seconds is not None and event.second >= clip.seconds:
        raise TimelineError("past the end", f"{what} at {event.time} s of {clip.duration} s")


def action_seconds(events: Iterable[Event], where: str = "events") -> dict[int, Event]:
    """Second -> the assistant event due in it, repeats included; silence in all others.

    A repeat gives way to an event of its own in the same second; two events in one second raise
    `TimelineError`.
    """
    due: dict[int, Event] = {}
    spoken = sorted((e for e in events if e.role == "assistant"), key=lambda e: e.time)
    for event in spoken:
        if event.second in due:
            raise TimelineError(
                "two in one second", f"{where}: {due[event.second].id!r} and {event.id!r}"
            )
        due[event.second] = event
    covered = 0  # up to here all seconds of the repeats so far are told, however many overlap
    for event in spoken:
        if event.repeat:
            held = event.held_seconds
            for second in range(max(held.start, covered), held.stop):
                due.setdefault(second, event)
            covered = max(covered, held.stop)
    return due


def action_of(event: Event | None) -> Action:
    """The action that reports this event; no event, no word."""
    if event is None:
        return Silence()
    if event.question is not None:
        return Delegation(event.text, event.question)
    return Response(event.text)


def actions(timeline: Timeline, seconds: int | None = None) -> list[Action]:
    """The gold action of each second of the clip, or of its first `seconds`.

    Raises `TimelineError` where neither the clip's duration nor `seconds` is known, or where an
    event lies past the end.
    """
    length = timeline.clip.seconds if seconds is None else seconds
    if length is None:
        raise TimelineError("unknown duration", f"clip {timeline.clip.id!r}")
    due = action_seconds(timeline.events, f"clip {timeline.clip.id!r}")
    late = [t for t, e in due.items() if t >= length and not (e.repeat and e.second < length)]
    if late:
        raise TimelineError("past the end", f"clip {timeline.clip.id!r}: second {min(late)}")
    return [action_of(due.get(t)) for t in range(length)]


def to_json(timeline: Timeline) -> dict[str, Any]:
    """Plain data for a JSON line; `from_json` reads it back to an equal record.

    An offset is told where there is one. The scene and `meta` are the timeline's own, not copies: a
    scene is large, and copying it would take longer than all that is done with it.
    """
    plain = {name: getattr(timeline, name) for name in _TIMELINE}
    plain["clip"] = {name: getattr(timeline.clip, name) for name in _CLIP}
    if not timeline.clip.offset:
        del plain["clip"]["offset"]
    events = [{name: getattr(event, name) for name in _EVENT} for event in timeline.events]
    for event in events:
        if event["rule"] is not None:
            event["rule"] = asdict(event["rule"])
    plain["events"] = tuple(events)
    return plain


_TIMELINE, _CLIP, _EVENT = (
    tuple(each.name for each in fields(kind)) for kind in (Timeline, Clip, Event)
)


def from_json(data: Mapping[str, Any]) -> Timeline:
    """The record of a JSON line; `TimelineError` with reason `shape` where it isn't one."""
    try:
        clip = dict(data["clip"])
        clip["images"] = tuple(clip.get("images") or ())
        events = []
        for item in data["events"]:
            item = dict(item)
            if item.get("rule") is not None:
                rule = dict(item["rule"])
                item["rule"] = Rule(rule["kind"], tuple(rule.get("facts", ())))
            events.append(Event(**item))
        rest = {k: v for k, v in data.items() if k not in ("clip", "events")}
        return Timeline(clip=Clip(**clip), events=tuple(events), **rest)
    except TimelineError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise TimelineError("shape", f"{type(error).__name__}: {error}") from error
