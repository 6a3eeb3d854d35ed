"""Samples that begin alike, as a tree: each reads what it reads alone, what is common is once."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from joyvl_train import attention
from joyvl_train.attention import TEXT
from joyvl_train.trees import Tree, grown, hidden_from

SAMPLES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=8)
SIZES = (5, 40, 130)
HEADS = st.sampled_from([(4, 4), (4, 2), (6, 1)])


def sized(samples: list[list[int]]) -> list[list[tuple[int, int]]]:
    return [[(what, SIZES[what]) for what in sample] for sample in samples]


def columns(tree: Tree, nodes: list[int], length: int) -> Tensor:
    """Where a sample's tokens stand."""
    parts = [
        torch.arange(tree.starts[n], tree.starts[n] + tree.lengths[n]) for n in dict.fromkeys(nodes)
    ]
    return torch.cat(parts)[:length]


@given(SAMPLES)
def test_every_sample_is_a_path_and_every_beginning_stands_once(samples: list[list[int]]) -> None:
    tree, nodes = grown(sized(samples))
    beginnings = {tuple(s[:n]) for s in samples for n in range(1, len(s) + 1)}
    assert len(tree) == sum(SIZES[beginning[-1]] for beginning in beginnings)
    placed: dict[int, tuple[tuple[int, ...], int]] = {}
    for sample, own in zip(samples, nodes, strict=True):
        assert len(own) == len(sample)
        path = list(dict.fromkeys(own))
        assert tuple(path) == tree.path(path[-1])
        tokens = [
            (tuple(sample[: n + 1]), i) for n, w in enumerate(sample) for i in range(SIZES[w])
        ]
        stand = columns(tree, own, len(tokens)).tolist()
        assert len(stand) == len(tokens)
        for column, token in zip(stand, tokens, strict=True):
            assert placed.setdefault(column, token) == token
    assert sorted(placed) == list(range(len(tree)))
    # No node is left that could stand in the one before it.
    followers = [tree.parents.count(node) for node in range(len(tree.lengths))]
    assert 1 not in followers


@given(SAMPLES, st.data())
def test_a_token_sees_the_tokens_before_it_in_its_samples(
    samples: list[list[int]], data: st.DataObject
) -> None:
    tree, nodes = grown(sized(samples))
    keys = data.draw(st.integers(1, len(tree)))
    queries = data.draw(st.integers(1, keys))
    mask = hidden_from(tree, queries, keys, torch.float32)
    assert mask.shape == (queries, keys)
    wanted = torch.zeros(len(tree), len(tree), dtype=torch.bool)
    for own in nodes:
        # What ends within a node is followed there by another's tokens, which see it as well.
        path = columns(tree, own, len(tree))
        wanted[path[:, None], path[None]] |= torch.ones(len(path), len(path)).tril().bool()
    assert torch.equal(mask == 0, wanted[keys - queries : keys, :keys])


@given(
    st.lists(SAMPLES, min_size=1, max_size=2),
    HEADS,
    st.sampled_from(["blocks", "nodes", "bfloat16"]),
    st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_attention_in_a_tree_is_that_of_each_sample_alone(
    rows: list[list[list[int]]], heads: tuple[int, int], way: str, seed: int
) -> None:
    """Forward and backward, samples of over a thousand tokens and several trees among them."""
    torch.manual_seed(seed)
    every = [grown(sized(samples)) for samples in rows]
    lengths = [len(tree) for tree, _ in every]
    dtype = torch.bfloat16 if way == "bfloat16" else torch.float32
    made = [torch.randn(1, h, sum(lengths), 8, dtype=dtype) for h in (heads[0], *[heads[1]] * 2)]
    q, k, v = (t.requires_grad_() for t in made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_by_blocks", lambda query: way != "nodes")
        attend = partial(AttentionInterface()[TEXT], None, q, k, v, None)
        out, _ = attend(sample_lengths=lengths, trees=[tree for tree, _ in every])
    assert out.shape == (1, sum(lengths), heads[0], 8)
    start, slope = 0, torch.randn(out.shape)
    ours, alone = torch.zeros(()), torch.zeros(())
    loose = 0.05 if way == "bfloat16" else 1e-5
    for samples, (tree, nodes) in zip(rows, every, strict=True):
        for sample, own in zip(samples, nodes, strict=True):
            stand = start + columns(tree, own, sum(SIZES[w] for w in sample))
            wanted = scaled_dot_product_attention(
                *(t[:, :, stand].float() for t in (q, k, v)),
                is_causal=True,
                enable_gqa=heads[0] != heads[1],
            ).transpose(1, 2)
            found = out[:, stand].float()
            assert (found - wanted).abs().max() < loose
            ours = ours + (found * slope[:, stand]).sum()
            alone = alone + (wanted * slope[:, stand]).sum()
        start += len(tree)
    for one, other in zip(
        torch.autograd.grad(ours, (q, k, v)), torch.autograd.grad(alone, (q, k, v)), strict=True
    ):
        away = (one - other).float().norm()
        assert away <= (0.03 if way == "bfloat16" else 1e-4) * other.float().norm() + 0.01


@pytest.mark.parametrize(
    ("lengths", "parents"), [((3, 2), (-1,)), ((3, 0), (-1, 0)), ((3, 2), (1, -1)), ((1,), (-2,))]
)
def test_what_is_no_tree_is_refused(lengths: tuple[int, ...], parents: tuple[int, ...]) -> None:
    with pytest.raises(ValueError):
        Tree(lengths, parents)


@pytest.mark.parametrize("samples", [[], [[]], [[(1, 2)], []]])
def test_no_sample_and_one_without_a_part_are_refused(samples) -> None:
    with pytest.raises(ValueError):
        grown(samples)
