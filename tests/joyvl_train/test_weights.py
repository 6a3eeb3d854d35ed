"""Token weights: worked examples of Eq. 1, and that they cover the assistant's spans exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joyvl_train.actions import Delegation, Response, Silence
from joyvl_train.config import UserError
from joyvl_train.rendering import Rendered
from joyvl_train.stream import Turn
from joyvl_train.weights import PLAIN, LossWeights, token_weights

from .conftest import chats, picture

S, R, D = Silence(), Response("fire now"), Delegation("wait", "how many")


def rendered(renderer: Any, actions: list[Any], first: int = 0) -> Rendered:
    turns = [Turn(first + i, (picture(i),), ("look",), action=a) for i, a in enumerate(actions)]
    sample: Rendered = renderer.render("", turns)
    return sample


def controls(sample: Rendered, weights: LossWeights, from_second: int = 0) -> list[float]:
    """The weight of each scored turn's first token."""
    targets = token_weights(sample, weights, from_second=from_second)
    at = dict(zip(targets.positions.tolist(), targets.weights.tolist(), strict=True))
    starts, fresh = [], True
    for span in sample.spans:
        if span.role == "assistant":
            if fresh and span.start in at:
                starts.append(round(at[span.start], 3))
            fresh = span.kind == "end"
    return starts


@pytest.mark.parametrize(
    ("mode", "actions", "wanted"),
    [
        ("run", [S, S, S, R, S, S, R, R, S], [1, 0.4, 0.4, 1.5, 1, 0.4, 1.5, 1.5, 1]),
        ("after_response", [S, S, S, R, S, S, R, R, S], [0.4] * 3 + [1.5, 1, 0.4, 1.5, 1.5, 1]),
        ("run", [S, D, S, S], [1, 1.5, 1, 0.4]),
        ("after_response", [S, D, S, S], [0.4, 1.5, 1, 0.4]),
        ("run", [R], [1.5]),
        ("run", [S], [1]),
        ("after_response", [S], [0.4]),
    ],
)
def test_which_silence_is_first(
    speakers: Any, in_pieces: Any, mode: Any, actions: list[Any], wanted: list[float]
) -> None:
    weights = LossWeights(silence_run=mode)
    for found in (speakers["qwen3_vl"], speakers["idefics3"], in_pieces["qwen3_vl"]):
        assert controls(rendered(found.renderer, actions), weights) == wanted


def test_a_worked_example_in_full(speakers: Any) -> None:
    """silence, silence, response: control, text and end each by itself; both denominators."""
    sample = rendered(speakers["qwen3_vl"].renderer, [S, S, R])
    text = sum(s.stop - s.start for s in sample.spans if s.role == "assistant" and s.kind == "text")
    targets = token_weights(sample, LossWeights())
    assert targets.weights.tolist() == pytest.approx([1, 1, 0.4, 1, 1.5, *[1] * text, 1])
    assert targets.denominator == 6 + text
    by_weight = token_weights(sample, LossWeights(normalizer="weights"))
    assert by_weight.denominator == pytest.approx(5.9 + text)
    assert by_weight.weights.tolist() == targets.weights.tolist()
    assert token_weights(sample, PLAIN).weights.tolist() == [1.0] * (6 + text)


def test_every_piece_of_a_control_string_has_its_weight(in_pieces: Any) -> None:
    sample = rendered(in_pieces["qwen3_vl"].renderer, [S, S, D])
    weights = LossWeights()
    targets = token_weights(sample, weights)
    at = dict(zip(targets.positions.tolist(), targets.weights.tolist(), strict=True))
    spans = [s for s in sample.spans if s.role == "assistant" and s.kind == "control"]
    found = [{round(at[i], 3) for i in range(s.start, s.stop)} for s in spans]
    # The delegation token is "everything else".
    assert found == [{1.0}, {0.4}, {1.5}, {1.0}] and all(s.stop - s.start > 1 for s in spans)


def test_carried_turns_are_context_and_a_run_starts_anew_after_them(speakers: Any) -> None:
    sample = rendered(speakers["qwen3_vl"].renderer, [S, R, S, S, S], first=90)
    assert controls(sample, LossWeights(), 93) == [1, 0.4]
    assert controls(sample, LossWeights(silence_run="after_response"), 93) == [0.4, 0.4]
    targets = token_weights(sample, LossWeights(), from_second=93)
    first = next(s for s in sample.spans if s.second == 93 and s.role == "assistant")
    assert targets.positions.min() == first.start and targets.denominator == 4


def test_turn_based_samples_weigh_all_the_same(speakers: Any) -> None:
    renderer = speakers["qwen3_vl"].renderer
    sample = renderer.render_question("what?", [picture(1)], Response("fire"))
    odd = LossWeights(silence_first=3, silence_repeat=2, response=7, other=5)
    targets = token_weights(sample, odd)
    assert set(targets.weights.tolist()) == {1.0}
    assert targets.denominator == len(targets.positions) > 2
    assert token_weights(sample, replace(odd, normalizer="weights")).denominator == len(
        targets.positions
    )


@pytest.mark.parametrize("pieces", [False, True], ids=["add", "keep"])
@settings(max_examples=12)
@given(turns=chats(), start=st.integers(0, 205), odd=st.sampled_from(["run", "after_response"]))
def test_weights_cover_exactly_the_assistants_spans(
    speakers: Any, in_pieces: Any, pieces: bool, turns: list[Turn], start: int, odd: Any
) -> None:
    speaker = (in_pieces if pieces else speakers)["qwen2_5_vl"]
    sample = speaker.renderer.render("memory", turns)
    targets = token_weights(sample, LossWeights(silence_run=odd), from_second=start)
    wanted = [
        position
        for span in sample.spans
        if span.role == "assistant" and span.second >= start
        for position in range(span.start, span.stop)
    ]
    assert targets.positions.tolist() == wanted
    assert targets.positions.dtype == np.int64 and targets.weights.dtype == np.float32
    assert len(targets.weights) == len(wanted) == targets.denominator
    assert {round(w, 3) for w in targets.weights.tolist()} <= {1.0, 0.4, 1.5}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"response": -1.0}, "loss.response is -1.0"),
        ({"silence_repeat": float("nan")}, "loss.silence_repeat is nan"),
        ({"other": 1e6}, "loss.other"),
        ({"normalizer": "mean"}, "loss.normalizer is 'mean'"),
        ({"silence_run": "all"}, "loss.silence_run is 'all'"),
    ],
)
def test_weights_out_of_bounds_are_one_line(values: Any, named: str) -> None:
    with pytest.raises(UserError, match=named):
        LossWeights(**values)
