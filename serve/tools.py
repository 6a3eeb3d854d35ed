"""Small real tools for delegated tasks: arithmetic, and search over what a stream has said.

Each takes a task and gives its answer in a sentence, or "" where the question is none for it.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from joyvl_train.background import Task
from serve.events import EventLog

Tool = Callable[[Task], str]

_WORDS = (
    (r"\b(?:times|multiplied by)\b|×", "*"),
    (r"\bplus\b|\band then add\b", "+"),
    (r"\bminus\b|\bless\b", "-"),
    (r"\b(?:divided by|over)\b|÷", "/"),
    (r"\bsquared\b", "**2"),
    (r"(?<=\d)\s*%\s*of\b|\bpercent of\b", "/100*"),
)
_SUM = re.compile(r"[\d(][\d\s().*/+-]*[*/+-][\d\s().*/+-]*[\d)]")
_OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_SPOKEN = {"**2": " squared", "*": " times ", "/": " divided by ", "+": " plus ", "-": " minus "}
_MOST = 10**15
_EARLIER = re.compile(r"\b(?:when|earlier|before|did|was|were|last|first|ago|happened)\b", re.I)
_WORD = re.compile(r"\w{3,}")


def calculate(task: Task) -> str:
    """The value of the sum that a question holds.

    >>> calculate(Task(1, 0, "", "What is 345 times 12?"))
    '345 times 12 is 4140.'
    """
    text = task.question.casefold().replace(",", "")
    for words, sign in _WORDS:
        text = re.sub(words, f" {sign} ", text)
    for found in _SUM.finditer(text):
        written = " ".join(found[0].split())
        try:
            value = _value(ast.parse(written, mode="eval").body)
        except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
            continue
        for sign, word in _SPOKEN.items():
            written = written.replace(sign, word)
        told = f"{value:.10g}" if value % 1 else str(int(value))
        return f"{' '.join(written.split())} is {told}."
    return ""


def _value(node: ast.AST) -> float:
    match node:
        case ast.Constant(value=int() | float() as value):
            found = float(value)
        case ast.BinOp(left, sign, right) if isinstance(sign, ast.Pow):
            if _value(right) != 2:
                raise ValueError("only squares")
            found = _value(left) ** 2
        case ast.BinOp(left, sign, right) if type(sign) in _OPERATORS:
            found = _OPERATORS[type(sign)](_value(left), _value(right))
        case ast.UnaryOp(sign, operand) if type(sign) in _OPERATORS:
            found = _OPERATORS[type(sign)](_value(operand))
        case _:
            raise ValueError("no arithmetic")
    if not abs(found) <= _MOST:
        raise ValueError("too large")
    return found


def search(log: EventLog, most: int = 3) -> Tool:
    """Searches what the stream has said and what memory was told from now on, for questions about
    the past."""
    since = log.last

    def tool(task: Task) -> str:
        asked = set(_WORD.findall(task.question.casefold()))
        if not _EARLIER.search(task.question):
            return ""
        lines = list(_lines(log.after(since), task.second))
        scored = [
            (len(asked & set(_WORD.findall(line.casefold()))), n) for n, line in enumerate(lines)
        ]
        best = sorted(n for score, n in sorted(scored, reverse=True)[:most] if score)
        return "; ".join(dict.fromkeys(lines[n] for n in best))

    return tool


def _lines(events: Iterable[dict[str, Any]], before: int) -> Iterable[str]:
    for event in events:
        if event["kind"] == "step" and event["text"] and event["second"] < before:
            yield f"{event['second']} s: {event['text']}"
        elif event["kind"] == "summary":
            yield from (line for line in event["text"].split("; ") if " s" in line)


def reading(read: Callable[[Any], Sequence[str]]) -> Tool:
    """What is written in the newest picture, for questions that ask for it. read: a picture -> its
    lines."""
    asks = re.compile(r"\b(?:read|written|text|sign|says?|words?|label|number plate)\b", re.I)

    def tool(task: Task) -> str:
        if not task.frames or not asks.search(task.question):
            return ""
        lines = [line for line in read(task.frames[-1]) if line.strip()]
        return f"It reads: {' / '.join(lines)}" if lines else "No text can be read."

    return tool


def counting(detect: Callable[[Any], Sequence[str]]) -> Tool:
    """How many of each thing are in the newest picture, for questions that ask for it. detect: a
    picture -> the labels of the things in it."""
    asks = re.compile(r"\b(?:how many|count|number of)\b", re.I)

    def tool(task: Task) -> str:
        if not task.frames or not asks.search(task.question):
            return ""
        found = list(detect(task.frames[-1]))
        told = [f"{found.count(label)} {label}" for label in dict.fromkeys(found)]
        return f"In the picture: {', '.join(told)}." if told else "Nothing that is known is there."

    return tool
