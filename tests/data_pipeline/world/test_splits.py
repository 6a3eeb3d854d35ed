from collections import Counter

import pytest

from data_pipeline.world.pictures import picture_set
from data_pipeline.world.splits import (
    SPLITS,
    allowed,
    check_split,
    composition,
    group,
    own_pairs,
)
from data_pipeline.world.wordings import ASK

THINGS = [p.name for p in picture_set("drawn")]
NAMED = ("appear", "first", "leave", "hold", "count", "describe", "arrivals", "names", "is_there")


def test_the_group_of_a_composition_never_changes() -> None:
    # Kept models were trained on this division: a change of it would leak tests into training.
    keys = [composition("appear", "dog", f"wording {i}") for i in range(30)]
    held_out = {i: group(key) for i, key in enumerate(keys) if group(key) != "train"}
    assert held_out == {7: "validation"}


def test_shares() -> None:
    counts = Counter(group(f"event | thing | {i}") for i in range(20_000))
    assert 0.09 < counts["test"] / 20_000 < 0.11
    assert 0.04 < counts["validation"] / 20_000 < 0.06


def test_training_may_hold_its_own_only_and_held_out_streams_nothing_of_each_other() -> None:
    for i in range(500):
        key = f"event | thing | {i}"
        owner = group(key)
        for split in SPLITS:
            assert allowed(key, split) == (owner in (split, "train"))


@pytest.mark.parametrize("event", NAMED)
def test_every_thing_and_every_wording_occurs_in_training(event: str) -> None:
    pairs = own_pairs(event, THINGS, ASK[event], "train")
    assert {thing for thing, _ in pairs} == set(THINGS)
    assert {text for _, text in pairs} == set(ASK[event])


@pytest.mark.parametrize("event", NAMED)
def test_held_out_splits_have_pairs_of_their_own(event: str) -> None:
    found = {split: set(own_pairs(event, THINGS, ASK[event], split)) for split in SPLITS}
    assert len(found["test"]) >= 20
    assert len(found["validation"]) >= 8
    assert not found["test"] & found["train"] and not found["validation"] & found["train"]
    assert sum(map(len, found.values())) == len(THINGS) * len(ASK[event])


def test_unknown_split() -> None:
    with pytest.raises(ValueError, match="'dev' is none of train, validation, test"):
        check_split("dev")
