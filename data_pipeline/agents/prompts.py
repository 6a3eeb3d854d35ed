"""The prompts of the agents: which fields each takes, and the shape of its answer.

The texts are files in `prompts/`, one an agent: what the agent is told once, a line `---`, and the
question with its fields as `$name`. `prompts/rules.md` stands before each. A folder of one's own
may hold other texts under the same names, with the same fields.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from joyvl_train.config import UserError
from joyvl_train.conversation import clean
from joyvl_train.timeline import TimelineError

FOLDER = Path(__file__).with_name("prompts")
KINDS = ("object", "person", "action", "state", "text")
"""What the target of an alert may be: something or someone that appears, something done, a change
that lasts (a light goes on), a text that can be read."""
DIRECTIONS = ("backward", "present", "forward")
STYLES = ("egocentric", "long video", "companionship")

Field = str | int | Sequence[str]
"""A text, a number, or a list of texts; texts come from outside."""

_TEXT = {"type": "string"}
_SECOND = {"type": "integer", "minimum": 0}


def _one_of(*values: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def _list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(**properties: Any) -> dict[str, Any]:
    """All of the properties and no other, which is what servers hold a model to best."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_VERDICT = _one_of("yes", "no", "unsure")
_YES_NO = _one_of("yes", "no")
VERDICT = _object(reason=_TEXT, verdict=_VERDICT)
"""The reason comes first: a model that writes in order then judges after it has looked."""
_TARGET = _object(
    kind=_one_of(*KINDS), target=_TEXT, second=_SECOND, instruction=_TEXT, response=_TEXT
)
_SAID = _object(speak=_YES_NO, text=_TEXT)


@dataclass(frozen=True, slots=True)
class Form:
    """The fields that an agent's prompt takes, the JSON schema of its answer, and how many tokens
    the answer may have."""

    fields: tuple[str, ...]
    schema: Mapping[str, Any]
    max_tokens: int = 300


PROMPTS: Mapping[str, Form] = {
    # Alerting
    "video_filter": Form(("seconds",), VERDICT),
    "target_proposer": Form(
        ("start", "stop", "kinds", "most", "language"), _object(targets=_list(_TARGET)), 900
    ),
    "absent_proposer": Form(
        ("start", "stop", "kinds", "most", "language"),
        _object(targets=_list(_object(kind=_one_of(*KINDS), target=_TEXT, instruction=_TEXT))),
        600,
    ),
    "window_verifier": Form(
        ("start", "stop", "target", "second", "instruction", "response"), VERDICT
    ),
    "dense_precheck": Form(("target",), VERDICT, 150),
    "localizer": Form(
        ("start", "stop", "target"), _object(reason=_TEXT, verdict=_VERDICT, second=_SECOND)
    ),
    # Time-aligned questions
    "asker": Form(
        ("direction", "second", "stop", "language", "earlier"),
        _object(evidence=_TEXT, question=_TEXT, answer=_TEXT, answer_second=_SECOND),
    ),
    "answer_checker": Form(("direction", "second", "question", "answer", "answer_second"), VERDICT),
    # Counting and perception over time
    "reappearance_filter": Form(
        ("seconds",),
        _object(
            reason=_TEXT,
            verdict=_VERDICT,
            things=_list(_object(thing=_TEXT, seconds=_list(_SECOND))),
        ),
        600,
    ),
    "second_labeller": Form(
        ("thing", "second", "counted"),
        _object(reason=_TEXT, visible=_SECOND, new=_SECOND, verdict=_VERDICT),
    ),
    # Commentary
    "commentator": Form(("second", "language", "said"), _SAID),
    "grounding_checker": Form(("second", "text"), VERDICT),
    # Casual chat
    "user_agent": Form(("style", "second", "language", "dialogue"), _SAID),
    "companion_agent": Form(("style", "second", "language", "dialogue"), _SAID),
    # Delegation
    "planner": Form(
        ("start", "stop", "language"),
        _object(reason=_TEXT, second=_SECOND, query=_TEXT, note=_TEXT, question=_TEXT),
        500,
    ),
    "timestamp_verifier": Form(("second", "query", "question"), VERDICT),
    "visual_verifier": Form(("second", "query"), VERDICT),
    "difficulty_verifier": Form(("second", "query", "question"), VERDICT),
    "background": Form(
        ("query", "question"), _object(work=_TEXT, verdict=_VERDICT, answer=_TEXT), 1500
    ),
    "foreground_rewriter": Form(
        ("second", "language", "query", "note", "result"), _object(text=_TEXT)
    ),
    # Every family
    "global_verifier": Form(("seconds", "start", "stop", "annotation"), VERDICT, 500),
    "local_verifier": Form(("second", "instruction", "earlier", "text"), VERDICT),
    "summarizer": Form(("start", "stop", "words", "language", "said"), _object(summary=_TEXT), 500),
    "summary_verifier": Form(("start", "stop", "said", "summary"), VERDICT),
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt whose text and fields are known to fit. `key` is its name with a hash of all that
    the model is told, and stands in the history of what it judged."""

    name: str
    form: Form
    system: str
    question: str

    @property
    def key(self) -> str:
        told = json.dumps([self.system, self.question, self.form.schema], sort_keys=True)
        return f"{self.name}@{hashlib.sha256(told.encode()).hexdigest()[:8]}"

    def fill(self, fields: Mapping[str, Field], most_chars: int) -> str:
        """The question with every field in its place.

        A text stands in double quotes, escaped as in JSON, on one line, with nothing in it that
        could be read as a marker; a list is a line each. So a text from outside can neither end its
        quotes nor begin a line. `ValueError` where a field is missing or left over; `TimelineError`
        "too long" where one has more than `most_chars` characters: a cut text would be judged by a
        part of it.
        """
        wrong = sorted(set(fields) ^ set(self.form.fields))
        if wrong:
            raise ValueError(
                f"prompt {self.name} takes the fields {', '.join(self.form.fields) or '(none)'}; "
                f"missing or left over: {', '.join(wrong)}"
            )
        shown = {name: _shown(value) for name, value in fields.items()}
        for name, text in shown.items():
            if len(text) > most_chars:
                detail = f"{self.name}: {name} has {len(text)} characters, at most {most_chars}"
                raise TimelineError("too long", detail)
        return Template(self.question).substitute(shown)


def _shown(value: Field) -> str:
    if isinstance(value, str):
        return json.dumps(clean(value), ensure_ascii=False)
    if isinstance(value, int):
        return str(value)
    return "".join(f"\n- {_shown(text)}" for text in value) or "(none)"


def load(name: str, folder: Path = FOLDER) -> Prompt:
    """The prompt of an agent in `PROMPTS`, its text from `folder`. `UserError` where the text is
    not there or its fields are not those of the table."""
    path, form = folder / f"{name}.md", PROMPTS[name]
    system, line, question = _read(path).partition("\n---\n")
    if not line:
        raise UserError(f"{path}: no line '---' between what is told once and the question")
    template = Template(question.strip())
    if not template.is_valid():
        raise UserError(f"{path}: a '$' that begins no field; write '$$' for a dollar")
    found, wanted = set(template.get_identifiers()), set(form.fields)
    if found != wanted:
        wrong = ", ".join(sorted(found ^ wanted))
        raise UserError(f"{path}: its fields must be {sorted(wanted)}; wrong or missing: {wrong}")
    rules = folder / "rules.md"
    told = _read(rules if rules.is_file() else FOLDER / "rules.md")
    return Prompt(name, form, f"{told.strip()}\n\n{system.strip()}", template.template)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the prompt can't be read: {error}") from None
