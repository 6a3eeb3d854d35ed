"""The published measures, each against figures worked out by hand from its formula."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyvl_train.actions import Response, Silence
from joyvl_train.heldout import Step, Trace
from joyvl_train.published_timing import (
    Captioned,
    ProactiveAlert,
    fluency,
    livestar,
    measures,
    omnimmi_pa,
    pauc,
    streamingbench_po,
    time_diff,
)
from joyvl_train.timeline import Rule
from joyvl_train.timing import Emission, Onset

STREAM = range(30)
EXACT = Rule("exact")


def gold(second: int, text: str = "a red car", until: int | None = None) -> Onset:
    return Onset(second, text, until=until, rule=EXACT)


def said(*seconds: int, text: str = "a red car") -> list[Emission]:
    return [Emission(t, text) for t in seconds]


@pytest.mark.parametrize(
    ("seconds", "diffs"),
    [
        ((9, 19), [0, 0]),
        ((4, 19), [5, 0]),  # early in the first turn
        ((12, 19), [3, 7]),  # late for the first, and so early in the second
        ((19,), [9, 0]),  # nothing in the 9 s it listens on
        ((), [9, 0]),  # never speaking counts 0 in the last turn: the known flaw
        ((9, 25), [0, 0]),
    ],
)
def test_time_diff(seconds: tuple[int, ...], diffs: list[int]) -> None:
    assert time_diff([gold(9), gold(19)], said(*seconds), STREAM) == diffs


def test_time_diff_of_a_turn_of_one_frame_listens_no_further() -> None:
    assert time_diff([gold(0), gold(9)], said(3), STREAM) == [0, 6]


def test_fluency() -> None:
    # V = 10 frames, T = 3 words.
    assert fluency([gold(9)], said(9), STREAM) == [1.0]
    assert fluency([gold(9)], said(9, text="a red bus"), STREAM) == [12 / 13]
    assert fluency([gold(9)], said(6), STREAM) == [7 / 13]
    assert fluency([gold(9)], [], STREAM) == [9 / 13]
    assert fluency([gold(9)], said(9, text="no"), STREAM, frame_tokens=10) == [100 / 103]


def test_pauc() -> None:
    span = [gold(10, until=20)]
    assert pauc(span, [], STREAM) == [0.125]
    # Right away: the full area.
    assert pauc(span, said(10), STREAM) == [1.0]
    # After 4 s, which w = 0.5 makes 2: 2 s at 0.5, 8 s at 4.
    assert pauc(span, said(14), STREAM) == [pytest.approx((2 * 0.5 + 8 * 4) / 40)]
    assert pauc(span, said(14), STREAM, w=0.0) == [pytest.approx((4 * 0.5 + 6 * 4) / 40)]
    # A wrong reply takes away what silence earns; replies outside the span change nothing.
    assert pauc(span, said(14, text="x"), STREAM) == [pytest.approx(2 * 0.5 / 40)]
    assert pauc(span, said(9, 20), STREAM) == [0.125]
    # Ungraded replies are left out.
    assert pauc(span, said(14), STREAM, grade=lambda o, text: None) == [0.125]
    # Without a state, the span goes to the next onset.
    assert pauc([gold(10), gold(14)], said(12), STREAM)[0] == pytest.approx((0.5 + 12) / 16)


@pytest.mark.parametrize(
    ("second", "text", "right"),
    [
        (8, "A red car.", True),
        (12, "I see the red car now", True),
        (7, "a red car", False),
        (13, "a red car", False),
        (10, "a bus", False),
    ],
)
def test_streamingbench_po(second: int, text: str, right: bool) -> None:
    assert streamingbench_po([gold(10)], [Emission(second, text)]) == [right]


def test_streamingbench_po_polls_one_onset_after_the_other() -> None:
    onsets = [gold(10), gold(20)]
    # The first answer ends the polling for the first onset, the second is for the second.
    assert streamingbench_po(onsets, said(10, 20)) == [True, True]
    assert streamingbench_po(onsets, said(10, 12)) == [True, False]
    assert streamingbench_po(onsets, said(20)) == [False, True]
    assert streamingbench_po(onsets, []) == [False, False]


def test_omnimmi_pa() -> None:
    span = gold(10, until=20)
    assert omnimmi_pa(span, []) == ProactiveAlert(False, None, 0.0)
    assert omnimmi_pa(span, said(10, 19)) == ProactiveAlert(True, 1.0, 1.0)
    assert omnimmi_pa(span, said(5, 14)) == ProactiveAlert(False, 0.5, 5 / 15)
    assert omnimmi_pa(span, said(25)) == ProactiveAlert(False, 0.0, 0.0)


def test_livestar() -> None:
    onsets = [gold(0), gold(10), gold(20)]
    assert livestar(onsets, said(2, 3, 15), STREAM) == [
        Captioned(2, 2),
        Captioned(5, 1),
        Captioned(10, 0),
    ]


def trace(onsets: list[Onset], seconds: tuple[int, ...]) -> Trace:
    steps = tuple(Step(t, Response("a red car") if t in seconds else Silence()) for t in STREAM)
    return Trace("c", "alerting", "test", "model", steps, tuple(onsets))


def test_measures_over_traces() -> None:
    found = measures(
        [trace([gold(10, until=20)], (10,)), trace([gold(10)], ()), trace([], ()), trace([], (3,))]
    )
    assert found["published/omnimmi_pa_accuracy"] == 0.5
    assert found["published/omnimmi_pa_precision"] == 1.0  # of the one clip with an alert
    assert found["published/omnimmi_turn_taking"] == 0.5
    assert found["published/streamingbench_po"] == 0.5
    assert found["published/livestar_coverage"] == 0.5
    assert found["published/livestar_redundancy"] == 0.5
    assert found["published/livestar_time_diff"] == 10.0
    assert found["published/pauc"] == pytest.approx((1 + 0.125) / 2)
    assert measures([]) == {}
    assert list(measures([trace([], ())], "x")) == ["x/omnimmi_turn_taking"]


@given(
    st.sets(st.integers(0, 29), max_size=5),
    st.sets(st.integers(0, 29), max_size=8),
)
def test_ranges(onsets: set[int], seconds: set[int]) -> None:
    golds = [gold(t) for t in sorted(onsets)]
    emissions = said(*sorted(seconds))
    assert all(0 <= d < 30 for d in time_diff(golds, emissions, STREAM))
    assert all(0 <= f <= 1 for f in fluency(golds, emissions, STREAM))
    assert all(0 <= p <= 1 for p in pauc(golds, emissions, STREAM))
    assert len(streamingbench_po(golds, emissions)) == len(livestar(golds, emissions, STREAM))
