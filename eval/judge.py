"""The model judge: two systems on one case, read by a model, in both orders.

A judge sees no names. Each pair is judged twice, with the systems in either place, and the grades
are averaged. An answer that does not fit the schema after all tries, a refusal or an endpoint that
gives none leaves the pair unscored, with its reason; nothing is scored as a loss by accident.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from eval.case import Case
from eval.grades import GRADES, Grade, Unscored, mean
from joyvl_train.conversation import cut
from joyvl_train.heldout import Trace
from joyvl_train.llm import Answer, BudgetError, Client, LLMError, Unparsed, text_part

PROMPTS = Path(__file__).parent / "prompts"
MOST_LINES = 200
"""Of what one system said; of more the middle is left out, and the judge is told so."""

MOST_CHARS = 500
"""Of one thing said; what is cut off shows as an ellipsis."""

_ANSWER = 1536
"""Tokens of an answer: room for its reason in any script."""

_HANDED = " (handed over to the background)"

SCHEMA = {
    "type": "object",
    "properties": {
        "reason": {"type": "string", "maxLength": 300},
        **{
            f"{who}_{axis}": {"enum": list(GRADES)}
            for who in ("a", "b")
            for axis in ("quality", "timing")
        },
    },
    "required": ["reason", "a_quality", "a_timing", "b_quality", "b_timing"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Pair:
    """What the judge says of two systems on a case."""

    mine: Grade
    other: Grade
    reasons: tuple[str, ...] = ()


@cache
def _template() -> str:
    return (PROMPTS / "judge.txt").read_text(encoding="utf-8")


@cache
def rubrics() -> Mapping[str, str]:
    """Scenario -> what matters in it."""
    found: dict[str, str] = yaml.safe_load((PROMPTS / "rubrics.yaml").read_text(encoding="utf-8"))
    return found


def prompt(case: Case, first: Trace, second: Trace) -> str:
    """What the judge reads of a case and two systems."""
    known = rubrics()
    user = [(e.second, e.text) for e in case.timeline.of("user")]
    return _template().format(
        rubric=known.get(case.scenario, known["other"]),
        seconds=len(first.seconds),
        about=case.about,
        user=_lines(user, "nothing"),
        due_first=_due(first),
        due_second=_due(second),
        first=_said(first),
        second=_said(second),
    )


def _due(trace: Trace) -> str:
    """What was due of a system, given what it handed over."""
    due = [
        (
            o.second,
            f"(seconds {o.window.start} to {o.window.stop - 1}{_held(o.until, o.repeat)})"
            f"{_HANDED if o.delegation else ''} {o.text}",
        )
        for o in sorted(trace.onsets, key=lambda o: o.second)
    ]
    return _lines(due, "nothing: silence is right")


def _said(trace: Trace) -> str:
    lines = [(e.second, f"{e.text}{_HANDED if e.delegation else ''}") for e in trace.emissions]
    return _lines(lines, "nothing")


def _held(until: int | None, repeat: bool) -> str:
    if until is None:
        return ""
    return f"; in every second before {until}" if repeat else f"; it holds until {until}"


def _lines(said: Sequence[tuple[int, str]], none: str) -> str:
    lines = [f"{second} s: {cut(' '.join(text.split()), MOST_CHARS)}" for second, text in said]
    if len(lines) > MOST_LINES:
        half = MOST_LINES // 2
        lines = [*lines[:half], f"... {len(lines) - 2 * half} more ...", *lines[-half:]]
    return "\n".join(lines) or none


async def judge_pairs(
    client: Client, pairs: Mapping[str, tuple[Case, Trace, Trace]]
) -> dict[str, Pair | Unscored]:
    """Case -> the verdict on (case, mine, other). Raises `BudgetError` where a cap is reached."""
    jobs = [_judge(client, *pair) for pair in pairs.values()]
    found = await asyncio.gather(*jobs, return_exceptions=True)
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return dict(zip(pairs, found, strict=True))  # type: ignore[arg-type]


async def _judge(client: Client, case: Case, mine: Trace, other: Trace) -> Pair | Unscored:
    mines, others, reasons = [], [], []
    for swapped in (False, True):
        first, second = (other, mine) if swapped else (mine, other)
        answer = await _ask(client, prompt(case, first, second))
        if isinstance(answer, Unscored):
            return answer
        one, two = (
            Grade(GRADES.index(answer[f"{who}_quality"]), GRADES.index(answer[f"{who}_timing"]))
            for who in ("a", "b")
        )
        mines.append(two if swapped else one)
        others.append(one if swapped else two)
        reasons.append(str(answer["reason"]))
    return Pair(mean(mines), mean(others), tuple(reasons))


async def _ask(client: Client, text: str) -> dict[str, Any] | Unscored:
    message = {"role": "user", "content": [text_part(text)]}
    try:
        answer = await client.ask([message], schema=SCHEMA, max_tokens=_ANSWER)
    except BudgetError:
        raise
    except LLMError as error:
        return Unscored("no answer", str(error))
    match answer:
        case Unparsed(_, reason):
            return Unscored("unparseable", reason)
        case Answer(_, data):
            return dict(data)
