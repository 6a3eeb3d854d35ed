"""Windows: the few seconds of a stream in which a policy decides, opened as a chunk is.

An *answer* window holds a gold response, the seconds before and after it; a *silence* window
seconds in which nothing is due, the hardest first; a *pending* window the time in which a delegated
task is open. What went before is gold history: it enters as the memory text, the pinned
instructions and the `lead` turns that a chunk opens with, by the same `Stream` that serving drives.
So no prompt occurs in training that serving could not produce, and none holds a later frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from joyvl_train.actions import Silence
from joyvl_train.chunks import Summarize
from joyvl_train.coded_frames import coded, prepared
from joyvl_train.frames import Frames
from joyvl_train.heldout import Episode, Step
from joyvl_train.memory import Memory, Summary, told_summary
from joyvl_train.samples import frame_sizes
from joyvl_train.stream import Stream, StreamSettings
from joyvl_train.timeline import Timeline, TimelineError, actions
from joyvl_train.timing import EARLY, LATE, Onset, due

Tempts = Literal["", "alarm", "lure", "onset"]
"""What tempts to speak in a silence window: a policy did, something happens that nobody asked for,
or something is due right after it."""

Kind = Literal["answer", "silence", "pending", "question"]
KINDS: tuple[Kind, ...] = ("answer", "silence", "pending", "question")
"""The last are turn-based questions, windows of one turn (`rl.questions`)."""


@dataclass(frozen=True, slots=True)
class Window:
    """Seconds [first, stop) of clip `clip` of its source, in which the policy decides; made for
    what is due, or tempting, in second `focus`. tempts: how, in a silence window."""

    clip: int
    kind: Kind
    first: int
    stop: int
    focus: int
    tempts: Tempts = ""

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.focus < self.stop:
            raise ValueError(f"no window: [{self.first}, {self.stop}) around {self.focus}")

    @property
    def key(self) -> str:
        """Names the window among all of its source."""
        return f"{self.clip}/{self.kind}/{self.first}-{self.stop}"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How far windows reach, in whole seconds: an answer window from `before` the response to
    `after` it, a silence window over `silence` seconds, a pending one over at most `pending`."""

    before: int = 6
    after: int = 4
    silence: int = 8
    pending: int = 16

    def __post_init__(self) -> None:
        for name, least in (("before", 0), ("after", 0), ("silence", 1), ("pending", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} or more")


Lures = Callable[[Timeline], Iterable[int]]
"""Seconds of a clip that tempt to speak: in them something happens that nobody asked for."""


def nothing(timeline: Timeline) -> tuple[int, ...]:
    """No lure is known."""
    return ()


def windows_of(
    clip: int,
    timeline: Timeline,
    sizes: Sizes,
    *,
    lures: Lures = nothing,
    alarms: Sequence[int] = (),
    early: int = EARLY,
    late: int = LATE,
) -> list[Window]:
    """The windows of clip number `clip`, no two over the same seconds.

    alarms: seconds in which a policy spoke and nothing was due. Of the silence windows those of
    alarms come first, then those of lures, then those that end just before something is due; where
    there is none of these, one in the middle of the longest silence. Raises `TimelineError` where
    the clip's duration is unknown.
    """
    end = timeline.clip.seconds
    if end is None:
        raise TimelineError("unknown duration", f"clip {timeline.clip.id!r}")
    onsets = due(timeline, None, early, late)
    found = [
        Window(clip, "answer", max(0, o.second - sizes.before), reach, o.second)
        for o in onsets
        if (reach := min(end, o.second + max(o.late, sizes.after) + 1)) > o.second
    ]
    found += _silences(clip, end, onsets, sizes, lures(timeline), alarms)
    found += _pendings(clip, end, timeline, sizes)
    kept: dict[tuple[int, int], Window] = {}
    for window in found:
        kept.setdefault((window.first, window.stop), window)
    return list(kept.values())


def _silences(
    clip: int,
    end: int,
    onsets: Sequence[Onset],
    sizes: Sizes,
    lures: Iterable[int],
    alarms: Sequence[int],
) -> Iterator[Window]:
    busy = {t for o in onsets for part in (o.window, o.held) for t in part}
    quiet = [t for t in range(end) if t not in busy]
    told: set[int] = set()

    def around(focus: int, before: int, tempts: Tempts = "") -> Iterator[Window]:
        """`focus` with so many of the quiet seconds that come before it, and after."""
        first = last = focus
        while first - 1 >= 0 and first - 1 not in busy and focus - first < before:
            first -= 1
        while last + 1 < end and last + 1 not in busy and last - first + 1 < sizes.silence:
            last += 1
        if not told & set(range(first, last + 1)):
            told.update(range(first, last + 1))
            yield Window(clip, "silence", first, last + 1, focus, tempts)

    half = sizes.silence // 2
    found: list[tuple[Tempts, Iterable[int]]] = [("alarm", alarms), ("lure", lures)]
    for tempts, seconds in found:
        for second in sorted(set(seconds)):
            if 0 <= second < end and second not in busy:
                yield from around(second, half, tempts)
    for onset in onsets:
        second = onset.window.start - 1
        if second >= 0 and second not in busy:
            yield from around(second, sizes.silence - 1, "onset")
    if not told and quiet:
        yield from around(quiet[len(quiet) // 2], half)


def _pendings(clip: int, end: int, timeline: Timeline, sizes: Sizes) -> Iterator[Window]:
    """From the second after a delegation until its result is told of."""
    results = {event.answers: event.second for event in timeline.of("background")}
    for event in timeline.of("assistant"):
        if event.question is None or event.second + 1 >= end:
            continue
        first = event.second + 1
        back = results.get(event.id, end - 1)
        stop = min(end, back + sizes.after + 1, first + sizes.pending)
        if stop > first:
            yield Window(clip, "pending", first, stop, min(back, stop - 1))


def within(window: Window, timeline: Timeline) -> Window:
    """The window without seconds that its clip does not have after all. Raises `TimelineError`
    where what it was made for is among them."""
    end = timeline.clip.seconds
    if end is None or window.stop <= end:
        return window
    if window.focus >= end:
        raise TimelineError("past the end", f"clip {timeline.clip.id!r}: second {window.focus}")
    return replace(window, stop=end)


@dataclass(frozen=True, slots=True)
class Opened:
    """A window just before its first second: the stream and the episode hold the gold past.
    `show` gives the pictures of a second, the same object however often it is asked."""

    window: Window
    stream: Stream
    episode: Episode
    show: Callable[[int], tuple[Any, ...]]


def open_window(
    window: Window,
    timeline: Timeline,
    frames: Frames,
    settings: StreamSettings,
    *,
    prepare: Callable[[Any], Any] = lambda picture: picture,
    summarize: Summarize | None = None,
    summaries: Sequence[Summary] = (),
    seed: int = 0,
    early: int = EARLY,
    late: int = LATE,
    draw_gold: bool = False,
) -> Opened:
    """Drives a stream with the gold actions up to the window.

    Where more than `lead` seconds lie before it, a chunk opens with its first second; else it is in
    the first chunk of the stream. prepare: what is made of each picture, once. summarize: tells of
    turns that are left behind, as far as `summaries` don't, and sees no pictures; None: what was
    said. seed: of the background. draw_gold: results of what is delegated within the window come
    after drawn delays; those of the gold past when they did. Raises `TimelineError` where something
    is said in a second without frames.
    """
    first = window.first
    summarize = summarize or settings.limits.log
    cut = first > settings.lead
    begun = -first % settings.chunk_seconds if cut else 0
    stream = Stream(settings, Memory(opening=timeline.opening), begun=begun)
    episode = Episode(timeline, seed, early=early, late=late)
    shown: dict[int, tuple[Any, ...]] = {}

    seen_as = coded(frames, settings, begun)

    def show(second: int) -> tuple[Any, ...]:
        if second not in shown:
            shown[second] = tuple(prepared(each, prepare) for each in seen_as.frames(second))
        return shown[second]

    carried = first - settings.lead if cut else 0
    for second, action in enumerate(actions(timeline)[:first]):
        seen = show(second) if second >= carried else frame_sizes(frames, second)
        turn = stream.observe(second, seen, *episode.arrivals(second))
        if turn is not None:
            step = Step(second, action, turn.queries, turn.results)
            episode.note(step, stream.act(action))
        elif not isinstance(action, Silence):
            where = f"clip {timeline.clip.id!r}: second {second}"
            raise TimelineError("no frame at a response", where)
        due_now = stream.due_summary()
        if due_now is not None:
            text = told_summary(due_now, stream.due_turns(), summaries, summarize)
            stream.add_summary(Summary(due_now.start, due_now.stop, text))
    if draw_gold:
        episode.draw_delays()
    return Opened(window, stream, episode, show)
