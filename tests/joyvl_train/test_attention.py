"""Packed rows: the same loss as samples alone, and nothing passes from one sample to another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from joyvl_train.actions import Delegation, Response, Silence
from joyvl_train.attention import TEXT, VISION, use_packed, use_plain
from joyvl_train.collate import collate, model_inputs
from joyvl_train.stream import Turn
from joyvl_train.trainer import WeightedLoss
from joyvl_train.weights import LossWeights, token_weights

from .conftest import ARCHITECTURES, Speaker, build, picture

ACTIONS = [Silence(), Response("fire now"), Delegation("wait", "how many"), Silence()]


@pytest.fixture(scope="module")
def lively() -> dict[str, Speaker]:
    """Random models with large weights, so that a token depends on all that it sees."""
    found = {}
    for name in ARCHITECTURES:
        speaker = build(name)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in speaker.model.parameters():
                if weight.ndim > 1:
                    noise = torch.randn(weight.shape, generator=generator)
                    weight.copy_(noise / weight[0].numel() ** 0.5)
        found[name] = speaker
    return found


def chat(seed: int, seconds: int, size: tuple[int, int] = (64, 32)) -> list[Turn]:
    return [
        Turn(s, (picture(100 * seed + s, size),), ("look",) if s == 1 else (), (), ACTIONS[s % 4])
        for s in range(seconds)
    ]


CHATS = [chat(1, 3), chat(2, 1, (32, 32)), chat(3, 5), [Turn(4, (), ("hi",), (), Response("ho"))]]


def sample(speaker: Speaker, turns: list[Turn]) -> Any:
    rendered = speaker.renderer.render("", turns)
    return rendered, token_weights(rendered, LossWeights())


def losses(module: WeightedLoss, speaker: Speaker, groups: list[list[list[Turn]]]) -> float:
    total = 0.0
    for group in groups:
        batch = collate([sample(speaker, turns) for turns in group])
        total += module(**batch)["loss"].item()
    return total


def plainly(speaker: Speaker, batch: Any) -> float:
    """The model's own forward and attention, with restarting positions, and its own logits."""
    inputs = model_inputs(batch)
    logits = speaker.model(**inputs, use_cache=False).logits[0, batch["scored"]]
    each = torch.nn.functional.cross_entropy(logits.float(), batch["targets"], reduction="none")
    return float((each * batch["weights"]).sum())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_is_the_sum_of_the_samples_and_the_models_own(lively: Any, name: str) -> None:
    speaker = lively[name]
    with torch.no_grad():
        use_plain(speaker.model)
        own = plainly(speaker, collate([sample(speaker, turns) for turns in CHATS]))
        alone = sum(plainly(speaker, collate([sample(speaker, turns)])) for turns in CHATS)
        module = WeightedLoss(speaker.model)
        packed = losses(module, speaker, [CHATS])
        singly = losses(module, speaker, [[turns] for turns in CHATS])
        by_two = losses(module, speaker, [CHATS[:2], CHATS[2:]])
        reversed_ = losses(module, speaker, [CHATS[::-1]])
    for found in (own, singly, by_two, reversed_, packed):
        assert found == pytest.approx(alone, rel=2e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_gradients_are_those_of_the_samples(lively: Any, name: str) -> None:
    speaker = lively[name]
    module = WeightedLoss(speaker.model)
    found = []
    for groups in ([CHATS], [[turns] for turns in CHATS]):
        speaker.model.zero_grad()
        for group in groups:
            module(**collate([sample(speaker, turns) for turns in group]))["loss"].backward()
        grads = [p.grad.flatten() for p in speaker.model.parameters() if p.grad is not None]
        found.append(torch.cat(grads))
    speaker.model.zero_grad()
    assert (found[0] - found[1]).norm() <= 1e-4 * found[1].norm()


def hidden(module: WeightedLoss, speaker: Speaker, row: list[list[Turn]]) -> list[Tensor]:
    """The last hidden states of each of a row's samples."""
    batch = collate([sample(speaker, turns) for turns in row])
    batch["scored"] = torch.arange(batch["input_ids"].shape[1])
    with torch.no_grad():
        return list(module.hidden(batch).split(batch["sample_lengths"]))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_changes_in_a_sample_stays_in_it(lively: Any, name: str) -> None:
    speaker = lively[name]
    module = WeightedLoss(speaker.model)
    row = [chat(1, 3), chat(2, 4), chat(3, 2)]
    before = hidden(module, speaker, row)
    changes: list[Callable[[list[Turn]], list[Turn]]] = [
        lambda turns: [replace(turns[0], frames=(picture(77),)), *turns[1:]],
        lambda turns: [replace(turns[0], queries=("run away now",)), *turns[1:]],
        lambda turns: turns[:1],
        lambda turns: [*turns, Turn(9, (picture(5), picture(6)), action=Silence())],
    ]
    for change in changes:
        for at in range(3):
            other = list(row)
            other[at] = change(row[at])
            after = hidden(module, speaker, other)
            for i in range(3):
                same = before[i].shape == after[i].shape and (before[i] - after[i]).abs().max()
                if i == at:
                    assert same is False or same > 1e-2
                else:
                    assert same is not False and same <= 1e-5


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_nothing_at_or_before_a_second_knows_what_comes_after(lively: Any, name: str) -> None:
    speaker = lively[name]
    module = WeightedLoss(speaker.model)
    turns = chat(1, 6)
    first = chat(5, 2)
    _, before = hidden(module, speaker, [first, turns])
    for second in range(5):
        later = turns[second + 1]
        changes = [
            [replace(later, frames=(picture(78),))],
            [replace(later, queries=("something else",))],
            [replace(later, results=((1, "three"),), action=Response("another word"))],
            [],
        ]
        kept = len(speaker.renderer.render("", turns[: second + 1]))
        for change in changes:
            other = [*turns[: second + 1], *change, *turns[second + 2 :]]
            _, after = hidden(module, speaker, [first, other])
            assert (before[:kept] - after[:kept]).abs().max() <= 1e-5
            rest = min(len(before), len(after))
            assert rest == kept or (before[kept:rest] - after[kept:rest]).abs().max() > 1e-2


def test_which_architectures_take_packed_attention(lively: Any) -> None:
    for name, wanted in (("qwen3_vl", True), ("qwen2_5_vl", True), ("idefics3", False)):
        model = lively[name].model
        assert use_packed(model) is wanted
        kinds = {
            part: getattr(model.config, part)._attn_implementation
            for part in ("text_config", "vision_config")
        }
        assert (kinds["text_config"] == TEXT) is wanted
        # Qwen2.5's windows want their own cuts.
        assert (kinds["vision_config"] == VISION) is (name == "qwen3_vl")
        use_plain(model)
        assert model.config.text_config._attn_implementation == "sdpa"
        assert model.config.vision_config._attn_implementation == "sdpa"


def test_images_of_several_sizes_attend_to_themselves_alone(lively: Any) -> None:
    speaker = lively["qwen3_vl"]
    frames = [picture(1), picture(2, (32, 32)), picture(3, (32, 32)), picture(4, (64, 64))]
    images = speaker.processor.images(frames)
    with torch.no_grad():
        use_plain(speaker.model)
        plain = speaker.model.get_image_features(**images).pooler_output
        use_packed(speaker.model)
        packed = speaker.model.get_image_features(**images).pooler_output
        alone = [
            speaker.model.get_image_features(**speaker.processor.images([f])).pooler_output[0]
            for f in frames
        ]
    assert torch.allclose(torch.cat(list(packed)), torch.cat(list(plain)), atol=1e-5)
    assert torch.allclose(torch.cat(list(packed)), torch.cat(alone), atol=1e-5)
