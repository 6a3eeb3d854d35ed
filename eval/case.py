"""A case: a stream, what the user says, and what is due when, in one readable file.

    scenario: monitoring
    about: Smoke comes first; only fire is asked for.
    stream:
      seconds: 40
      background: {texture: bricks}
      things:
        - {thing: smoke, from: 8, to: 20}
        - {thing: fire, from: 24, to: 36}
    user:
      - {at: 2, says: Tell me every time a fire appears.}
    due:
      - {at: 24, says: A fire appeared., facts: [fire|flames], until: 36, seen: fire came}

`stream` is a script of the rendered world (`eval.script`), or a video: `{video: yard.mp4}`, a path
that starts from the case's folder, a URL with its `sha256`, or `{sample: coin}` of those that
`python -m data_pipeline.assets samples` fetches; any may be pinned by `sha256`, and `seconds` plays
its beginning alone. Seconds are whole. `due` is what should be said: its window is its second
and one more, or as `early` and `late` say, here or under `window` for the whole case; `until` is
the first second in which what it tells of holds no more, and `repeat` says that it is wanted in
each of them. How its text is judged: `facts`, all of which must be said ("a|b": either); `number`;
`exact`; `similar` (close to the text); `judged`, rubrics for a model. What is due answers the
newest thing that the user has said, unless it `answers` another, by `id`. `delegates` is the
question that is handed over; `background` is what comes back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import yaml

from data_pipeline.world import scene as world_scene
from data_pipeline.world.pictures import picture
from data_pipeline.world.splits import composition
from eval.fields import CaseError, Fields
from eval.script import MAX_SECONDS, Script, read_script
from joyvl_train.content import numbers
from joyvl_train.timeline import Clip, Event, Rule, RuleKind, Timeline, TimelineError
from joyvl_train.timing import EARLY, LATE, due

SCENARIOS = ("monitoring", "counting", "translation", "time", "commentary", "memory")
"""The scenarios of the published comparison; cases of one's own may name others."""

MAX_BYTES = 1 << 20
_BITS = 256
_RULES = {
    "facts": "key_facts",
    "number": "number",
    "exact": "exact",
    "similar": "similarity",
    "judged": "judged",
}
_NO_TEXT = (bool, Mapping, list, type(None))
assert set(_RULES.values()) == set(get_args(RuleKind))


@dataclass(frozen=True, slots=True)
class Video:
    """Footage of a case: a file beside it, or one of the fetched samples; pinned where a hash is
    given."""

    path: str = ""
    sample: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Case:
    """What is played, and what is due. `digest` is of the file; `memory` is how many seconds back
    the furthest thing lies that must be known. `quiet`: seconds in which silence is the point."""

    id: str
    scenario: str
    about: str
    timeline: Timeline
    digest: str
    path: Path
    script: Script | None = None
    video: Video | None = None
    quiet: tuple[range, ...] = ()
    memory: int = 0
    held_out: str = ""
    early: int = EARLY
    late: int = LATE

    @property
    def seconds(self) -> int | None:
        """Whole seconds of the stream; None where only the video knows."""
        return self.timeline.clip.seconds

    @property
    def things(self) -> list[tuple[str, ...]]:
        """What the script shows, each by all of its names."""
        if self.script is None:
            return []
        scene = self.script.scene
        shown = dict.fromkeys(track.picture for track in scene.tracks)
        return [picture(name, scene.pictures).names for name in shown]

    @property
    def states(self) -> list[tuple[str, ...]]:
        """The states of what it shows, each group of words that exclude each other."""
        if self.script is None:
            return []
        scene = self.script.scene
        shown = dict.fromkeys(track.picture for track in scene.tracks)
        found = [picture(name, scene.pictures).states for name in shown]
        return list(dict.fromkeys(states for states in found if len(states) > 1))

    @property
    def footage(self) -> tuple[str, ...]:
        """Clips of footage that the script plays before."""
        cuts = self.script.scene.cuts if self.script else ()
        return tuple({c.background.name: 0 for c in cuts if c.background.kind == "footage"})


def read_case(path: str | Path) -> Case:
    """The case of a file; `CaseError` says what is wrong with it, where, and the mend."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CaseError(f"{path}: can't be read ({error.strerror}); give a file") from None
    if len(data) > MAX_BYTES:
        raise CaseError(f"{path}: {len(data)} bytes, at most {MAX_BYTES}; is it a case?")
    try:
        given = Fields(_sized(yaml.load(data.decode("utf-8"), _Loader), path.name), path.name)
    except CaseError:
        raise
    except UnicodeDecodeError as error:
        raise CaseError(f"{path.name}: no UTF-8 text ({error.reason}); save it as such") from None
    except yaml.YAMLError as error:
        told = " ".join(str(error).split())
        raise CaseError(f"{path.name}: no YAML ({told[:200]}); mend it") from None
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        # A value that is not of the type that it is tagged or looks like: a date that is none, say.
        raise CaseError(f"{path.name}: no YAML ({str(error)[:200]}); quote the value") from None
    except RecursionError:
        raise CaseError(f"{path.name}: nested too deep; a case is flat") from None
    return _read(given, path, hashlib.sha256(data).hexdigest())


def _sized(value: Any, where: str) -> Any:
    """`value` as it is; `CaseError` where it holds a number that no case can mean."""
    if isinstance(value, int) and value.bit_length() > _BITS:
        raise CaseError(f"{where}: holds a number of more than {_BITS} bits; quote it, or mend it")
    inside = value.items() if isinstance(value, Mapping) else value
    for item in inside if isinstance(value, Mapping | list) else ():
        for part in item if isinstance(item, tuple) else (item,):
            _sized(part, where)
    return value


def read_cases(paths: Iterable[str | Path]) -> list[Case]:
    """The cases of files and folders, by name; the first bad one raises `CaseError`."""
    found: dict[str, Case] = {}
    for path in case_files(paths):
        case = read_case(path)
        if case.id in found:
            raise CaseError(f"{path}: {case.id!r} is {found[case.id].path}, too; rename one")
        found[case.id] = case
    return [found[name] for name in sorted(found)]


def case_files(paths: Iterable[str | Path]) -> list[Path]:
    """The case files among these files and in these folders, at any depth."""
    found: list[Path] = []
    for given in map(Path, paths):
        if not given.exists():
            raise CaseError(f"{given}: no such file or folder of cases; see to the path")
        inside = sorted(
            p for p in given.rglob("*") if p.suffix in (".yaml", ".yml") and p.is_file()
        )
        if given.is_dir() and not inside:
            raise CaseError(f"{given}: no case in it; a case is a .yaml file")
        found += inside if given.is_dir() else [given]
    return found


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which refuses a key that is given twice and all references."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: references are not taken")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Any] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"line {line}: a name is a plain word; quote the text")
            name = self.construct_object(key, deep=True)  # 6 and 0x6 are one
            if name in seen:
                raise yaml.YAMLError(f"line {line}: {key.value} is given twice")
            seen.add(name)
        return super().construct_mapping(node, deep)


def _read(given: Fields, path: Path, digest: str) -> Case:
    scenario = given.text("scenario")
    about = given.text("about")
    window = Fields(given.take("window", {}), f"{given.where}, window")
    early = window.number("early", 0, 60, EARLY, whole=True)
    late = window.number("late", 0, 60, LATE, whole=True)
    window.end()
    stream = Fields(given.take("stream"), f"{given.where}, stream")
    script: Script | None = None
    video: Video | None = None
    clip = Clip(path.stem)
    if "video" in stream or "sample" in stream:
        video, seconds = _video(stream)
        clip = replace(clip, video=video.path or video.sample, duration=seconds)
    else:
        script = read_script(stream)
        scene = world_scene.to_json(script.scene)
        clip = replace(clip, duration=script.scene.duration, scene=scene)
    end = clip.seconds or MAX_SECONDS
    events = _events(given, script, end, early, late)
    quiet = tuple(_span(item, end) for item in given.each("quiet"))
    memory = given.number("memory", 0, MAX_SECONDS, 0, whole=True)
    opening = given.text("opening", "")
    held_out = _held_out(given)
    given.end()
    try:
        timeline = Timeline(clip, scenario, "eval", events, opening=opening, meta={"about": about})
        onsets = due(timeline, None, early, late)
    except TimelineError as error:
        raise CaseError(f"{given.where}: {error}") from None
    for span in quiet:
        for onset in onsets:
            busy = {*onset.window, *onset.held} & set(span)
            if busy:
                raise CaseError(
                    f"{given.where}: quiet from {span.start} to {span.stop}, but "
                    f"{onset.text!r} is due or holds in second {min(busy)}; mend one of them"
                )
    return Case(
        path.stem,
        scenario,
        about,
        timeline,
        digest,
        path,
        script,
        video,
        quiet,
        memory,
        held_out,
        early,
        late,
    )


def _video(stream: Fields) -> tuple[Video, float | None]:
    path, sample = stream.text("video", ""), stream.text("sample", "")
    if path and sample:
        raise CaseError(f"{stream.where}: a video and a sample; take one out")
    sha256 = stream.text("sha256", "")
    if "://" in path and not (sha256 and path.startswith(("https://", "http://"))):
        raise CaseError(
            f"{stream.where}: video is {path!r}; of a URL, http or https, the sha256 is needed, too"
        )
    if sha256 and (len(sha256) != 64 or set(sha256) - set("0123456789abcdef")):
        raise CaseError(f"{stream.where}: sha256 is {sha256!r}; it takes 64 hexadecimal digits")
    seconds = stream.number("seconds", 1, MAX_SECONDS, None)
    stream.end()
    return Video(path, sample, sha256), None if seconds is None else float(seconds)


def _span(item: Fields, end: int) -> range:
    start = item.number("from", 0, end - 1, whole=True)
    stop = item.number("to", start + 1, end, whole=True)
    item.end()
    return range(start, stop)


def _held_out(given: Fields) -> str:
    """The composition that keeps the case apart from training, as `splits.composition` writes
    it."""
    if "held_out" not in given:
        given.take("held_out", "")
        return ""
    item = Fields(given.take("held_out"), f"{given.where}, held_out")
    key = composition(item.text("event"), item.text("thing"), item.text("asked"))
    item.end()
    return key


def _events(
    given: Fields, script: Script | None, end: int, early: int, late: int
) -> tuple[Event, ...]:
    users = [_user(item, number, end) for number, item in enumerate(given.each("user"))]
    said: list[Event] = []
    for number, item in enumerate(given.each("due")):
        said.append(_due(item, number, end, users, script, early, late))
    results = []
    for number, item in enumerate(given.each("background")):
        at = item.number("at", 0, end - 1, whole=True)
        name = item.text("id", f"b{number}")
        results.append(
            Event(name, at + 0.3, "background", item.text("says"), answers=item.text("answers"))
        )
        item.end()
    events = (*users, *said, *results)
    known = {event.id for event in events}
    for event in events:
        if event.answers is not None and event.answers not in known:
            raise CaseError(
                f"{given.where}: {event.id} answers {event.answers!r}, which is no id here; known "
                f"are {', '.join(sorted(known))}"
            )
    return tuple(sorted(events, key=lambda e: (e.time, e.id)))


def _user(item: Fields, number: int, end: int) -> Event:
    at = item.number("at", 0, end - 1, whole=True)
    event = Event(item.text("id", f"q{number}"), at + 0.1, "user", item.text("says"))
    item.end()
    return event


def _due(
    item: Fields,
    number: int,
    end: int,
    users: Sequence[Event],
    script: Script | None,
    early: int,
    late: int,
) -> Event:
    at = item.number("at", 0, end - 1, whole=True)
    name = item.text("id", f"a{number}")
    before = sorted((user.second, n) for n, user in enumerate(users) if user.second <= at)
    answers = item.text("answers", users[before[-1][1]].id if before else None)
    rule = _rule(item)
    until = item.number("until", at + 1, end, None, whole=True)
    seen = item.text("seen", "")
    if seen:
        _check_seen(item, seen, at, script)
    event = Event(
        name,
        at + 0.5,
        "assistant",
        item.text("says"),
        question=item.text("delegates", None),
        until=None if until is None else float(until),
        repeat=item.flag("repeat"),
        answers=answers,
        rule=rule,
        early=item.number("early", 0, 60, early, whole=True),
        late=item.number("late", 0, 60, late, whole=True),
    )
    item.end()
    return event


def _check_seen(item: Fields, seen: str, at: int, script: Script | None) -> None:
    """`seen: fire came` is true of the second, by the script."""
    if script is None:
        raise CaseError(f"{item.where}: seen is checked against a script; a video has none")
    thing, _, what = seen.rpartition(" ")
    if script.seen(at, thing, what):
        return
    seconds = [h.second for h in script.happenings if (h.thing, h.what) == (thing, what)]
    told = ", ".join(map(str, seconds)) or "in no second"
    raise CaseError(f"{item.where}: {seen!r} at {at}, but by the script: {told}; mend one of them")


def _rule(item: Fields) -> Rule | None:
    kinds = [name for name in _RULES if name in item]
    if len(kinds) > 1:
        raise CaseError(
            f"{item.where}: {' and '.join(kinds)}; a text is judged in one way: keep one of them"
        )
    for name in _RULES:
        if name not in kinds:
            item.take(name, None)
    if not kinds:
        return None
    (name,) = kinds
    if name == "similar":
        if not item.flag(name):
            raise CaseError(f"{item.where}: similar is false; take it out, or say how to judge")
        return Rule("similarity")
    value = item.take(name)
    values = value if isinstance(value, list) else [value]
    texts = tuple(str(v).strip() for v in values if not isinstance(v, _NO_TEXT))
    if not texts or len(texts) != len(values) or not all(texts):
        raise CaseError(f"{item.where}: {name} is {value!r}; it takes a text or a list of texts")
    if name == "number" and not all(len(numbers(text)) == 1 for text in texts):
        raise CaseError(f"{item.where}: number is {value!r}; it takes a number, or a list of them")
    return Rule(_RULES[name], texts)  # type: ignore[arg-type]
