"""The timing measures, by worked examples, by brute force and by what must not matter."""

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joyvl_train.timeline import Clip, Event, Rule, Timeline
from joyvl_train.timing import (
    COUNTS,
    MEASURES,
    Delegated,
    Emission,
    Onset,
    Score,
    aggregate,
    classify,
    due,
    match,
    onset,
    paired_difference,
    score,
)


def said(*seconds: int, text: str = "fire") -> list[Emission]:
    return [Emission(t, text) for t in seconds]


def fire(second: int, **rest: object) -> Onset:
    return Onset(second, "fire", rule=Rule("exact"), **rest)  # type: ignore[arg-type]


# Matching

ONSETS = st.lists(
    st.builds(
        Onset,
        second=st.integers(0, 12),
        text=st.just("x"),
        early=st.integers(0, 4),
        late=st.integers(0, 4),
        id=st.uuids().map(str),
    ),
    max_size=5,
)
EMISSIONS = st.sets(st.integers(0, 14), max_size=6).map(
    lambda seconds: [Emission(t, "x") for t in sorted(seconds)]
)


def brute(onsets: list[Onset], emissions: list[Emission]) -> tuple[int, int]:
    """(pairs, least distance) over every one-to-one assignment."""
    best = (0, 0)
    for choice in itertools.product((None, *range(len(emissions))), repeat=len(onsets)):
        used = [j for j in choice if j is not None]
        if len(set(used)) != len(used):
            continue
        pairs = [(o, emissions[j]) for o, j in zip(onsets, choice, strict=True) if j is not None]
        if all(e.second in o.window for o, e in pairs):
            best = max(best, (len(pairs), -sum(abs(o.second - e.second) for o, e in pairs)))
    return best[0], -best[1]


@settings(max_examples=150, deadline=None)
@given(ONSETS, EMISSIONS)
def test_match_is_the_best_assignment(onsets: list[Onset], emissions: list[Emission]) -> None:
    pairs = match(onsets, emissions)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert all(emissions[j].second in onsets[i].window for i, j in pairs)
    distance = sum(abs(onsets[i].second - emissions[j].second) for i, j in pairs)
    assert (len(pairs), distance) == brute(onsets, emissions)


@settings(max_examples=60, deadline=None)
@given(ONSETS, EMISSIONS, st.integers(0, 100), st.randoms(use_true_random=False))
def test_match_ignores_shift_and_order(
    onsets: list[Onset], emissions: list[Emission], k: int, rng: random.Random
) -> None:
    def named(os: list[Onset], es: list[Emission], back: int) -> set[tuple[str, int]]:
        return {(os[i].id, es[j].second - back) for i, j in match(os, es)}

    base = named(onsets, emissions, 0)
    moved = [replace(o, second=o.second + k) for o in onsets]
    later = [replace(e, second=e.second + k) for e in emissions]
    assert named(moved, later, k) == base
    rng.shuffle(onsets)
    rng.shuffle(emissions)
    assert named(onsets, emissions, 0) == base


def test_match_uncrosses_and_takes_the_earliest() -> None:
    # 0-1, 1-2 and 0-2, 1-1 are equally far; the first doesn't cross.
    assert match([fire(0, late=2), fire(1, late=2)], said(1, 2)) == [(0, 0), (1, 1)]
    assert match([fire(5, early=1)], said(4, 6)) == [(0, 0)]
    # Windows that stand inside out can be met by crossing alone.
    assert match([fire(5, late=2), fire(6, early=3, late=0)], said(3, 7)) == [(1, 0), (0, 1)]


def test_match_refuses_two_in_a_second() -> None:
    with pytest.raises(ValueError, match="second 3"):
        match([fire(3)], said(3, 3))


def test_match_of_a_long_stream() -> None:
    onsets = [fire(3 * i, early=1, late=4, id=str(i)) for i in range(400)]
    pairs = match(onsets, said(*range(1, 1200, 3)))
    assert len(pairs) == 400
    assert all(i == j for i, j in pairs)


# One clip


def test_window_defaults() -> None:
    for second, hit in ((4, 0), (5, 1), (6, 1), (7, 0)):
        assert score([fire(5)], said(second), 10).matched == hit


def test_repeats_where_not_asked_count_against_precision_only() -> None:
    counts = score([fire(5, until=9)], said(5, 6, 7), 20)
    assert (counts.matched, counts.counted, counts.false_alarms) == (1, 3, 0)
    assert (counts.repeats, counts.held) == (2, 1)


def test_repeats_where_asked_count_nowhere_else() -> None:
    counts = score([fire(5, until=9, repeat=True)], said(5, 6, 7, 8), 20)
    assert (counts.matched, counts.counted, counts.false_alarms) == (1, 1, 0)
    assert (counts.repeats, counts.held) == (3, 1)


def test_a_wrong_repeat_is_an_ordinary_emission() -> None:
    emissions = [*said(5), Emission(6, "smoke"), *said(7)]
    verdict = classify([fire(5, until=9, repeat=True)], emissions)
    assert [e.second for e in verdict.false_alarms] == [6]
    assert [e.second for _, e in verdict.repeats] == [7]
    assert score([fire(5, until=9, repeat=True)], emissions, 20).counted == 2


def test_an_unscored_repeat_is_not_wrong() -> None:
    judged = replace(fire(5, until=9), rule=Rule("judged"))
    counts = score([judged], said(5, 7), 20)
    assert (counts.repeats, counts.false_alarms, counts.unscored, counts.scored) == (1, 0, 1, 0)


def test_first_in_a_missed_state_is_late_and_what_follows_repeats() -> None:
    verdict = classify([fire(5, until=15)], [Emission(9, "smoke"), *said(10), *said(15)])
    assert [e.second for _, e in verdict.late] == [9]  # whatever it says
    assert [e.second for _, e in verdict.repeats] == [10]
    assert [e.second for e in verdict.false_alarms] == [15]  # the state is over
    assert [o.second for o in verdict.missed] == [5]
    counts = score([fire(5, until=15)], said(9, 10, 15), 20)
    assert (counts.matched, counts.late, counts.counted) == (0, 1, 3)
    assert (counts.false_alarms, counts.repeats, counts.held) == (1, 0, 0)


def test_speaking_on_without_a_state_is_a_false_alarm() -> None:
    counts = score([fire(5)], said(5, 6), 20)
    assert (counts.matched, counts.false_alarms, counts.late) == (1, 1, 0)


def test_overlapping_states_go_to_the_one_whose_text_is_said() -> None:
    onsets = [fire(2, until=20, id="f"), Onset(5, "car", until=20, rule=Rule("exact"), id="c")]
    verdict = classify(onsets, [*said(2), *said(8), Emission(9, "car"), Emission(10, "car")])
    assert [(o.id, e.second) for o, e in verdict.repeats] == [("f", 8), ("c", 10)]
    assert [(o.id, e.second) for o, e in verdict.late] == [("c", 9)]


def test_delegations_match_alone_and_speak_too() -> None:
    onsets = [Onset(5, "One moment.", delegation=True), fire(20)]
    counts = score(onsets, [Emission(5, "Let me see."), Emission(20, "I ask.", True)], 30)
    assert counts.matched == 2  # both speak in time
    assert (counts.delegations_due, counts.delegations, counts.delegations_matched) == (1, 1, 0)
    # The note has no rule, so only the other one has content.
    assert (counts.scored, counts.right) == (1, 0)


def test_silence_is_counted_outside_windows_and_states() -> None:
    counts = score([fire(5, until=9), fire(15, early=1)], said(0, 7, 14, 19), 20)
    assert counts.quiet == 20 - 4 - 3
    assert counts.kept == counts.quiet - 2
    assert score([fire(5)], [], [4, 5, 8]).quiet == 2  # seconds without frames aren't there
    with pytest.raises(ValueError, match="second 8"):
        score([], said(8), 8)


def test_errors_are_signed_and_absolute() -> None:
    counts = score([fire(5, early=1), fire(15)], said(4, 16), 20)
    assert (counts.error, counts.error_abs) == (0, 2)


CLIPS = st.tuples(
    st.lists(
        st.builds(
            Onset,
            second=st.integers(0, 25),
            text=st.sampled_from(["a b", "c d"]),
            early=st.integers(0, 2),
            late=st.integers(0, 2),
            until=st.none(),
            repeat=st.booleans(),
            rule=st.just(Rule("exact")),
            delegation=st.booleans(),
        ).flatmap(
            lambda o: st.integers(-3, 8).map(
                lambda hold: replace(o, until=o.second + hold) if hold > 0 else o
            )
        ),
        max_size=4,
        unique_by=lambda o: o.second,
    ),
    st.lists(
        st.builds(Emission, st.integers(0, 29), st.sampled_from(["a b", "c d", "e f"])),
        max_size=8,
        unique_by=lambda e: e.second,
    ),
)


@settings(max_examples=150, deadline=None)
@given(CLIPS, st.integers(0, 50))
def test_counts_hold_together(clip: tuple[list[Onset], list[Emission]], k: int) -> None:
    onsets, emissions = clip
    verdict = classify(onsets, emissions)
    counts = score(onsets, emissions, 30)
    placed = [e for _, e in (*verdict.matches, *verdict.late, *verdict.repeats)]
    placed += verdict.false_alarms
    assert sorted(e.second for e in placed) == sorted(e.second for e in emissions)
    assert len(verdict.matches) + len(verdict.missed) == len(onsets)
    assert counts.matched <= min(counts.onsets, counts.counted)
    assert counts.scored + counts.unscored <= counts.matched
    assert counts.kept <= counts.quiet <= 30
    moved = [replace(o, second=o.second + k, until=o.until and o.until + k) for o in onsets]
    later = [replace(e, second=e.second + k) for e in emissions]
    assert score(moved, later, range(k, 30 + k)) == counts


# What was due


def delegation_clip(**changes: object) -> Timeline:
    events = (
        Event("q", 2.0, "user", "How many in all?"),
        Event("d", 3.0, "assistant", "One moment.", question="Count.", answers="q"),
        Event("r", 10.0, "background", "42", answers="d"),
        Event("a", 11.0, "assistant", "42 in all.", answers="r", until=14.0),
        Event("x", 20.0, "assistant", "A car."),
    )
    return Timeline(Clip("c", duration=30.0), "delegation", "test", events)


def test_results_move_with_the_policys_delegation() -> None:
    assert [(o.id, o.second) for o in due(delegation_clip())] == [("d", 3), ("a", 11), ("x", 20)]
    moved = due(delegation_clip(), {"d": Delegated(4, 12)})
    assert [(o.id, o.second, o.until) for o in moved] == [
        ("d", 3, None),
        ("a", 13, 16),
        ("x", 20, None),
    ]


def test_without_the_delegation_there_is_one_miss() -> None:
    onsets = due(delegation_clip(), {})
    assert [o.id for o in onsets] == ["d", "x"]
    counts = score(onsets, said(20), 30)
    assert counts.onsets - counts.matched == 1
    # A result that has not come, or comes too late for an answer, is not due either.
    assert [o.id for o in due(delegation_clip(), {"d": Delegated(3)})] == ["d", "x"]
    assert [o.id for o in due(delegation_clip(), {"d": Delegated(3, 29)})] == ["d", "x"]


def test_what_answers_the_delegation_itself_moves_with_it() -> None:
    clip = delegation_clip()
    direct = replace(
        clip, events=tuple(replace(e, answers="d") if e.id == "a" else e for e in clip.events)
    )
    assert [o.second for o in due(direct, {"d": Delegated(4)})] == [3, 12, 20]
    assert [o.second for o in due(direct, {})] == [3, 20]


def test_answers_in_a_ring_move_nothing() -> None:
    events = (
        Event("a", 3.0, "assistant", "One.", answers="b"),
        Event("b", 5.0, "assistant", "Two.", answers="a"),
    )
    ring = Timeline(Clip("c", duration=9.0), "chat", "test", events)
    assert [o.second for o in due(ring, {})] == [3, 5]


def test_onset_of_an_event() -> None:
    event = Event("e", 3.9, "assistant", "x", until=6.2, early=2, late=5)
    assert onset(event) == Onset(3, "x", early=2, late=5, until=7, id="e")
    assert onset(Event("e", 3.0, "assistant", "x"), 2, early=1, late=3).window == range(4, 9)


# Many clips


def test_aggregate_by_hand() -> None:
    scores = {
        "alerting": [score([fire(5)], said(5), 100), score([fire(5)], said(9), 100)],
        "qa": [score([fire(5)], [], 100), score([], said(1, 2), 1500)],
    }
    metrics = aggregate(scores, samples=200)
    assert metrics["eval/alerting/onset_f1"] == 0.5
    assert metrics["eval/qa/onset_f1"] == 0
    assert metrics["eval/onset_f1"] == 0.25  # macro
    assert metrics["eval/onset_f1.count"] == 3
    assert metrics["eval/false_alarms_per_hour"] == 3 * 3600 / 1800  # pooled
    assert metrics["eval/alerting/false_alarms_per_hour"] == 18
    assert metrics["eval/content_accuracy"] == 1  # of alerting; qa matched nothing
    assert "eval/qa/content_accuracy" not in metrics
    assert metrics["eval/hours"] == 0.5
    assert metrics["eval/alerting/onset_f1.low"] == 0
    assert metrics["eval/alerting/onset_f1.high"] == 1
    for measure in MEASURES:
        key = f"eval/{measure}"
        if key in metrics:
            assert metrics[f"{key}.low"] <= metrics[key] <= metrics[f"{key}.high"]
    assert all(value == value for value in metrics.values())


def test_a_family_without_onsets_has_no_f1() -> None:
    scores = {"quiet": [score([], said(3), 3600)], "alerting": [score([fire(5)], said(5), 10)]}
    metrics = aggregate(scores, "baseline/x", samples=10)
    assert "baseline/x/quiet/onset_f1" not in metrics
    assert metrics["baseline/x/quiet/false_alarms_per_hour"] == 1
    assert metrics["baseline/x/onset_f1"] == 1
    assert aggregate({}) == {} == aggregate({"qa": []})


def test_onset_f1_is_the_harmonic_mean() -> None:
    metrics = aggregate({"f": [score([fire(5), fire(9)], said(5, 20, 21), 30)]}, samples=5)
    p, r = metrics["eval/precision"], metrics["eval/recall"]
    assert (p, r) == (pytest.approx(1 / 3), 0.5)
    assert metrics["eval/onset_f1"] == pytest.approx(2 * p * r / (p + r))


def test_intervals_are_fixed_by_the_seed_and_narrow_with_clips() -> None:
    hit, miss = score([fire(5)], said(5), 10), score([fire(5)], [], 10)

    def width(n: int, seed: int = 0) -> float:
        m = aggregate({"f": [hit, miss] * n}, samples=500, seed=seed)
        return m["eval/recall.high"] - m["eval/recall.low"]

    assert width(5) == width(5)
    assert width(100) < width(5) < 1
    # 200 clips of rate 0.5: 2 x 1.96 x sqrt(0.25 / 200) = 0.139
    assert width(100) == pytest.approx(0.139, abs=0.03)


def test_point_figures_ignore_the_order_of_clips() -> None:
    clips = [score([fire(5, until=8)], said(t), 20) for t in (4, 5, 6, 7)]
    first, second = aggregate({"f": clips}, samples=5), aggregate({"f": clips[::-1]}, samples=5)
    for measure in MEASURES:
        assert first.get(f"eval/{measure}") == second.get(f"eval/{measure}")


def test_scores_add_up() -> None:
    a, b = score([fire(5)], said(5), 10), score([fire(5, until=9)], said(7), 20, malformed=2)
    both = sum((a, b), Score())
    assert all(getattr(both, n) == getattr(a, n) + getattr(b, n) for n in COUNTS)
    assert (both.clips, both.malformed, both.late) == (2, 2, 1)


def run_of(hits: list[bool]) -> dict[tuple[str, str], Score]:
    return {
        ("f", str(i)): score([fire(5)], said(5) if hit else [], 10) for i, hit in enumerate(hits)
    }


def test_paired_difference() -> None:
    hits = [i % 3 == 0 for i in range(60)]
    better = [hit or i % 10 == 1 for i, hit in enumerate(hits)]
    found = paired_difference([run_of(better)] * 2, [run_of(hits)] * 2, "recall", samples=500)
    assert found.value == pytest.approx((sum(better) - sum(hits)) / 60)
    assert 0 < found.low < found.value < found.high
    # Pairing keeps what the arms share out of the interval.
    assert found.high - found.low < 0.2
    same = paired_difference([run_of(hits)], [run_of(hits)], "onset_f1", samples=50)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_paired_difference_refuses_what_is_not_paired() -> None:
    a, b = run_of([True, False]), run_of([True])
    with pytest.raises(ValueError, match="clip '1'"):
        paired_difference([a], [b], "onset_f1")
    with pytest.raises(ValueError, match="2 runs against 1"):
        paired_difference([a, a], [a], "onset_f1")
    with pytest.raises(ValueError, match="'f1'"):
        paired_difference([a], [a], "f1")
