import random
import re
import string

import pytest

from data_pipeline.world.languages import LINES, ROMANIZED, WORDS
from data_pipeline.world.pictures import SETS, picture_set
from data_pipeline.world.stories import chat, delegation, recall
from data_pipeline.world.wordings import ASK
from data_pipeline.world.words import STATES, a, fits, forms, listed, plural, polite

TABLES = {"ASK": ASK, "chat": chat.SAY, "hard": delegation.ASK_HARD, "memory": recall.ASK_MEMORY}


@pytest.mark.parametrize(
    ("noun", "many"),
    [
        ("dog", "dogs"),
        ("bus", "buses"),
        ("red box", "red boxes"),
        ("butterfly", "butterflies"),
        ("toy", "toys"),
        ("person", "people"),
        ("knife", "knives"),
        ("scissors", "scissors"),
        ("flames", "flames"),
        ("torch", "torches"),
        ("bunch of grapes", "bunches of grapes"),
    ],
)
def test_plural(noun: str, many: str) -> None:
    assert plural(noun) == many


def test_plurals_agree_with_the_pictures_own() -> None:
    for thing in (*picture_set("drawn"), *picture_set("photo")):
        if thing.article in ("a", "an"):
            assert plural(thing.name) == thing.plural


def test_articles() -> None:
    assert a("apple") == "an apple"
    assert a("red apple") == "a red apple"
    assert a("orange ball") == "an orange ball"
    assert a("unicorn") == "a unicorn"
    assert a("sun", "the") == "the sun"
    assert a("smoke", "some") == "some smoke"
    assert a("flames") == "some flames"


def test_articles_agree_with_the_pictures_own() -> None:
    for thing in (*picture_set("drawn"), *picture_set("photo")):
        assert a(thing.name, thing.article) == f"{thing.article} {thing.name}"


def test_listed() -> None:
    assert listed(["a dog"]) == "a dog"
    assert listed(["a dog", "a cat"]) == "a dog and a cat"
    assert listed(["a dog", "a cat", "a car"]) == "a dog, a cat and a car"


@pytest.mark.parametrize("table", TABLES)
def test_eight_wordings_or_more_and_none_twice(table: str) -> None:
    for event, wordings in TABLES[table].items():
        assert len(wordings) >= 8, event
        assert len(set(wordings)) == len(wordings), event


def test_wordings_take_only_known_forms() -> None:
    known = {*forms("dog"), *(f"{k}2" for k in forms("dog")), "n", "state", "state2", "steps"}
    for table in TABLES.values():
        for wordings in table.values():
            for text in wordings:
                fields = {name for _, name, _, _ in string.Formatter().parse(text) if name}
                assert fields <= known | {"x", "y", "q"}, text


@pytest.mark.parametrize("pictures", SETS)
def test_no_name_means_two_pictures(pictures: str) -> None:
    owner: dict[str, str] = {}
    for thing in picture_set(pictures):
        for name in thing.names:
            assert owner.setdefault(name, thing.name) == thing.name, name


def test_a_polite_word_keeps_the_order() -> None:
    rng = random.Random("polite")
    said = {polite(rng, "Tell me when a dog comes.") for _ in range(200)}
    assert said == {
        "Tell me when a dog comes.",
        "Please tell me when a dog comes.",
        "Tell me when a dog comes, please.",
    }
    assert {polite(rng, "Is there a dog?") for _ in range(200)} == {"Is there a dog?"}


def test_states_of_drawn_things_can_be_told() -> None:
    told = {s for p in picture_set("drawn") for s in p.states if s in STATES}
    assert {"open", "closed", "on", "off", "red", "green"} <= told


def test_of_some_smoke_and_of_the_sun_there_are_not_several() -> None:
    assert fits("Watch for {s} and report each one.", "an")
    assert not fits("Watch for {s} and report each one.", "some")
    assert not fits("Report all {s} and all {s2} as they come.", "the")
    assert fits("Tell me every time {a} appears.", "some")
    assert fits("Is there {a} now?", "some") and not fits("Is there {a} now?", "the")


def test_wordings_that_no_one_would_say() -> None:
    for table in TABLES.values():
        for wordings in table.values():
            for text in wordings:
                assert "each {n} seconds" not in text.lower(), text
                # Of a phone that is ringing nobody says that it gets, goes or turns ringing.
                assert not re.search(r"(gets?|goe?s?|turns?|becomes?) {state}", text), text


def test_lexicon() -> None:
    languages = {language for language, _ in WORDS}
    assert languages == {"es", "fr", "de", "it"}
    assert all(sum(code == language for code, _ in WORDS) >= 38 for language in languages)
    assert len(LINES) >= 50
    assert all(
        roman.isascii() and not word.isascii() for (_, word), (roman, _) in ROMANIZED.items()
    )
