"""Questions that bind a name to what is seen: the answers, and that nothing but the name gives them
away."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from data_pipeline.world.pictures import picture_set
from data_pipeline.world.stills import Still, still

NAMES = {name: picture for picture in picture_set("drawn") for name in picture.names}


def some(kind: str, count: int = 200) -> list[Still]:
    return [still(i, "train", kind=kind) for i in range(count)]


def shown(sample: Still, frame: int = 0) -> set[str]:
    """The names of what the frame shows, read from the scene alone."""
    return {t.picture for t, _ in sample.scenes[frame].visible(sample.times[frame])}


def listed(sample: Still) -> list[str]:
    """The names of the question's list, as they stand there."""
    longest = sorted(NAMES, key=len, reverse=True)
    found = re.findall(rf"\b(?:an?|the|some) ({'|'.join(longest)})\b", sample.question.lower())
    return [name for name in found if name not in ("picture", "list")]


def test_each_frame_is_told_as_it_is_drawn() -> None:
    answers = Counter[str]()
    for sample in some("each"):
        (thing,) = {k.split(" | ")[1] for k in sample.compositions if k.startswith("each | ")}
        told = sample.answer.lower().rstrip(".").split(", ")
        assert len(told) == len(sample.times) >= 4
        here = [thing in shown(sample, i) for i in range(len(told))]
        assert told == ["yes" if there else "no" for there in here]
        answers.update(told)
    assert 0.35 < answers["yes"] / answers.total() < 0.55


def test_what_is_not_asked_for_comes_and_goes_alike() -> None:
    """A model that follows what toggles, whatever it is called, is right by chance alone."""
    changes = {"asked": 0, "other": 0}
    chances = {"asked": 0, "other": 0}
    for sample in some("each", 400):
        (thing,) = {k.split(" | ")[1] for k in sample.compositions if k.startswith("each | ")}
        for name in {t.picture.name for t in sample.things}:
            kind = "asked" if name == thing else "other"
            there = [name in shown(sample, i) for i in range(len(sample.times))]
            changes[kind] += sum(a != b for a, b in zip(there, there[1:], strict=False))
            chances[kind] += len(there) - 1
    rates = {kind: changes[kind] / chances[kind] for kind in changes}
    assert rates["asked"] == pytest.approx(rates["other"], abs=0.05)


def test_a_list_is_answered_name_by_name() -> None:
    answers, all_of_one = Counter[str](), 0
    for sample in some("checklist"):
        told = sample.answer.lower().rstrip(".").split(", ")
        wanted = [NAMES[name].name in shown(sample) for name in listed(sample)]
        assert told == ["yes" if there else "no" for there in wanted], sample
        answers.update(told)
        all_of_one += len(set(told)) == 1
    assert 0.35 < answers["yes"] / answers.total() < 0.6
    assert all_of_one < 0.35 * 200  # the same word throughout is seldom right


def test_of_a_list_what_is_there_is_named_in_its_order() -> None:
    none = 0
    for sample in some("pick"):
        there = [name for name in listed(sample) if NAMES[name].name in shown(sample)]
        if not there:
            none += 1
            assert sample.answer == "None of them."
            continue
        said = re.split(r", | and ", sample.answer.lower().rstrip("."))
        assert [re.sub(r"^(an?|the|some) ", "", name) for name in said] == there, sample
    assert 5 < none < 50


SEEKING = ("each", "checklist", "pick", "is_there", "count", "where", "which", "colour", "state")


@pytest.mark.parametrize("kind", SEEKING)
def test_what_is_sought_stands_in_the_question_and_nothing_else_does(kind: str) -> None:
    pictures = {picture.name: picture for picture in picture_set("drawn")}
    for sample in some(kind, 40):
        assert sample.sought, sample.question
        question = f" {re.sub('[^a-z ]', ' ', sample.question.lower())} "
        for name, colour in sample.sought:
            picture = pictures[name]
            forms = (*picture.names, picture.plural)
            assert any(form.split()[0] in question for form in forms), (sample.question, name)
            assert colour in question


def test_a_question_of_no_thing_seeks_none() -> None:
    for kind in ("name", "describe", "read", "translate", "repeat", "count_all"):
        assert not any(sample.sought for sample in some(kind, 20)), kind
