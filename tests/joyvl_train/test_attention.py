"""Packed rows: the same loss as samples alone, and nothing passes from one sample to another."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

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


@given(
    st.lists(st.integers(1, 90) | st.integers(200, 600), min_size=1, max_size=12)
    | st.lists(st.integers(1, 1400), min_size=1, max_size=3),
    st.sampled_from([(4, 4), (4, 2), (6, 1)]),
    st.integers(0, 2**31),
)
@settings(max_examples=40, deadline=None)
def test_written_out_text_attention_is_the_fused_one(
    lengths: list[int], heads: tuple[int, int], seed: int
) -> None:
    torch.manual_seed(seed)
    total, width = sum(lengths), 8
    made = [torch.randn(1, h, total, width).bfloat16() for h in (heads[0], heads[1], heads[1])]
    q, k, v = (t.requires_grad_() for t in made)
    out, _ = AttentionInterface()[TEXT](None, q, k, v, None, sample_lengths=lengths)
    split = [t.float().split(lengths, dim=2) for t in (q, k, v)]
    parts = [
        scaled_dot_product_attention(*each, is_causal=True, enable_gqa=heads[0] != heads[1])
        for each in zip(*split, strict=True)
    ]
    wanted = torch.cat(parts, dim=2).transpose(1, 2)
    assert out.shape == wanted.shape and (out.float() - wanted).abs().max() < 0.05
    slope = torch.randn_like(wanted)
    found, fused = (
        torch.autograd.grad((o.float() * slope).sum(), (q, k, v)) for o in (out, wanted)
    )
    for ours, theirs in zip(found, fused, strict=True):
        assert (ours - theirs).float().norm() <= 0.03 * theirs.float().norm() + 0.01


@pytest.mark.parametrize("lengths", [[4], [4, 4, 4], [4, 6, 6, 2], [36] * 5 + [1]])
def test_written_out_vision_attention_is_the_fused_one(lengths: list[int]) -> None:
    torch.manual_seed(0)
    ends = torch.tensor([0, *lengths]).cumsum(0)
    q, k, v = (torch.randn(1, 3, sum(lengths), 8).bfloat16() for _ in range(3))
    out, _ = AttentionInterface()[VISION](None, q, k, v, None, cu_seq_lens_q=ends)
    for start, stop in itertools.pairwise(ends.tolist()):
        one = [t[:, :, start:stop].float() for t in (q, k, v)]
        wanted = scaled_dot_product_attention(*one).transpose(1, 2)
        assert (out[:, start:stop].float() - wanted).abs().max() < 0.03


def test_autocast_packs_as_float32_does(lively: Any) -> None:
    speaker = lively["qwen3_vl"]
    module = WeightedLoss(speaker.model)
    with torch.no_grad():
        exact = losses(module, speaker, [CHATS])
        with torch.autocast("cpu", torch.bfloat16):
            packed = losses(module, speaker, [CHATS])
            alone = losses(module, speaker, [[turns] for turns in CHATS])
    assert packed == pytest.approx(alone, rel=0.01)
    assert packed == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
def test_a_long_samples_probabilities_are_not_held(heads: tuple[int, int]) -> None:
    length = 1100
    made = [torch.randn(1, h, length, 8).bfloat16() for h in (heads[0], heads[1], heads[1])]
    q, k, v = (t.requires_grad_() for t in made)
    held: list[int] = []

    def note(t: Tensor) -> Tensor:
        held.append(t.numel())
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        out, _ = AttentionInterface()[TEXT](None, q, k, v, None, sample_lengths=[length])
    assert max(held) <= heads[0] * length * 8
    wanted = scaled_dot_product_attention(
        q.float(), k.float(), v.float(), is_causal=True, enable_gqa=heads[0] != heads[1]
    ).transpose(1, 2)
    slope = torch.randn_like(wanted)
    found, fused = (
        torch.autograd.grad((o.float() * slope).sum(), (q, k, v)) for o in (out, wanted)
    )
    for ours, theirs in zip(found, fused, strict=True):
        assert (ours - theirs).float().norm() <= 0.03 * theirs.float().norm()
