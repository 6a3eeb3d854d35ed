"""What stages tell of texts without asking: rules of content, and flaws that show at once."""

from __future__ import annotations

import re
from collections.abc import Sequence

from joyvl_train import content
from joyvl_train.timeline import Rule

MOST_FACTS = 5
"""Words of a text up to which each must be said; longer ones are compared by likeness."""

# Words that carry no fact of their own; what is left of a short answer must be said.
_EMPTY = frozenset(
    "a an the is are was were be been am it its he she they them there here this that these those "
    "of in on at to by with from for and or as into onto over under up out off down now then just "
    "one has have had do does did appeared appears appear came comes come arrived arrives visible "
    "seen i you we his her their who which what".split()
)
_ENDS = frozenset("on off up down out".split())
_TIME = re.compile(
    r"\d+(?:[.:]\d+)?[\s-]*(?:s|secs?|seconds?|mins?|minutes?)\b|\d:\d\d\b|<\d", re.IGNORECASE
)
_COMING = re.compile(
    r"(?<!as )\bsoon\b|\b(?:will|shall|going to|about to|in a moment|shortly)\b|'ll\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"[\"“”«»„「『]([^\"“”«»„「」『』]+)[\"“”«»„」』]|(?<!\w)'([^']+)'(?!\w)")


def english(language: str) -> bool:
    return language.split("-")[0].lower() in ("en", "english")


def content_words(text: str) -> tuple[str, ...]:
    """The words of a text that say something, each once.

    >>> content_words("A man on a red bike is there."), content_words("The lamp is on.")
    (('man', 'red', 'bike'), ('lamp', 'on'))
    """
    words = content.tokens(text)
    # Such a word at the end is a state: a lamp is on, a flag is up.
    kept = [
        w for n, w in enumerate(words, 1) if w not in _EMPTY or (n == len(words) and w in _ENDS)
    ]
    return tuple(dict.fromkeys(kept))


def naming_rule(target: str, said: str, language: str) -> Rule:
    """The rule of an alert: what names the target must be said, as far as `said` names it."""
    facts = tuple(word for word in content_words(target) if content.says(word, said))
    return _sound(Rule("key_facts", facts), said) if english(language) and facts else _ALIKE


def answer_rule(answer: str, language: str) -> Rule:
    """The rule of an answer to a question: a number, yes or no, the words of a short answer, or
    likeness to a longer one.

    >>> [answer_rule(text, "en").facts for text in ("Three.", "Yes.", "A red car.")]
    [('3',), ('Yes',), ('red', 'car')]
    """
    numbers, words = content.numbers(answer), content_words(answer)
    if len(numbers) == 1 and len(words) <= 2:
        return _sound(Rule("number", (f"{numbers[0].normalize():f}",)), answer)
    if english(language) and words in (("yes",), ("no",)):
        return Rule("exact", (words[0].capitalize(),))
    if english(language) and 0 < len(words) <= MOST_FACTS:
        return _sound(Rule("key_facts", words), answer)
    return _ALIKE


_ALIKE = Rule("similarity")


def _sound(rule: Rule, text: str) -> Rule:
    """The rule, if the text that it was made from is right by it."""
    return rule if content.right(rule, text, text) else _ALIKE


def names_a_time(text: str) -> bool:
    """Whether a text tells a moment or a length of time in seconds or minutes."""
    return _TIME.search(text) is not None


def foretells(text: str) -> bool:
    """Whether an instruction says that what it asks for is going to happen."""
    return _COMING.search(text) is not None


def quoted(text: str) -> str:
    """What stands in quotes in a text; empty where nothing does."""
    match = _QUOTED.search(text)
    return (match[1] or match[2]).strip() if match else ""


def same(text: str, others: Sequence[str]) -> bool:
    """Whether one of the others says the same, but for case, articles and punctuation."""
    return any(content.tokens(text) == content.tokens(other) for other in others)
