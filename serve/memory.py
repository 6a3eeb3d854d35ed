"""What tells of the seconds that leave a stream's context: three methods, replaced by any object.

`Keeper` is all that a live session knows of it. `Seen` asks a model what happened in each stretch
of a chunk, as training did (`serve.consolidation`). `Said` keeps what was said, word for word, and
asks nobody. `Searched` keeps the lines of another keeper for good, outside the context, and gives
back those that a question is about: for streams that outlive the memory in the context.
"""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from joyvl_train.memory import CHARS, Limits, Summary, joined, log_summary
from joyvl_train.stream import Turn
from serve.consolidation import HAPPENED, stretches, told

Ask = Callable[[str, Sequence[Any]], Awaitable[str]]
"""(question, frames) -> a model's answer; "" where it has none."""


class Keeper(Protocol):
    """chunk: a text of turns that are over. block: one text of summaries, or "" for theirs joined.
    recall: a line about the past that helps with what the user has just said; "" for none."""

    async def chunk(self, seconds: range, turns: Sequence[Turn]) -> str: ...
    async def block(self, summaries: Sequence[Summary]) -> str: ...
    def recall(self, said: str, before: int) -> str: ...


class Said:
    """What was said and when; what was only seen is forgotten."""

    def __init__(self, chars: int = CHARS) -> None:
        self._chars = chars

    async def chunk(self, seconds: range, turns: Sequence[Turn]) -> str:
        return log_summary(turns, self._chars)

    async def block(self, summaries: Sequence[Summary]) -> str:
        return ""

    def recall(self, said: str, before: int) -> str:
        return ""


class Seen(Said):
    """What `ask` says has happened in each stretch of `seconds`, beside what was said."""

    def __init__(
        self,
        ask: Ask,
        question: str = HAPPENED,
        *,
        seconds: int = 10,
        frames: int = 6,
        chars: int = CHARS,
    ) -> None:
        super().__init__(chars)
        self._ask, self._question = ask, question
        self._seconds, self._frames = seconds, frames

    async def chunk(self, seconds: range, turns: Sequence[Turn]) -> str:
        shown = stretches(turns, self._seconds, self._frames)
        # One after another, so that steps of live streams come in between.
        said = [await self._ask(self._question, frames) for _, frames in shown]
        return told(turns, [second for second, _ in shown], said, self._chars)


_WORD = re.compile(r"\w{3,}", re.UNICODE)


class Searched:
    """The lines of `keeper`, kept for good (`most` of them), and searched by what is asked.

    A line matches by the words that it shares with the question, rare words more (BM25). Those that
    the stream's own memory still holds, from second `before` on, are left to it.
    """

    def __init__(
        self, keeper: Keeper, *, most: int = 20_000, lines: int = 3, limits: Limits | None = None
    ) -> None:
        self._keeper, self._most, self._shown = keeper, most, lines
        self._chars = (limits or Limits()).text_chars
        self._lines: deque[tuple[int, str, Counter[str]]] = deque()
        self._known: Counter[str] = Counter()  # word -> how many lines hold it

    async def chunk(self, seconds: range, turns: Sequence[Turn]) -> str:
        text = await self._keeper.chunk(seconds, turns)
        for line in text.split("; "):
            words = Counter(_WORD.findall(line.casefold()))
            self._lines.append((seconds.stop, line, words))
            self._known.update(words.keys())
            if len(self._lines) > self._most:
                self._known -= Counter(self._lines.popleft()[2].keys())  # and no word stays at 0
        return text

    async def block(self, summaries: Sequence[Summary]) -> str:
        return await self._keeper.block(summaries)

    def recall(self, said: str, before: int) -> str:
        asked = set(_WORD.findall(said.casefold()))
        past = [(line, words) for stop, line, words in self._lines if stop <= before]
        if not asked or not past:
            return ""
        length = sum(sum(words.values()) for _, words in past) / len(past)
        scored = [
            (self._match(asked, words, length, len(past)), n) for n, (_, words) in enumerate(past)
        ]
        best = sorted(n for score, n in sorted(scored, reverse=True)[: self._shown] if score > 0)
        text = "; ".join(past[n][0] for n in best)
        return text[: self._chars]

    def _match(self, asked: set[str], words: Counter[str], length: float, count: int) -> float:
        """BM25 with k1 = 1.2, b = 0.75 (Robertson and Zaragoza, 2009)."""
        size = 0.25 + 0.75 * sum(words.values()) / max(length, 1.0)
        found = 0.0
        for word in asked & words.keys():
            rarity = math.log(1 + (count - self._known[word] + 0.5) / (self._known[word] + 0.5))
            found += max(rarity, 0.0) * words[word] * 2.2 / (words[word] + 1.2 * size)
        return found


def block_of(summaries: Sequence[Summary], text: str, limits: Limits) -> Summary:
    """The block of these summaries: `text`, or theirs joined where there is none."""
    if not text.strip():
        return joined(summaries, limits)
    return Summary(summaries[0].start, summaries[-1].stop, text)
