"""What a stream remembers beyond its turns, as pure data and text.

Three tiers: the turns of the open chunk (short-term, in `joyvl_train.stream`), up to M summaries of
chunks (mid-term) and up to L blocks of M summaries each (long-term). Beside them stand the pinned
instructions, the pending tasks and the dialogue. Every function returns a new `Memory` and the
events that it caused; every list and every text has a limit, so that memory never grows for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal

from joyvl_train.actions import Delegation, Silence, spoken
from joyvl_train.conversation import clean, cut

if TYPE_CHECKING:
    from joyvl_train.stream import Turn

Who = Literal["user", "assistant", "background"]

CHARS = 1000
"""Characters of a summary, unless other limits are set."""

NOTHING = "Nothing was said."
"""The summary of turns in which nothing was."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What happened in the seconds [start, stop)."""

    start: int
    stop: int
    text: str

    def __post_init__(self) -> None:
        if not self.start < self.stop:
            raise ValueError(f"a summary of no seconds: [{self.start}, {self.stop})")
        if not clean(self.text):
            raise ValueError(f"the summary of seconds [{self.start}, {self.stop}) is empty")


@dataclass(frozen=True, slots=True)
class Pinned:
    """A standing instruction, given at `second` (None: before the stream began)."""

    second: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Pending:
    """A delegated task whose result has not come yet."""

    number: int
    second: int
    note: str
    question: str


@dataclass(frozen=True, slots=True)
class Said:
    """One line of dialogue, as the user was shown it: of a delegation, the note only."""

    second: int | None
    who: Who
    text: str


@dataclass(frozen=True, slots=True)
class MemoryEvent:
    """Something that a log should show. `kind` is one of a few fixed words that can be counted:

    merged, forgotten (past L blocks), unpinned, pending_dropped, dialogue_dropped, cut (a text past
    its limit); from the stream also chunk, summary_late, summary_gap, query_dropped, note_dropped,
    empty_query.
    """

    kind: str
    second: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper limits. `pinned_chars` holds for all pinned texts together, `dialogue_tokens` for the
    dialogue; the other `_chars` hold for one text each. `queries` is what one turn takes."""

    mid: int = 5
    long: int = 15
    pinned: int = 8
    pinned_chars: int = 600
    dialogue_tokens: int = 400
    pending: int = 8
    queries: int = 8
    text_chars: int = 1000
    summary_chars: int = 1200
    opening_chars: int = 4000

    @property
    def told_chars(self) -> int:
        """The characters that what tells of a chunk may take; no summary of theirs is cut."""
        return min(CHARS, self.summary_chars)

    def log(self, turns: Sequence[Turn]) -> str:
        """What was said in these turns (`log_summary`), so short that none of it is cut later."""
        return log_summary(turns, self.told_chars)

    def __post_init__(self) -> None:
        for item in fields(self):
            value, least = getattr(self, item.name), 0
            if item.name.endswith("_chars"):
                least = 16  # room for a word and the ellipsis
            elif item.name in ("mid", "queries"):
                least = 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(
                    f"memory limit {item.name} is {value!r}; it must be {least} or more"
                )


@dataclass(frozen=True, slots=True)
class Memory:
    """All that the opening of a chunk says. `opening` is text that the stream began with."""

    opening: str = ""
    long: tuple[Summary, ...] = ()
    mid: tuple[Summary, ...] = ()
    pinned: tuple[Pinned, ...] = ()
    pending: tuple[Pending, ...] = ()
    dialogue: tuple[Said, ...] = ()


Change = tuple[Memory, list[MemoryEvent]]
CountTokens = Callable[[str], int]


def count_words(text: str) -> int:
    """A stand-in for a tokenizer: words, and at least one for six characters, so that a text
    without spaces counts as well."""
    return max(len(text.split()), -(-len(text) // 6))


def bounded(text: str, chars: int, second: int | None, what: str) -> tuple[str, list[MemoryEvent]]:
    """`text` cleaned and cut at `chars` characters, with an event where something was cut off."""
    whole = clean(text)
    if len(whole) <= chars:
        return whole, []
    detail = f"{what} of {len(whole)} characters cut at {chars}"
    return cut(whole, chars), [MemoryEvent("cut", second, detail)]


def add_summary(
    memory: Memory, summary: Summary, limits: Limits, merge: Summary | None = None
) -> Change:
    """`summary` becomes the newest mid-term one.

    Where M summaries are there already, they first become one long-term block: `merge`, if it
    covers exactly their seconds, else their texts joined. Past L blocks the oldest is forgotten.
    Raises `ValueError` where the seconds overlap those remembered, or come before them.
    """
    covered = [*memory.long, *memory.mid]
    if covered and summary.start < covered[-1].stop:
        raise ValueError(
            f"the summary of seconds [{summary.start}, {summary.stop}) overlaps memory, "
            f"which reaches to second {covered[-1].stop}"
        )
    mid, long = memory.mid, memory.long
    events: list[MemoryEvent] = []
    if len(mid) >= limits.mid:
        if merge is None or (merge.start, merge.stop) != (mid[0].start, mid[-1].stop):
            merge = joined(mid, limits)
        text, events = bounded(merge.text, limits.summary_chars, merge.stop, "block")
        block = replace(merge, text=text)
        long, mid = (*long, block), ()
        events.append(MemoryEvent("merged", block.stop, f"seconds [{block.start}, {block.stop})"))
    text, cuts = bounded(summary.text, limits.summary_chars, summary.stop, "summary")
    events += cuts
    mid = (*mid, replace(summary, text=text))
    while len(long) > limits.long:
        oldest, *rest = long
        long = tuple(rest)
        detail = f"seconds [{oldest.start}, {oldest.stop})"
        events.append(MemoryEvent("forgotten", summary.stop, detail))
    return replace(memory, mid=mid, long=long), events


def joined(summaries: Sequence[Summary], limits: Limits) -> Summary:
    """One block of several summaries: their texts, each cut to its share of a block. Those that
    tell of nothing take no share, as long as another tells of something."""
    told = [s for s in summaries if clean(s.text) != NOTHING] or summaries[:1]
    share = max((limits.summary_chars - len(told)) // len(told), 2)
    text = " ".join(cut(clean(s.text), share) for s in told)
    return Summary(summaries[0].start, summaries[-1].stop, text)


def pin(
    memory: Memory,
    item: Pinned,
    limits: Limits,
    count_tokens: CountTokens = count_words,
) -> Change:
    """Pin an instruction; the oldest are unpinned while there are too many or too long ones.

    The same text again takes the place of the earlier one.
    """
    if limits.pinned == 0:
        return say(memory, [Said(item.second, "user", item.text)], limits, count_tokens)
    text, events = bounded(item.text, limits.pinned_chars, item.second, "pinned instruction")
    kept = [p for p in memory.pinned if p.text != text] + [Pinned(item.second, text)]
    memory = replace(memory, pinned=tuple(kept))
    while len(kept) > limits.pinned or sum(len(p.text) for p in kept) > limits.pinned_chars:
        oldest = kept.pop(0)
        memory, more = unpin(memory, oldest, limits, count_tokens)
        events += [MemoryEvent("unpinned", item.second, oldest.text), *more]
    return memory, events


def unpin(
    memory: Memory,
    item: Pinned,
    limits: Limits,
    count_tokens: CountTokens = count_words,
) -> Change:
    """Unpin an instruction: it joins the dialogue at its place in time, as any text does.

    Raises `ValueError` where it isn't pinned.
    """
    if item not in memory.pinned:
        raise ValueError(f"not pinned: {item.text!r}")
    memory = replace(memory, pinned=tuple(p for p in memory.pinned if p != item))
    return say(memory, [Said(item.second, "user", item.text)], limits, count_tokens)


def say(
    memory: Memory,
    lines: Iterable[Said],
    limits: Limits,
    count_tokens: CountTokens = count_words,
) -> Change:
    """Add lines of dialogue, in order of time; the oldest go while the budget is exceeded."""
    events: list[MemoryEvent] = []
    dialogue = list(memory.dialogue)
    for line in lines:
        text, cuts = bounded(line.text, limits.text_chars, line.second, "dialogue")
        events += cuts
        dialogue.append(replace(line, text=text))
    dialogue.sort(key=lambda line: -1 if line.second is None else line.second)  # a stable sort
    # At least one token each, whatever the count says: the list has an end, too.
    costs = [max(count_tokens(said_text(line)), 1) for line in dialogue]
    total, dropped = sum(costs), 0
    while total > limits.dialogue_tokens:
        total -= costs[dropped]
        dropped += 1
    if dropped:
        last = dialogue[dropped - 1].second
        events.append(MemoryEvent("dialogue_dropped", last, f"{dropped} lines"))
    return replace(memory, dialogue=tuple(dialogue[dropped:])), events


def delegate(memory: Memory, task: Pending, limits: Limits) -> Change:
    """A task is pending from now on; past the limit the oldest is no longer shown."""
    note, events = bounded(task.note, limits.text_chars, task.second, "note")
    question, more = bounded(task.question, limits.text_chars, task.second, "question")
    pending = (*memory.pending, replace(task, note=note, question=question))
    events += more
    while len(pending) > limits.pending:
        oldest, pending = pending[0], pending[1:]
        detail = f"task {oldest.number} of second {oldest.second}"
        events.append(MemoryEvent("pending_dropped", task.second, detail))
    return replace(memory, pending=pending), events


def resolve(memory: Memory, number: int) -> Memory:
    """The task's result came: it is pending no more."""
    return replace(memory, pending=tuple(p for p in memory.pending if p.number != number))


def absorb(
    memory: Memory,
    turn: Turn,
    task_number: int,
    limits: Limits,
    count_tokens: CountTokens = count_words,
) -> Change:
    """A turn leaves the short-term memory: what was said in it is remembered as text.

    Its queries are pinned; its results and what the assistant said join the dialogue; a delegation
    becomes pending as `task_number`.
    """
    events: list[MemoryEvent] = []
    for number, digest in turn.results:
        memory = resolve(memory, number)
        line = Said(turn.second, "background", f"task {number}: {digest}")
        memory, more = say(memory, [line], limits, count_tokens)
        events += more
    if turn.notes:
        lines = [Said(turn.second, "background", note) for note in turn.notes]
        memory, more = say(memory, lines, limits, count_tokens)
        events += more
    for query in turn.queries:
        memory, more = pin(memory, Pinned(turn.second, query), limits, count_tokens)
        events += more
    text = None if turn.action is None else spoken(turn.action)
    if text is not None:
        line = Said(turn.second, "assistant", text)
        memory, more = say(memory, [line], limits, count_tokens)
        events += more
    if isinstance(turn.action, Delegation):
        task = Pending(task_number, turn.second, turn.action.note, turn.action.question)
        memory, more = delegate(memory, task, limits)
        events += more
    return memory, events


def said_text(line: Said) -> str:
    """One line of dialogue as the model reads it."""
    return f"{_at(line.second)}{line.who}: {clean(line.text)}"


def memory_text(memory: Memory) -> str:
    """The opening of a chunk as text; "" when there is nothing to say. Same state, same text.

    Pending tasks show the delegated question, for the model's eyes: the dialogue, which users and
    judges may see, never does.
    """
    lines: list[str] = []
    if memory.opening.strip():
        lines += [line for line in map(clean, memory.opening.splitlines()) if line]
    past = [*memory.long, *memory.mid]
    if past:
        lines.append("Earlier:")
        lines += [f"{s.start} to {s.stop} s: {clean(s.text)}" for s in past]
    if memory.pinned:
        lines.append("Instructions:")
        lines += [f"{_at(p.second)}{clean(p.text)}" for p in memory.pinned]
    if memory.pending:
        lines.append("Pending:")
        lines += [f"{_at(p.second)}task {p.number}: {clean(p.question)}" for p in memory.pending]
    if memory.dialogue:
        lines.append("Said:")
        lines += map(said_text, memory.dialogue)
    return "\n".join(lines)


def _at(second: int | None) -> str:
    return "" if second is None else f"{second} s: "


def log_summary(turns: Sequence[Turn], chars: int = CHARS) -> str:
    """A summary of these turns from what was said in them: deterministic, and text only.

    It stands in where no model summarizes. A response said over and over is written once, with the
    second of the last time. Past `chars` the oldest lines go, and an ellipsis says so.
    """
    lines: list[str] = []
    last: tuple[str, int, int] | None = None  # what the assistant says: text, first and last second

    def flush() -> None:
        if last is not None:
            text, first, final = last
            until = f" (again until {final} s)" if final > first else ""
            lines.append(f"{first} s assistant: {text}{until}")

    for turn in turns:
        heard = [f"{turn.second} s background {n}: {clean(text)}" for n, text in turn.results]
        heard += [f"{turn.second} s user: {clean(text)}" for text in turn.queries]
        heard += [f"{turn.second} s note: {clean(text)}" for text in turn.notes]
        if heard:
            flush()
            last = None
            lines += heard
        text = (
            None
            if turn.action is None or isinstance(turn.action, Silence)
            else clean(spoken(turn.action) or "")
        )
        if text is None:
            continue
        if last is not None and last[0] == text:
            last = (text, last[1], turn.second)
        else:
            flush()
            last = (text, turn.second, turn.second)
    flush()
    if not lines:
        return NOTHING
    kept: list[str] = []
    room = chars
    for line in reversed(lines):
        line = cut(line, chars - 2)
        if len(line) + 2 > room:
            kept.append("…")
            break
        kept.append(line)
        room -= len(line) + 2
    return "; ".join(reversed(kept))


def told_summary(
    seconds: range,
    turns: Sequence[Turn],
    summaries: Sequence[Summary],
    summarize: Callable[[Sequence[Turn]], str] = log_summary,
) -> str:
    """A summary of `turns`, those of `seconds`, from the summaries that lie wholly in these.

    Of two that overlap the one that starts sooner is taken, or is longer. Where something is said
    in seconds that none tells of, `summarize` tells it, and it tells everything where none lies in
    the seconds. So nothing is told that comes after the last of them.
    """
    texts: list[str] = []
    second = seconds.start

    def between(stop: int) -> None:
        left = [turn for turn in turns if second <= turn.second < stop]
        if any(_said_in(turn) for turn in left):
            texts.append(summarize(left))

    for summary in sorted(summaries, key=lambda s: (s.start, -s.stop)):
        if second <= summary.start and summary.stop <= seconds.stop:
            between(summary.start)
            texts.append(summary.text)
            second = summary.stop
    if not texts:
        return summarize(turns)
    between(seconds.stop)
    return " ".join(texts)


def _said_in(turn: Turn) -> bool:
    return bool(turn.queries or turn.results or turn.notes) or not isinstance(turn.action, Silence)
