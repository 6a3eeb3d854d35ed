"""Shares to come to: met where they can be, told of where they can't."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.balance import Cells, Targets, bounds_of, outcomes, to_keep
from joyvl_train.config import UserError


def counted(rows: list[tuple[str, str, int, int]]) -> tuple[Cells, np.ndarray]:
    cells = Cells()
    numbers = np.array([cells.number(*row) for row in rows], np.int32)
    whole = cells.empty()
    whole.add(numbers, *(np.array([row[at] for row in rows]) for at in (2, 3)))
    return whole, numbers


def balanced(
    rows: list[tuple[str, str, int, int]], targets: Targets, seed: int = 0
) -> tuple[list[tuple[str, str, int, int]], dict[str, bool]]:
    before, cells = counted(rows)
    keys = np.random.default_rng(seed).integers(0, 2**63, len(rows), np.uint64)
    keep = to_keep(before, targets)
    assert (keep >= 0).all() and (keep <= before.clips).all()
    stay = keys < bounds_of(cells, keys, keep)[cells]
    kept = [row for row, stays in zip(rows, stay, strict=True) if stays]
    assert len(kept) == keep.sum()
    after, numbers = before.empty(), cells[stay]
    after.add(numbers, *(np.array([row[at] for row in kept], int) for at in (2, 3)))
    found = outcomes(before, after, targets)
    return kept, {each.what: each.met for each in found}


def share(rows: list, at: int, name: str) -> float:
    return sum(row[at] == name for row in rows) / len(rows)


def silence(rows: list) -> float:
    return 1 - sum(row[3] for row in rows) / sum(row[2] for row in rows)


MIXED = (
    [("alerting", "en", 20, 1)] * 500
    + [("qa", "en", 20, 3)] * 300
    + [("qa", "de", 20, 3)] * 100
    + [("commentary", "de", 20, 12)] * 150
    + [("commentary", "en", 20, 12)] * 100
)


def test_nothing_asked_nothing_left_out():
    assert balanced(MIXED, Targets()) == (MIXED, {})


@pytest.mark.parametrize(
    ("targets", "least"),
    [
        (Targets(families={"alerting": 0.3}), 0.75),
        (Targets(families={"alerting": 0.4, "qa": 0.4, "commentary": 0.2}), 0.85),
        (Targets(languages={"de": 0.4}), 0.5),
        (Targets(families={"commentary": 0.3}, languages={"de": 0.3}), 0.6),
        (Targets(silence=0.9), 0.5),
        (Targets(silence=0.7), 0.5),
        (Targets(families={"alerting": 0.4}, languages={"en": 0.7}, silence=0.82), 0.5),
    ],
)
def test_targets_are_met_and_as_much_kept_as_can_be(targets, least):
    kept, met = balanced(MIXED, targets)
    assert all(met.values()) and met
    for family, wanted in targets.families.items():
        assert share(kept, 0, family) == pytest.approx(wanted, abs=targets.tolerance)
    for language, wanted in targets.languages.items():
        assert share(kept, 1, language) == pytest.approx(wanted, abs=targets.tolerance)
    if targets.silence is not None:
        assert silence(kept) == pytest.approx(targets.silence, abs=targets.tolerance)
    assert len(kept) >= least * len(MIXED)


def test_one_family_alone_keeps_the_most_that_there_can_be():
    kept, _ = balanced(MIXED, Targets(families={"alerting": 0.25}, tolerance=0.002))
    assert share(kept, 0, "alerting") == pytest.approx(0.25, abs=0.002)
    assert len(kept) == pytest.approx(650 / 0.75, rel=0.01)  # all of the others


@pytest.mark.parametrize(
    ("targets", "unmet", "why"),
    [
        (
            Targets(families={"commentary": 0.8}),
            ["family commentary"],
            "250 clips are there; 80.0%",
        ),
        (Targets(silence=0.2), ["silence"], "too few clips are less silent"),
        (Targets(silence=0.999), ["silence"], "too few clips are more silent"),
    ],
)
def test_what_cannot_be_met_is_told_and_costs_no_more_than_allowed(targets, unmet, why):
    before, cells = counted(MIXED)
    keep = to_keep(before, targets)
    assert keep.sum() >= 0.49 * len(MIXED)
    after = before.empty()
    after.clips[:] = keep
    after.seconds[:] = keep * 20
    after.spoken[:] = keep * (before.spoken // before.clips)
    found = outcomes(before, after, targets)
    assert [each.what for each in found if not each.met] == unmet
    assert why in found[0].why
    wanted = found[0].target
    assert abs(found[0].after - wanted) < abs(found[0].before - wanted)


ENGLISH = [(family, "en", *rest) for family, _, *rest in MIXED]


@pytest.mark.parametrize(
    ("rows", "targets"),
    [
        (MIXED, Targets(families={"chat": 0.1})),
        (MIXED, Targets(families={"chat": 0.1}, languages={"fr": 0.3})),
        (MIXED, Targets(families={"qa": 0.35, "chat": 0.0})),
        (ENGLISH, Targets(languages={"en": 0.5})),
        (ENGLISH, Targets(languages={"en": 0.5, "fr": 0.5})),
        (ENGLISH, Targets(languages={"fr": 1.0})),
    ],
)
def test_no_clip_goes_for_a_share_that_none_can_bring_nearer(rows, targets):
    before, _ = counted(rows)
    assert to_keep(before, targets).sum() == len(rows)


def test_a_kind_that_is_not_there_is_told():
    before, _ = counted(MIXED)
    (found,) = outcomes(before, before, Targets(families={"chat": 0.1}))
    assert found.what == "family chat" and not found.met and "0 clips are there" in found.why


def test_the_share_of_a_kind_that_is_not_there_goes_to_those_not_named():
    kept, met = balanced(MIXED, Targets(families={"alerting": 0.5, "chat": 0.2}))
    assert met == {"family alerting": True, "family chat": False}
    assert share(kept, 0, "alerting") == pytest.approx(0.5, abs=0.02)
    kept, met = balanced(MIXED, Targets(families={"alerting": 0.5, "qa": 0.25, "chat": 0.25}))
    assert {row[0] for row in kept} == {"alerting", "qa"}
    assert share(kept, 0, "alerting") == pytest.approx(2 / 3, abs=0.02)


def test_a_share_of_none_leaves_all_of_a_kind_out():
    kept, met = balanced(MIXED, Targets(families={"commentary": 0.0}))
    assert met == {"family commentary": True}
    assert {row[0] for row in kept} == {"alerting", "qa"} and len(kept) == 900


rows = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["en", "de"]),
        st.sampled_from([10, 60]),
        st.integers(0, 10),
    ),
    min_size=1,
    max_size=120,
)


@settings(max_examples=25)
@given(
    rows,
    st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from([0.1, 0.3, 0.5]), max_size=2),
    st.sampled_from([None, 0.5, 0.9]),
    st.integers(0, 3),
)
def test_any_corpus_is_balanced_to_a_subset_of_itself(found, families, quiet, seed):
    targets = Targets(families=families, silence=quiet, tolerance=0.1)
    kept, met = balanced(found, targets, seed)
    assert set(kept) <= set(found)
    assert balanced(found, targets, seed)[0] == kept
    for family, wanted in families.items():
        assert met[f"family {family}"] == (
            abs((share(kept, 0, family) if kept else 0) - wanted) <= 0.1
        )
    if not families and quiet is None:
        assert kept == found


@given(
    st.lists(
        st.tuples(st.integers(-1, 3), st.integers(0, 2**63)), max_size=200, unique_by=lambda p: p[1]
    ),
    st.randoms(use_true_random=False),
)
def test_just_as_many_stay_as_asked_those_of_the_smallest_keys(found, rng):
    cells = np.array([cell for cell, _ in found], np.int32)
    keys = np.array([key for _, key in found], np.uint64)
    keep = np.array([rng.randint(0, int((cells == cell).sum())) for cell in range(4)])
    bounds = bounds_of(cells, keys, keep)
    for cell in range(4):
        mine = np.sort(keys[cells == cell])
        assert list(mine[mine < bounds[cell]]) == list(mine[: keep[cell]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"families": {"a": 0.7, "b": 0.5}}, "shares of families"),
        ({"languages": {"en": -0.1}}, "shares of languages"),
        ({"silence": 1.2}, "silence=1.2 is no share"),
        ({"keep": -1.0}, "keep=-1.0"),
        ({"tolerance": 0.0}, "tolerance=0.0"),
    ],
)
def test_wrong_targets_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        Targets(**settings)
