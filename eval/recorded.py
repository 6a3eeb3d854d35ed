"""Transcripts of systems that have no API: JSON lines of what was said when.

    {"case": "fire-after-smoke", "time": 24.8, "text": "A fire appeared."}
    {"case": "far-sum", "time": 11.2, "text": "Let me work it out.", "delegates": "What is 9 x 9?"}
    {"case": "quiet-yard"}

`time` is in seconds from the start of the case's stream. A line without a text says that the case
was played, and nothing is said at that point; a case without any line is not scored.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from eval.fields import CaseError, Fields
from eval.script import MAX_SECONDS
from eval.systems import Recorded
from joyvl_train.actions import Action, ActionFormatError, Delegation, Response, fold

MAX_LINE = 1 << 20


def read_recorded(path: str | Path, name: str = "") -> Recorded:
    """The system that said what the file holds; `CaseError` names the line that is wrong.

    Of two texts in one second the later one moves to the next second that is free, as a user would
    hear it.
    """
    path = Path(path)
    said: dict[str, list[tuple[float, Action]]] = {}
    try:
        # Not splitlines: JSON may hold other line breaks as they are.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CaseError(f"{path}: can't be read ({error}); give a file of JSON lines") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        if len(line) > MAX_LINE:
            raise CaseError(f"{where}: {len(line)} characters, at most {MAX_LINE}; cut the text")
        try:
            data: Any = json.loads(line, object_pairs_hook=_once)
        except CaseError as error:
            raise CaseError(f"{where}: {error}") from None
        except (ValueError, RecursionError) as error:
            raise CaseError(f"{where}: no JSON ({str(error)[:100]}); mend the line") from None
        item = Fields(data, where)
        case = item.text("case")
        actions = said.setdefault(case, [])
        time = item.number("time", 0, MAX_SECONDS, None)
        action = _action(item, where)
        item.end()
        if action is None:
            continue
        if time is None:
            raise CaseError(f"{where}: a text without a time; give it in seconds")
        actions.append((time, action))
    if not said:
        raise CaseError(
            f"{path}: names no case; a case without a word has a line with `case` alone"
        )
    return Recorded(name or path.stem, {case: _by_second(all_) for case, all_ in said.items()})


def _by_second(said: list[tuple[float, Action]]) -> dict[int, Action]:
    found: dict[int, Action] = {}
    free = 0  # what came before fills the seconds up to here, from its own on
    for time, action in sorted(said, key=lambda item: item[0]):
        second = max(math.floor(time), free)
        found[second] = action
        free = second + 1
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, of which no name is given twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise CaseError(f"{twice} is given twice; take one out")
    return found


def _action(item: Fields, where: str) -> Action | None:
    text, question = item.text("text", ""), item.text("delegates", "")
    if not text:
        if question:
            raise CaseError(f"{where}: delegates, but says nothing; give the text, too")
        return None
    try:
        return Delegation(fold(text), fold(question)) if question else Response(fold(text))
    except ActionFormatError as error:
        raise CaseError(f"{where}: {error.reason}; take it out of the text") from None
