"""Which annotations are near-same."""

from __future__ import annotations

import errno
from array import array
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.near_text import SLACK, Annotations, Said, near_words, said, scratch, words_of
from joyvl_train.run import disk_full
from joyvl_train.timeline import Event
from tests.data_pipeline.made_corpus import candidate


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A red car, a RED car!", ["a", "red", "car", "a", "red", "car"]),
        ("红色汽车 car", ["红色", "色汽", "汽车", "car"]),
        ("犬", ["犬"]),
        ("ดีมาก", ["ดี", "ีม", "มา", "าก"]),
        ("don't 3.5", ["don", "t", "3", "5"]),
        ("👍 …", []),
        ("naïve_Straße", ["naïve_straße"]),
    ],
)
def test_words(text, words):
    assert words_of([text]) == words


def packed(numbers) -> bytes:
    return array("I", sorted(numbers)).tobytes()


sets = st.sets(st.integers(0, 30), min_size=1)


@given(sets, sets, st.sampled_from([0.5, 0.8, 0.9, 1.0]))
def test_near_is_the_share_of_words_that_both_have(one, other, share):
    alike = len(one & other) / len(one | other) >= share
    exchanged = min(len(one - other), len(other - one)) / len(one | other)
    assert near_words(packed(one), packed(other), share) == (alike and exchanged <= 0.02)


def test_of_many_words_a_few_may_be_others():
    many = set(range(1000, 1100))
    assert near_words(packed(many | {1}), packed(many | {2}))
    assert not near_words(packed(many | {1, 2, 3}), packed(many | {4, 5, 6}))


def told(text: str, first: float, last: float) -> Said:
    found = said(candidate("x", question=text))
    assert found is not None
    return replace(found, first=first, last=last)


@pytest.fixture
def table(tmp_path: Path):
    with scratch(tmp_path / "met.sqlite") as database:
        yield Annotations(database)


LONG = "tell me when the person in the green coat puts the last cup on the wooden table please"


@pytest.mark.parametrize(
    ("text", "first", "last", "place", "near"),
    [
        (LONG, 10, 11, 7, True),
        (LONG + " now", 10, 11, 7, True),
        (LONG, 11, 12, 7, True),  # another annotator, a second later
        (LONG, 13, 14, 7, False),
        (LONG, 10, 40, 7, False),  # the same words of far more
        (LONG.replace("green", "red"), 10, 11, 7, False),
        (LONG + " 7", 10, 11, 7, False),  # another number is another thing
        (LONG, 10, 11, 8, False),  # another footage
    ],
)
def test_near_same_texts_of_the_same_seconds(table, text, first, last, place, near):
    table.add(7, told(LONG, 10, 11), "first")
    table.add(7, told(LONG, 10, 11), "second")
    assert table.near(place, told(text, first, last)) == ("first" if near else None)


stretches = st.tuples(st.integers(0, 40), st.integers(0, 12)).map(lambda s: (s[0] / 2, sum(s) / 2))


@settings(deadline=None, max_examples=60)
@given(st.lists(stretches, max_size=12), stretches)
def test_the_first_that_shares_half_of_both_stretches_is_found(tmp_path_factory, before, now):
    def half(one, other):
        common = min(one[1], other[1]) - max(one[0], other[0]) + 2 * SLACK
        return common >= (max(one[1], other[1]) - min(one[0], other[0]) + 2 * SLACK) / 2

    with scratch(tmp_path_factory.mktemp("near") / "met.sqlite") as database:
        found = Annotations(database)
        for n, stretch in enumerate(before):
            found.add(7, told(LONG, *stretch), str(n))
        right = next((str(n) for n, stretch in enumerate(before) if half(stretch, now)), None)
        assert found.near(7, told(LONG, *now)) == right


def test_many_annotations_of_one_video_are_not_all_looked_at(tmp_path):
    def steps(count):
        with scratch(tmp_path / "met.sqlite") as database:
            found, taken = Annotations(database), list[int]()
            for n in range(count):
                found.add(7, told(LONG, 10 * n, 10 * n + 5), str(n))
            database.set_progress_handler(
                lambda: taken.append(1), 10
            )  # of SQLite's virtual machine
            assert found.near(7, told(LONG, 10 * count - 10, 10 * count - 5)) == str(count - 1)
            return len(taken)

    assert steps(4000) < 2 * steps(100)


def test_another_choice_is_another_thing(table):
    question = f"{LONG}: in which hand is it, in the left one or in the right one"
    left, right = (said(candidate("x", question=question, answer=a)) for a in ("left", "right"))
    table.add(7, left, "left")
    assert table.near(7, left) == "left" and table.near(7, right) is None


def test_signs_are_not_near_same(table):
    table.add(7, told("👍", 10, 11), "first")
    blank = replace(told("👎", 10, 11), words=b"")
    assert table.near(7, blank) is None


def test_what_is_told_of_is_what_the_assistant_says():
    found = said(candidate("x", time=5.5, until=9.2))
    assert found is not None and (found.first, found.last) == (5.5, 10.0)
    silent = candidate("x")
    silent = silent.changed("s", replace(silent.timeline, events=()))
    assert said(silent) is None
    asked = replace(silent.timeline, events=(Event("q", 3.0, "user", "well?"),))
    found = said(silent.changed("s", asked))
    assert found is not None and (found.first, found.last) == (3.0, 4.0)


def fill(path: Path) -> None:
    with scratch(path, 0) as database:
        database.execute("PRAGMA max_page_count = 20")
        met = Annotations(database)
        for n in range(1000):
            met.add(n, told(LONG, 10, 11), "first")


def test_a_table_leaves_nothing_behind_and_tells_of_a_full_disk(tmp_path):
    with pytest.raises(OSError) as caught:
        fill(tmp_path / "t.sqlite")
    assert caught.value.errno == errno.ENOSPC and disk_full(caught.value)
    assert not list(tmp_path.iterdir())
