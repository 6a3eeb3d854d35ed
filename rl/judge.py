"""A model that says whether a text is right where no rule can.

It is asked about what was said in time, many questions at once, each once: what it answered is kept
by the question, word for word. A question that gets no answer, or one that can't be read, leaves
that text unscored and counted, never wrong. A judge that gives none to `PATIENCE` questions in a
row ends the run, which would learn nothing.
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
from joyvl_train.timing import Onset, Right, classify, said_right
from rl.rollout import Rollout

PROMPTS = Path(__file__).parent / "prompts"

SCHEMA = {
    "type": "object",
    "properties": {"reason": {"type": "string", "maxLength": 400}, "right": {"type": "boolean"}},
    "required": ["right"],
    "additionalProperties": False,
}
_CHARS = 500

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

    `look` is called with rollouts before `right` is asked about them. asked: how many questions
    were sent.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._runner = asyncio.Runner()
        self._verdicts: dict[str, bool] = {}  # question -> what the model said
        self.asked = 0
        self._failed = 0  # questions in a row

    def right(self, timeline: Timeline) -> Right:
        """What is right on this clip: by the onset's rule, else by what the model said of it; None
        where nobody knows."""

        def check(onset: Onset, said: str) -> bool | None:
            ruled = said_right(onset, said)
            return self._verdicts.get(prompt(timeline, onset, said)) if ruled is None else ruled

        return check

    def look(self, rollouts: Sequence[Rollout]) -> Counter[str]:
        """Asks about all that these rollouts said in time and no rule judges; how many of these
        texts got no verdict, by reason. Raises `UserError` where the judge is down."""
        open_ones: dict[str, None] = {}
        unscored: Counter[str] = Counter()
        for rollout in rollouts:
            trace, first = rollout.trace, rollout.window.first
            for onset, said in classify(trace.onsets, trace.emissions).matches:
                free = onset.delegation and onset.rule is None
                past = said.second < first
                if past or free or said_right(onset, said.text) is not None:
                    continue
                question = prompt(rollout.timeline, onset, said.text)
                if question not in self._verdicts:
                    open_ones[question] = None
        if not open_ones:
            return unscored
        questions: list[list[Message]] = [
            [{"role": "user", "content": [text_part(text)]}] for text in open_ones
        ]
        answers = self._runner.run(self._client.ask_all(questions, schema=SCHEMA))
        self.asked += len(answers)
        why = ""
        for question, answer in zip(open_ones, answers, strict=True):
            if isinstance(answer, Answer):
                self._verdicts[question] = bool(answer.data["right"])
                self._failed = 0
                continue
            silent = isinstance(answer, LLMError)
            unscored["no answer" if silent else "unparseable"] += 1
            self._failed += 1
            why = str(answer) if isinstance(answer, LLMError) else answer.reason
        if self._failed >= PATIENCE:
            raise UserError(
                f"the judge at {self._client.endpoint.url} gave no verdict on {self._failed} texts "
                f"in a row ({why}); see to it and start again with the same run.dir"
            )
        return unscored

    def end(self) -> None:
        """Lets go of the connections; nothing may be asked afterwards."""
        self._runner.run(self._client.close())
        self._runner.close()


def prompt(timeline: Timeline, onset: Onset, said: str) -> str:
    """What the judge reads of something said in the onset's window: what matters in the family, and
    what the event's own rule adds to it; what the user had said until then; gold's text; and it."""
    known, rule = rubrics(), onset.rule
    rubric = [known.get(timeline.family, known["other"])]
    if rule is not None and rule.facts:
        facts = "\n".join(f"- {_short(fact)}" for fact in rule.facts)
        rubric.append(f"Of this text in particular:\n{facts}")
    asked = [e for e in timeline.of("user") if e.second < onset.window.stop]
    lines = [f"{event.second} s: {_short(event.text)}" for event in asked[-5:]]
    return _template().format(
        rubric="\n".join(rubric),
        asked="\n".join(lines) or "nothing",
        second=onset.second,
        gold=_short(onset.text),
        said=_short(said),
    )


def _short(text: str) -> str:
    return cut(clean(text), _CHARS)
