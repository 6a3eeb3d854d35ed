"""Attention that keeps packed samples apart without computing, or masking, what lies between them.

Registered with transformers' own attention interface; models are not patched. Two forms: for the
text model, causal attention inside each of a row's samples, or inside trees of samples that begin
alike (`joyvl_train.trees`); for Qwen-VL vision towers, full attention inside each image, all images
of one size in one call.

In bfloat16 on a CPU both are written out as matrix products: torch's fused kernel takes two to
eleven times as long there, forward and backward, at the lengths of a small model's samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from joyvl_train.trees import Tree, hidden_from

TEXT = "joyvl_packed"
# The vision towers hand whole rows with their boundaries only to what is called flash attention.
VISION = "joyvl_packed_flash"


def _text_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sample_lengths: Sequence[int] | None = None,
    trees: Sequence[Tree] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """query [1, H, T, D], key and value [1, Hkv, T, D] -> [1, T, H, D]; causal in each sample.

    trees: of each of the row's samples, where they are trees of several.
    """
    lengths = [query.shape[2]] if sample_lengths is None else list(sample_lengths)
    assert attention_mask is None and sum(lengths) == query.shape[2] == key.shape[2]
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    written_out = _written_out(query) and dropout == 0.0
    if written_out:
        query, key, value = (t.to(torch.bfloat16) for t in (query, key, value))
    if trees is not None:
        kind = query.device.type
        if torch.is_autocast_enabled(kind):  # which doesn't reach what fewer queries than keys take
            wide = torch.get_autocast_dtype(kind)
            query, key, value = (t.to(wide) for t in (query, key, value))
        split = (torch.split(t, lengths, dim=2) for t in (query, key, value))
        done = [
            _in_tree(q, k, v, tree, scale, dropout, written_out)
            for q, k, v, tree in zip(*split, trees, strict=True)
        ]
        return torch.cat(done, dim=2).transpose(1, 2), None
    if written_out:
        return _causal_groups(query, key, value, tuple(lengths), scale), None
    grouped = query.shape[1] != key.shape[1]
    parts = [torch.split(t, lengths, dim=2) for t in (query, key, value)]
    out = [
        scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, scale=scale, is_causal=True, enable_gqa=grouped
        )
        for q, k, v in zip(*parts, strict=True)
    ]
    return torch.cat(out, dim=2).transpose(1, 2), None


def _in_tree(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tree: Tree,
    scale: float,
    dropout: float,
    written_out: bool,
) -> Tensor:
    """[1, H, L, D], [1, Hkv, L, D] twice, of the nodes of `tree` -> [1, H, L, D]."""
    if not _by_blocks(query):
        return _along_paths(query, key, value, tree, scale, dropout)
    hidden = partial(hidden_from, tree)
    if written_out:
        attend = _LongCausal.apply if query.shape[2] > _LONG else _causal
        done: Tensor = attend(query, key, value, scale, hidden)
        return done
    out = []
    for start in range(0, query.shape[2], _BLOCK):
        stop = min(query.shape[2], start + _BLOCK)
        part = scaled_dot_product_attention(
            *(query[:, :, start:stop], key[:, :, :stop], value[:, :, :stop]),
            attn_mask=hidden(stop - start, stop, query.dtype),
            dropout_p=dropout,
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        out.append(part)
    return torch.cat(out, dim=2)


def _along_paths(
    query: Tensor, key: Tensor, value: Tensor, tree: Tree, scale: float, dropout: float
) -> Tensor:
    """`_in_tree`, node by node against the keys of its path, so that no mask of a tree is held and
    fused kernels can take it. The keys and values of each path stand in memory meanwhile, a copy a
    node; gradient checkpointing holds those of one layer at a time."""
    lengths = list(tree.lengths)
    nodes, *others = (torch.split(t, lengths, dim=2) for t in (query, key, value))
    shared = query.shape[1] // key.shape[1]
    out = []
    for node, near in enumerate(nodes):
        path = tree.path(node)
        # The fused kernels' own mask for fewer queries than keys knows no heads that share keys.
        keys, values = (
            torch.cat([t[n] for n in path], dim=2).repeat_interleave(shared, 1) for t in others
        )
        mask = causal_lower_right(near.shape[2], keys.shape[2])
        done = scaled_dot_product_attention(
            near, keys, values, attn_mask=mask, dropout_p=dropout, scale=scale
        )
        out.append(done)
    return torch.cat(out, dim=2)


def _by_blocks(query: Tensor) -> bool:
    """Whether a tree is taken in blocks of queries and not by its nodes, of which small models
    have many short ones."""
    return query.device.type == "cpu"


def _written_out(query: Tensor) -> bool:
    """Whether attention would be computed in bfloat16 on a CPU, autocast considered."""
    if query.device.type != "cpu":
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return query.dtype == torch.bfloat16


_GROUP_TOKENS = 1024
"""Samples of like length are computed together up to so many tokens, so that scores stay cached."""
_BLOCK = 256
"""Queries are taken so many at a time, each block against the keys up to its end."""
_LONG = 1024
"""Tokens of a sample above which its probabilities are not held for the backward pass."""


@lru_cache(maxsize=64)
def _groups(lengths: tuple[int, ...]) -> tuple[list[tuple[int, Tensor | slice]], Tensor]:
    """(B and the B * L places of each group's samples, padded with their last; where each went).

    Padding stands behind a sample, where no causal query of it looks.
    """
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    groups: list[list[int]] = []
    for i in order:
        last = groups[-1] if groups else None
        fits = last and (len(last) + 1) * lengths[i] <= _GROUP_TOKENS
        if last and fits and lengths[i] <= 1.25 * lengths[last[0]] + 8:
            last.append(i)
        else:
            groups.append([i])
    places: list[tuple[int, Tensor | slice]] = []
    went, done = torch.empty(starts[-1], dtype=torch.long), 0
    for group in groups:
        longest = lengths[group[-1]]
        steps = torch.arange(longest)
        rows = [starts[i] + steps.clamp(max=lengths[i] - 1) for i in group]
        alone = slice(starts[group[0]], starts[group[0] + 1])
        places.append((len(group), alone if len(group) == 1 else torch.cat(rows)))
        for row, i in enumerate(group):
            first = done + row * longest
            went[starts[i] : starts[i] + lengths[i]] = torch.arange(first, first + lengths[i])
        done += len(group) * longest
    return places, went


def _causal_groups(
    query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scale: float
) -> Tensor:
    """[1, H, T, D], [1, Hkv, T, D] twice -> [1, T, H, D]."""
    places, went = _groups(lengths)
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))  # [T, H, D]
    done = []
    for count, place in places:
        a, b, c = (t[place].view(count, -1, *t.shape[1:]).transpose(1, 2) for t in (q, k, v))
        attend = _LongCausal.apply if a.shape[2] > _LONG else _causal
        done.append(attend(a, b, c, scale).transpose(1, 2).flatten(0, 1))
    return torch.cat(done)[went].unsqueeze(0)


Hidden = Callable[[int, int, torch.dtype], Tensor]
"""What the last `queries` of `keys` tokens must not look at: an additive mask [queries, keys]."""


@lru_cache(maxsize=16)
def _future(queries: int, keys: int, dtype: torch.dtype) -> Tensor:
    """-inf where the last `queries` of `keys` tokens must not look, [queries, keys]."""
    full = torch.full((queries, keys), float("-inf"), dtype=dtype)
    return full.triu(1 + keys - queries)


def _causal(
    query: Tensor, key: Tensor, value: Tensor, scale: float, hidden: Hidden = _future
) -> Tensor:
    """[B, H, L, D], [B, Hkv, L, D] twice -> [B, H, L, D]: softmax of masked products."""
    out = []
    for rows, near, keys, values in _blocks(query, key, value):
        seen = _probabilities(near, keys, rows, scale, hidden) @ values
        out.append(seen.view(*query.shape[:2], -1, query.shape[3]))
    return torch.cat(out, dim=2)


class _LongCausal(torch.autograd.Function):
    """`_causal`, whose probabilities are computed again in the backward pass, not held.

    Held, they grow with the square of a sample's length, and are most of the memory of a step.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        hidden: Hidden = _future,
    ) -> Tensor:
        out = _causal(query, key, value, scale, hidden)
        ctx.save_for_backward(query, key, value, out)
        ctx.scale, ctx.hidden = scale, hidden
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out = ctx.saved_tensors
        batch = key.shape[0] * key.shape[1]
        of_query = torch.empty(query.shape, dtype=query.dtype)
        of_key, of_value = (t.new_zeros(batch, *t.shape[2:]) for t in (key, value))
        # The gradient of softmax: probabilities times (their own gradient less its mean over them).
        means = (slope.float() * out).sum(-1, keepdim=True).to(slope.dtype)
        for rows, near, keys, values in _blocks(query, key, value):
            seen = _probabilities(near, keys, rows, ctx.scale, ctx.hidden)
            given, mean = (_shared(t, rows, batch) for t in (slope, means))
            of_value[:, : rows.stop] += seen.transpose(1, 2) @ given
            inner = (given @ values.transpose(1, 2)).sub_(mean).mul_(seen).mul_(ctx.scale)
            of_key[:, : rows.stop] += inner.transpose(1, 2) @ near
            of_query[:, :, rows] = (inner @ keys).view(*query.shape[:2], -1, query.shape[3])
        return of_query, of_key.view(key.shape), of_value.view(value.shape), None, None


def _blocks(
    query: Tensor, key: Tensor, value: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """(rows, their queries, keys and values up to the last of them), each as [B * Hkv, ., D]."""
    batch, length = key.shape[0] * key.shape[1], key.shape[2]
    keys, values = (t.reshape(batch, length, -1) for t in (key, value))
    for start in range(0, length, _BLOCK):
        rows = slice(start, min(length, start + _BLOCK))
        yield rows, _shared(query, rows, batch), keys[:, : rows.stop], values[:, : rows.stop]


def _shared(t: Tensor, rows: slice, batch: int) -> Tensor:
    """Some rows of [B, H, L, D] as [B * Hkv, H / Hkv * rows, D]: heads that share a key in one."""
    return t[:, :, rows].reshape(batch, -1, t.shape[3])


def _probabilities(near: Tensor, keys: Tensor, rows: slice, scale: float, hidden: Hidden) -> Tensor:
    """[B * Hkv, H / Hkv * rows, keys]"""
    count = rows.stop - rows.start
    mask = hidden(count, keys.shape[1], near.dtype).repeat(near.shape[1] // count, 1)
    return torch.baddbmm(mask, near, keys.transpose(1, 2), alpha=scale).softmax(-1)


def _vision_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """query, key, value [1, H, S, D] -> [1, S, H, D]; each image attends to itself alone."""
    assert cu_seq_lens_q is not None and attention_mask is None
    lengths = cu_seq_lens_q.diff().tolist()
    heads, width = query.shape[1], query.shape[3]
    out = []
    at = 0
    for length, run in groupby(lengths):
        count = len(list(run))
        q, k, v = (
            t[0, :, at : at + count * length].reshape(heads, count, length, width).transpose(0, 1)
            for t in (query, key, value)
        )
        if _written_out(q) and dropout == 0.0:
            scale = width**-0.5 if scaling is None else scaling
            done = ((q * scale) @ k.transpose(2, 3)).softmax(-1) @ v
        else:
            done = scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling)
        out.append(done.transpose(1, 2).reshape(1, count * length, heads, width))
        at += count * length
    return torch.cat(out, dim=1), None


AttentionInterface.register(TEXT, _text_attention)
AttentionInterface.register(VISION, _vision_attention)


def use_packed(model: Any) -> bool:
    """Make `model` attend as packed rows need it; False where its architecture can't take it.

    Where False, the model's own attention tells samples apart by their restarting positions.
    """
    config = model.config
    if getattr(config, "model_type", "") not in ("qwen3_vl", "qwen2_5_vl", "qwen2_vl"):
        return False
    config.text_config._attn_implementation = TEXT
    if config.model_type != "qwen2_5_vl":  # its window attention wants its own cuts
        config.vision_config._attn_implementation = VISION
    return True


def use_plain(model: Any) -> None:
    """Undo `use_packed`: for generation, which keeps a cache and pads."""
    for part in ("text_config", "vision_config"):
        inner = getattr(model.config, part)
        if inner._attn_implementation in (TEXT, VISION):
            inner._attn_implementation = "sdpa"
