"""The language of the world: how things are named. What users say is in `wordings.py`."""

from __future__ import annotations

import random
from collections.abc import Sequence

_PLURALS = {
    "person": "people",
    "man": "men",
    "woman": "women",
    "fireman": "firemen",
    "child": "children",
    "mouse": "mice",
    "goose": "geese",
    "fish": "fish",
    "sheep": "sheep",
    "deer": "deer",
    "knife": "knives",
    "leaf": "leaves",
    "wolf": "wolves",
    "cactus": "cacti",
    "tomato": "tomatoes",
    "potato": "potatoes",
}
MANY = {"scissors", "glasses", "shears", "flames", "fumes", "grapes", "trousers", "jeans"}
"""Nouns that are plural already."""

STATES = (
    "open closed on off lit unlit red green yellow amber waving standing ringing quiet full empty"
).split()
"""States that can be said of a thing with "is": "The door is open."."""

PEOPLE = ("Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo", "Ida", "Jonas")


def plural(noun: str) -> str:
    """The plural of a noun, or of the last word of a phrase.

    >>> plural("red box"), plural("person"), plural("butterfly")
    ('red boxes', 'people', 'butterflies')
    """
    head, of, rest = noun.partition(" of ")
    *before, last = head.split(" ")
    if last in _PLURALS:
        last = _PLURALS[last]
    elif last in MANY:
        pass
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return " ".join([*before, last]) + of + rest


def a(noun: str, article: str = "a") -> str:
    """The noun with its article: "the" and "some" stay, "a" and "an" go by the noun's sound.

    >>> a("apple"), a("red apple"), a("smoke", "some"), a("umbrella"), a("unicorn")
    ('an apple', 'a red apple', 'some smoke', 'an umbrella', 'a unicorn')
    """
    if article in ("the", "some"):
        return f"{article} {noun}"
    if noun.split(" of ")[0].split(" ")[-1] in MANY:
        return f"some {noun}"
    vowel = noun[0].lower() in "aeiou" and not noun.lower().startswith(("uni", "use", "eu", "one"))
    return f"{'an' if vowel else 'a'} {noun}"


def capital(text: str) -> str:
    """`text` with a capital first letter."""
    return text[:1].upper() + text[1:]


def fits(wording: str, article: str) -> bool:
    """Whether a wording reads well with a thing of this article: of some smoke and of the sun there
    are not several, and nobody asks whether there is the sun.

    >>> fits("Report every {noun}.", "some"), fits("Is there {a}?", "the"), fits("See {a}?", "the")
    (False, False, True)
    """
    if article in ("a", "an"):
        return True
    several = any(form in wording for form in ("{s}", "{s2}", "{noun}", "{noun2}"))
    return not several and not (article == "the" and "there {a}" in wording)


def forms(noun: str, article: str = "a") -> dict[str, str]:
    """The forms of a noun that wordings take: {noun}, {a}, {the}, {The}, {s} (plural)."""
    return {
        "noun": noun,
        "a": a(noun, article),
        "the": f"the {noun}",
        "The": f"The {noun}",
        "s": plural(noun),
    }


def listed(items: Sequence[str]) -> str:
    """`items` as a phrase: "a dog", "a dog and a cat", "a dog, a cat and a car"."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


_ORDERS = set(
    "tell let alert say notify report watch keep describe comment give narrate announce name count "
    "call translate put guide lead help set start remind wake stop".split()
)


def polite(rng: random.Random, text: str) -> str:
    """Small changes that carry no meaning: a polite word before or after an order, or none."""
    draw = rng.random()
    if text.split(" ")[0].lower() not in _ORDERS or text[-1] != "." or "please" in text:
        return text
    if draw < 0.12:
        return f"Please {text[0].lower()}{text[1:]}"
    if draw < 0.2:
        return f"{text[:-1]}, please."
    return text
