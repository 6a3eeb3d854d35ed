"""Attention that keeps packed samples apart without computing, or masking, what lies between them.

Registered with transformers' own attention interface; models are not patched. Two forms: for the
text model, causal attention inside each of a row's samples; for Qwen-VL vision towers, full
attention inside each image, all images of one size in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

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
    **_: Any,
) -> tuple[Tensor, None]:
    """query [1, H, T, D], key and value [1, Hkv, T, D] -> [1, T, H, D]; causal in each sample."""
    grouped = query.shape[1] != key.shape[1]
    lengths = [query.shape[2]] if sample_lengths is None else list(sample_lengths)
    assert attention_mask is None and sum(lengths) == query.shape[2] == key.shape[2]
    parts = [torch.split(t, lengths, dim=2) for t in (query, key, value)]
    out = [
        scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, scale=scaling, is_causal=True, enable_gqa=grouped
        )
        for q, k, v in zip(*parts, strict=True)
    ]
    return torch.cat(out, dim=2).transpose(1, 2), None


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
