"""What a line claims, as plain questions about single pictures: for a small model that can say
whether a thing is in a picture, and can't weigh conditions.

    looks("A red car appeared.", 7)    in the picture of second 7? and not in that of second 6?

A line in other words than these claims nothing that could be asked so: no looks, no verdict.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from data_pipeline.agents.event_lines import read_line
from joyvl_train.config import UserError
from joyvl_train.content import tokens

FOLDER = Path(__file__).with_name("plain_prompts")
"""The questions, a wording a line: `there` ($a), `state` ($the, $state), `names`."""

FIELDS = {"there": {"a"}, "state": {"the", "state"}, "names": set[str]()}

# One thing, not several.
_A = r"(?P<a>(?:an?|some) (?!.* and )[^,.!?]+?)"
_THE = r"the (?P<the>(?!.* and )[^,.!?]+?)"
_CAME = r"(?:appeared|came|arrived|appears|comes|arrives)"
_HERE = r"(?:is|are) (?:there|here|in view|visible)(?: now)?"
_LEFT = r"(?:left|leaves|disappeared|is gone|has left|went away)"
# (form of a line, the kind of its look, whether it begins in that second)
_FORMS = (
    (re.compile(rf"{_A} (?:{_CAME}|{_HERE})[.!]?", re.IGNORECASE), "there", True),
    (re.compile(rf"{_THE} (?:{_CAME}|{_HERE})[.!]?", re.IGNORECASE), "there", True),
    (re.compile(rf"{_THE} {_LEFT}[.!]?", re.IGNORECASE), "gone", True),
    (re.compile(rf"I (?:can )?see {_A}[.!]?", re.IGNORECASE), "there", False),
    (re.compile(rf"{_THE} (?:is|are) (?P<state>\w+)[.!]?", re.IGNORECASE), "state", True),
    (re.compile(rf"{_A}[.!]?", re.IGNORECASE), "there", False),
)
_QUESTION = re.compile(
    r"(?:is|are|do|does|can|could|what|which|how|who|name|tell|look|right now|at the moment)\b",
    re.IGNORECASE,
)
# Of what was or is to come, one picture tells nothing.
_OTHER_TIME = re.compile(
    r"\b(?:was|were|did|has|have|had|been|came|come|comes|coming|before|earlier|first|last|latest|"
    r"next|far|again|ever|every|each|when|whenever|after|in \d+|wait|remember|gone|said|total)\b",
    re.IGNORECASE,
)
# Where names are asked for, a bare name tells that the thing has come.
_NAMES = re.compile(r"\bnames?\b", re.IGNORECASE)
_BARE = re.compile(r"\w+(?: \w+){0,2}\.?")
# What is said to an instruction tells of no picture.
_YES = re.compile(
    r"(?:okay|ok|all right|alright|sure|will do|understood|got it)[.!]?", re.IGNORECASE
)
_SMALL = frozenset("and is are there i see it now be some in view picture".split())


@dataclass(frozen=True, slots=True)
class Look:
    """One thing to be found out about the picture of a second.

    kind: "there" and "state" are answered by yes or no, "asked" by any words. given: what the
    wordings of the kind take; of "asked" the question itself. wanted: yes, no, or the words that
    must be said. before: it is about a second before a line's own; such looks follow that of the
    line, and are weighed together.
    """

    second: int
    kind: str
    given: tuple[tuple[str, str], ...]
    wanted: str | tuple[str, ...]
    before: bool = False

    def told(self) -> str:
        """For the reason of a verdict."""
        about = " ".join(value for _, value in self.given)
        wanted = self.wanted if isinstance(self.wanted, str) else " ".join(self.wanted)
        return f"second {self.second}: {about}: {wanted}"


def looks(
    text: str, second: int, *, begins: bool = True, back: int = 1, over: int = 1
) -> tuple[Look, ...]:
    """What to look for where a line is said. begins: also that it was not so `back` seconds before,
    and in the `over` - 1 seconds before that, where the line tells of what comes, goes or changes.
    What comes in slowly is seen in part in the second before its own: two back, an onset that is a
    second late is let by."""
    for form, kind, beginning in _FORMS:
        match = form.fullmatch(text.strip())
        if match is None:
            continue
        found = match.groupdict()
        given: tuple[tuple[str, str], ...]
        if kind == "state":
            given = (("the", f"the {found['the']}"), ("state", found["state"].lower()))
        elif found.get("a"):
            given = (("a", found["a"][0].lower() + found["a"][1:]),)
        else:
            given = (
                ("a", f"{'an' if found['the'][0].lower() in 'aeiou' else 'a'} {found['the']}"),
            )
        now, then = ("no", "yes") if kind == "gone" else ("yes", "no")
        kind = "state" if kind == "state" else "there"
        made = [Look(second, kind, given, now)]
        if begins and beginning:
            earlier = range(second - back, max(second - back - over, -1), -1)
            made += [Look(each, kind, given, then, before=True) for each in earlier]
        return tuple(made)
    return ()


def acknowledges(text: str) -> bool:
    """Whether a line only takes note of what the user said, and claims nothing."""
    return _YES.fullmatch(text.strip()) is not None


def answer_looks(asked: str, text: str, second: int) -> tuple[Look, ...]:
    """The user's own question, put again: for an answer in the second of a question about what is
    there now."""
    if not _QUESTION.match(asked) or _OTHER_TIME.search(asked):
        return ()
    words = tuple(word for word in tokens(text) if word not in _SMALL)
    if not words:
        return ()
    if words[0] in ("yes", "no"):
        return (Look(second, "asked", (("question", asked),), words[0]),)
    return (Look(second, "asked", (("question", asked),), words),)


def line_looks(
    second: int,
    text: str,
    instructions: Sequence[str],
    back: int = 1,
    over: int = 1,
    *,
    begins: bool = True,
) -> tuple[Look, ...]:
    """The looks of one line of an annotation. instructions: the lines of the user so far, as
    `line_of` writes them, "5 s: user: Is there a dog now?". begins: as `looks` has it."""
    said = [told for line in instructions if (told := read_line(line))]
    if said and said[-1].second == second:
        return answer_looks(said[-1].text, text, second)
    if said and _NAMES.search(said[-1].text) and _BARE.fullmatch(text.strip()):
        text = f"{_with_article(text.strip())} appeared."
    return looks(text, second, begins=begins, back=back, over=over)


def annotation_looks(
    lines: Sequence[str], start: int, stop: int, back: int = 1, over: int = 1
) -> tuple[Look, ...] | None:
    """The looks of all lines that the assistant says in the seconds from `start` to `stop`; None
    where there is one that can't be asked about."""
    found: list[Look] = []
    instructions: list[str] = []
    for line in lines:
        told = read_line(line)
        if told is None:
            continue
        if told.role == "user":
            instructions.append(line)
        elif told.role == "assistant" and start <= told.second <= stop:
            if acknowledges(told.text):
                continue
            made = line_looks(told.second, told.text, instructions, back, over)
            if not made:
                return None
            found += made
    return tuple(found)


def wordings(kind: str, folder: Path = FOLDER) -> tuple[str, ...]:
    """The questions of a kind. `UserError` where they are not there or take other fields."""
    path = folder / f"{kind}.md"
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the questions can't be read: {error}") from None
    found = tuple(line for line in lines if line)
    for line in found:
        template = Template(line)
        if not template.is_valid() or set(template.get_identifiers()) != FIELDS[kind]:
            raise UserError(f"{path}: {line!r} must take the fields {sorted(FIELDS[kind])}")
    if not found:
        raise UserError(f"{path}: no question in it")
    return found


def _with_article(noun: str) -> str:
    noun = noun.removesuffix(".")
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun[0].lower()}{noun[1:]}"
