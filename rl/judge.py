"""A model that says whether a text is right where no rule can.

It is asked about what was said in time, many questions at once, each once: what it answered is kept
by content. A question that gets no answer, or one that can't be read, leaves that text unscored and
counted, never wrong. A judge that gives none to `PATIENCE` questions in a row ends the run, which
would learn nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import yaml

from joyvl_train.config import UserError
from joyvl_train.conversation import clean, cut
from joyvl_train.llm import Answer, Client, LLMError, Message, text_part
from joyvl_train.timeline import Timeline
from joyvl_train.timing import Emission, Onset, Right, classify, said_right
from rl.rollout import Rollout

PROMPTS = Path(__file__).parent / "prompts"

SCHEMA = {
    "type": "object",
    "properties": {"reason": {"type": "string", "maxLength": 400}, "right": {"type": "boolean"}},
    "required": ["right"],
    "additionalProperties": False,
}
_CHARS = 500
_Key = tuple[str, str, str]

PATIENCE = 16
"""Questions in a row without a verdict, after which the judge counts as down."""


@cache
def _template() -> str:
    return (PROMPTS / "judge.txt").read_text(encoding="utf-8")


@cache
def rubrics() -> Mapping[str, str]:
    """Family -> what makes a text right."""
    found: dict[str, str] = yaml.safe_load((PROMPTS / "rubrics.yaml").read_text(encoding="utf-8"))
    return found


class Judge:
    """Judges rollouts through `client`, which belongs to it alone. Not for several threads at once.

    `look` is called with rollouts before `right` is asked about them. asked, unscored: how many
    questions were sent, and how many of them got no verdict, by reason.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._runner = asyncio.Runner()
        self._verdicts: dict[_Key, bool | None] = {}
        self.asked = 0
        self.unscored: Counter[str] = Counter()
        self._failed = 0  # questions in a row

    def right(self, clip: str) -> Right:
        """What is right on this clip: by the onset's rule, else by what the model said of it; None
        where nobody knows."""

        def check(onset: Onset, said: str) -> bool | None:
            ruled = said_right(onset, said)
            return self._verdicts.get(_key(clip, onset, said)) if ruled is None else ruled

        return check

    def look(self, rollouts: Sequence[Rollout]) -> None:
        """Asks about all that these rollouts said in time and no rule judges. Raises `UserError`
        where the judge is down."""
        open_ones: dict[_Key, str] = {}
        for rollout in rollouts:
            trace, first = rollout.trace, rollout.window.first
            for onset, said in classify(trace.onsets, trace.emissions).matches:
                key = _key(trace.clip, onset, said.text)
                past = said.second < first or key in self._verdicts
                free = onset.delegation and onset.rule is None
                if past or free or said_right(onset, said.text) is not None:
                    continue
                open_ones.setdefault(key, prompt(rollout.timeline, onset, said))
        if not open_ones:
            return
        questions: list[list[Message]] = [
            [{"role": "user", "content": [text_part(text)]}] for text in open_ones.values()
        ]
        answers = self._runner.run(self._client.ask_all(questions, schema=SCHEMA))
        self.asked += len(answers)
        why = ""
        for key, answer in zip(open_ones, answers, strict=True):
            if isinstance(answer, Answer):
                self._verdicts[key] = bool(answer.data["right"])
                self._failed = 0
                continue
            silent = isinstance(answer, LLMError)
            self.unscored["no answer" if silent else "unparseable"] += 1
            self._failed += 1
            why = str(answer) if isinstance(answer, LLMError) else answer.reason
        if self._failed >= PATIENCE:
            raise UserError(
                f"the judge at {self._client.endpoint.url} gave no verdict on {self._failed} texts "
                f"in a row ({why}); see to it and start again with the same run.dir"
            )

    def end(self) -> None:
        """Lets go of the connections; nothing may be asked afterwards."""
        self._runner.run(self._client.close())
        self._runner.close()


def _key(clip: str, onset: Onset, said: str) -> _Key:
    return clip, onset.id, said


def prompt(timeline: Timeline, onset: Onset, said: Emission) -> str:
    """What the judge reads of something said."""
    known = rubrics()
    asked = [e for e in timeline.of("user") if e.second <= said.second]
    lines = [f"{event.second} s: {_short(event.text)}" for event in asked[-5:]]
    return _template().format(
        rubric=known.get(timeline.family, known["other"]),
        asked="\n".join(lines) or "nothing",
        second=onset.second,
        gold=_short(onset.text),
        said_second=said.second,
        said=_short(said.text),
    )


def _short(text: str) -> str:
    return cut(clean(text), _CHARS)
