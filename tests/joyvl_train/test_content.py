"""Content rules: what counts as the same text, number and fact."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyvl_train import content
from joyvl_train.content import numbers, right, same_numbers, says, token_f1, tokens
from joyvl_train.timeline import Rule


@pytest.mark.parametrize(
    ("gold", "said", "same"),
    [
        ("Yes.", "yes", True),
        ("The red car", "A red car!", True),
        ("Yes.", "Yes, it is.", False),
        ("Don't stop", "dont stop", True),
        ("\uff26\uff49\uff52\uff45", "fire", True),  # full-width letters
        ("caf\u00e9", "cafe\u0301", True),  # composed and not
        ("A", "A", True),  # an option, not an article
        ("A", "B", False),
        ("The", "A", False),
        ("-5", "5", False),
        ("\u22125 degrees", "-5 degrees", True),
        ("1,000", "1000", True),
        ("\u6709\u706b\u3002", "\u6709\u706b", True),
        ("!", "?", False),
        ("!", "!", True),
    ],
)
def test_exact(gold: str, said: str, same: bool) -> None:
    assert right(Rule("exact"), gold, said) is same


def test_exact_takes_a_fact_for_the_gold_text() -> None:
    rule = Rule("exact", ("Goodbye.",))
    assert right(rule, "Farewell.", "goodbye")
    assert right(rule, "Farewell.", "farewell")
    assert not right(rule, "Farewell.", "hello")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("three", [3]),
        ("3", [3]),
        ("3.", [3]),
        ("3.50", ["3.5"]),
        ("costs .5", ["0.5"]),
        ("minus three", [-3]),
        ("-3 and 2-1", [-3, 2, 1]),
        ("1,234,567.5", ["1234567.5"]),
        ("1,2,3", [1, 2, 3]),
        ("12,34", [12, 34]),
        ("twenty-one", [21]),
        ("twenty one two", [21, 2]),
        ("one two three", [1, 2, 3]),
        ("two hundred and five", [205]),
        ("a hundred", [100]),
        ("two and five", [2, 5]),
        ("one hundred thousand two hundred", [100_200]),
        ("two thousand and one", [2001]),
        ("five thousand six million", [5000, 6_000_000]),
        ("2 million", [2_000_000]),
        ("three point one four", ["3.14"]),
        ("None.", [0]),
        ("no one, that one", []),
        ("one more", [1]),
        ("B2 mp4 someone", []),
        ("the 3rd at 5s", [3, 5]),
        ("\u5171 3 \u8f86", [3]),
        ("\u51713\u8f86", [3]),
        ("\u0663", [3]),  # an Arabic-Indic digit
        ("thousand", []),
        ("a cat", []),
        ("forty two point", [42]),
        ("", []),
    ],
)
def test_numbers(text: str, expected: list[int | str]) -> None:
    assert numbers(text) == [Decimal(n) for n in expected]


@pytest.mark.parametrize(
    ("facts", "gold", "said", "same"),
    [
        (("3",), "That makes three.", "three", True),
        (("3",), "That makes three.", "3.0", True),
        (("3",), "That makes three.", "One more, 3 so far.", True),
        (("3",), "That makes three.", "Three, not four.", False),
        (("3",), "That makes three.", "Several.", False),
        (("3",), "That makes three.", "1, 2, 3", False),  # listing is no answer
        (("3",), "1, 2, 3", "1, 2, 3", True),  # unless the gold text does
        (("3",), "That makes three.", "2 or 3", False),
        (("3",), "That makes three.", "2-3", False),
        (("2", "3"), "2 cars, 3 dogs", "3 dogs and two cars", True),
        (("2", "3"), "2 cars, 3 dogs", "2 cars", False),
        (("2", "3"), "2 cars, 3 dogs", "2 cars, 3 dogs, 4 cats", False),
        (("2|3",), "About 2.", "3", True),
        (("2|3",), "About 2.", "4", False),
        ((), "Seven cars.", "7", True),
        ((), "No cars yet.", "7", None),  # nothing to compare with
        (("-4",), "Minus four.", "4", False),
    ],
)
def test_number_rule(facts: tuple[str, ...], gold: str, said: str, same: bool | None) -> None:
    assert right(Rule("number", facts), gold, said) is same


@pytest.mark.parametrize(
    ("fact", "said", "same"),
    [
        ("car|automobile", "An automobile came.", True),
        ("car", "A scar.", False),
        ("car", "Two cars.", True),
        ("boxes", "a box", True),
        ("box", "a boxer", False),
        ("berries", "one berry", True),
        ("glass", "a glas", False),
        ("red car", "A RED car", True),
        ("red car", "A car, red", False),
        ("3 cars", "three cars", True),
        ("\u706b", "\u6709\u706b\uff01", True),
        ("|", "anything", False),
    ],
)
def test_says(fact: str, said: str, same: bool) -> None:
    assert says(fact, said) is same


def test_key_facts_asks_for_every_fact() -> None:
    rule = Rule("key_facts", ("red", "car|van"))
    assert right(rule, "A red car.", "The van is red.") is True
    assert right(rule, "A red car.", "A red bus.") is False
    assert right(Rule("key_facts"), "A red car.", "A red car.") is None


def test_similarity() -> None:
    assert token_f1("a red car stops", "the red car stopped") == pytest.approx(2 / 3)
    assert token_f1("one car", "two cats") == 0
    assert right(Rule("similarity"), "a red car stops", "red car stopped") is True
    assert right(None, "a red car stops", "blue") is False
    assert right(Rule("similarity"), "a", "b", similarity=lambda gold, said: 0.7) is True
    assert right(Rule("similarity"), "a", "b", similarity=lambda _, __: 0.7, similar=0.8) is False


def test_judged() -> None:
    rule = Rule("judged", ("names the colour",))
    assert right(rule, "It is red.", "Red.") is None
    seen = []

    def judge(rule: Rule, gold: str, said: str) -> bool | None:
        seen.append((rule.facts, gold, said))
        return said == "Red." or None

    assert right(rule, "It is red.", "Red.", judge) is True
    assert right(rule, "It is red.", "Blue.", judge) is None  # a judge that fails is no verdict
    assert seen[0] == (("names the colour",), "It is red.", "Red.")


def test_unknown_rule_is_named() -> None:
    with pytest.raises(ValueError, match="'vibes'"):
        right(Rule("vibes"), "a", "b")  # type: ignore[arg-type]


_TEXTS = st.text(max_size=30) | st.lists(
    st.sampled_from(["one", "two", "hundred", "and", "a", "million", "point", "5", "-", ".", "cat"])
).map(" ".join)


@given(_TEXTS, _TEXTS)
def test_never_fails_and_a_text_is_like_itself(gold: str, said: str) -> None:
    for kind in ("exact", "similarity"):
        assert right(Rule(kind), gold, gold) is True
        assert right(Rule(kind), gold, said) in (True, False)
    assert 0 <= token_f1(gold, said) == token_f1(said, gold) <= 1
    assert right(Rule("number"), gold, said) in (True, False, None)
    fact = said.replace("|", " ")
    if tokens(fact):
        assert right(Rule("key_facts", (fact,)), gold, fact)


@given(st.integers(0, 999_999))
def test_number_words_read_back(value: int) -> None:
    """Written out by an independent speller."""
    assert numbers(_spelt(value)) == [value]
    assert same_numbers([str(value)], f"That is {_spelt(value)}.") is True


def _spelt(n: int) -> str:
    small = (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen"
    ).split()
    ties = "twenty thirty forty fifty sixty seventy eighty ninety".split()
    if n < 20:
        return small[n]
    if n < 100:
        return ties[n // 10 - 2] + (f"-{small[n % 10]}" if n % 10 else "")
    if n < 1000:
        return f"{small[n // 100]} hundred" + (f" and {_spelt(n % 100)}" if n % 100 else "")
    return f"{_spelt(n // 1000)} thousand" + (f" {_spelt(n % 1000)}" if n % 1000 else "")


def test_doctest_of_right() -> None:
    import doctest

    assert doctest.testmod(content).failed == 0
