"""Texts for a stream's memory: what was said, and what a model saw.

    summarize = ModelSummary(engine)
    text = summarize(due.turns)

What is said in a chunk is known word for word (`joyvl_train.memory.log_summary`). What was only
seen is told by the model that serves the stream, or by another: asked about a few frames at a time,
in the way that `recipe=base` teaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from joyvl_train.actions import Response
from joyvl_train.baselines import Asked
from joyvl_train.conversation import clean
from joyvl_train.memory import CHARS, log_summary
from joyvl_train.stream import Turn

if TYPE_CHECKING:
    from joyvl_train.rendering import Rendered

HAPPENED = "Write down what happened, for later. Name the colours too."

_NOTHING = {"", "nothing", "nothing changed", "nothing happened", "no change"}


class ModelSummary:
    """Asks `engine` what happened in each stretch of a chunk, `frames` of which it is shown.

    seconds: length of a stretch; each begins with the last frame of the one before, so that what
    changes in between is seen. That nothing happened, or the same as in the stretch before, is left
    out. Past `chars` the oldest lines go, as in `log_summary`, which tells what was said.
    """

    def __init__(
        self,
        engine: Asked,
        question: str = HAPPENED,
        *,
        seconds: int = 10,
        frames: int = 6,
        chars: int = CHARS,
    ) -> None:
        if seconds < 1 or frames < 1:
            raise ValueError(f"seconds={seconds} and frames={frames}; each must be 1 or more")
        self.engine, self.question = engine, question
        self._seconds, self._frames, self._chars = seconds, frames, chars

    def __call__(self, turns: Sequence[Turn]) -> str:
        shown = stretches(turns, self._seconds, self._frames)
        prompts: list[Rendered] = [
            self.engine.renderer.render_question(self.question, frames, system=self.engine.system)
            for _, frames in shown
        ]
        replies = self.engine.generate_batch(prompts, seeds=range(len(prompts))) if prompts else []
        said = [r.action.text if isinstance(r.action, Response) else "" for r in replies]
        return told(turns, [second for second, _ in shown], said, self._chars)


def stretches(
    turns: Sequence[Turn], seconds: int, frames: int
) -> list[tuple[int, tuple[Any, ...]]]:
    """(first second, frames to be shown) of each stretch of `seconds`; each begins with the last
    frame of the one before. Frames that show a change alone are passed over."""
    found: dict[int, list[Turn]] = {}
    for turn in turns:
        if turn.whole:
            found.setdefault(turn.second // seconds, []).append(turn)
    shown = []
    last: list[Turn] = []
    for stretch in found.values():
        stretch[:0], last = last, stretch[-1:]
        chosen = tuple(stretch[i].whole[-1] for i in _spread(len(stretch), frames))
        shown.append((stretch[0].second, chosen))
    return shown


def told(turns: Sequence[Turn], seconds: Sequence[int], said: Sequence[str], chars: int) -> str:
    """One text of what was seen in the stretches that begin in `seconds`, and said in `turns`."""
    lines: list[str] = []
    last = ""
    for second, answer in zip(seconds, said, strict=True):
        text = clean(answer)
        if text.casefold().strip(" .") not in _NOTHING and text != last:
            lines.append(f"{second} s: {text}")
        last = text
    log = log_summary(turns, chars)
    room = chars - len(log) - 2
    kept: list[str] = []
    for line in reversed(lines):
        if len(line) + 2 > room:
            break
        room -= len(line) + 2
        kept.append(line)
    seen = "; ".join(reversed(kept))
    if not seen:
        return log
    return seen if log == log_summary(()) else f"{seen}; {log}"


def _spread(count: int, wanted: int) -> list[int]:
    """`wanted` of `count` places, or all: evenly, the first and the last among them."""
    if count <= wanted:
        return list(range(count))
    if wanted == 1:
        return [count - 1]
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]
