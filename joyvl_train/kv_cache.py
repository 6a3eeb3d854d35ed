"""Keys and values of many streams of unequal length, as a cache that transformers models fill.

Per layer there is one tensor `[rows, heads, columns, head_dim]` for keys and one for values, a row
a stream. Column 0 of each row is a bin: the padding of a ragged batch is written and read there, so
that token n of a stream always lies in column n + 1 and nothing has to be moved or masked later.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.cache_utils import Cache
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

Pair = list[Tensor]  # keys and values of one layer


class Store:
    """The rows of all open streams, numbered from 0; layers appear at the first forward."""

    def __init__(self) -> None:
        self.layers: list[Pair] = []
        self.rows = 0
        self.columns = 0

    @torch.inference_mode()
    def reserve(self, rows: int, columns: int) -> None:
        """Make room for `rows` rows of `columns` columns; what is there is kept."""
        if rows <= self.rows and columns <= self.columns:
            return
        if rows > self.rows:
            self.rows = max(rows, self.rows + self.rows // 4)
        if columns > self.columns:
            self.columns = max(columns, self.columns + self.columns // 2)
            self.columns += -self.columns % 64
        for pair in self.layers:
            for index, old in enumerate(pair):
                # Zeros, because a masked column may hold anything but NaN.
                new = old.new_zeros(self.rows, old.shape[1], self.columns, old.shape[3])
                new[: old.shape[0], :, : old.shape[2]] = old
                pair[index] = new

    def layer(self, index: int, like: Pair) -> Pair:
        """The layer's tensors, made in the shape of the states `like` where it is new."""
        while len(self.layers) <= index:
            self.layers.append(
                [x.new_zeros(self.rows, x.shape[1], self.columns, x.shape[3]) for x in like]
            )
        return self.layers[index]

    @torch.inference_mode()
    def copy(self, source: int, target: int, columns: int) -> None:
        """Copy the first `columns` columns of a row onto another row."""
        for pair in self.layers:
            for tensor in pair:
                tensor[target, :, :columns] = tensor[source, :, :columns]

    def clear(self) -> None:
        """Let go of all memory."""
        self.layers.clear()
        self.rows = self.columns = 0


class Rows(Cache):
    """Some rows of a `Store` for a run of forwards: in place where they lie side by side.

    Rows that lie apart are gathered into copies, and `save` writes back what was added.
    """

    def __init__(
        self, store: Store, rows: Sequence[int], columns: int, device: torch.device
    ) -> None:
        """`columns` is how many columns the forwards will reach at most."""
        super().__init__(layers=[])
        store.reserve(max(rows) + 1, columns)
        self._reach = columns
        self._store = store
        first = rows[0]
        self._span = slice(first, first + len(rows))
        self._together = list(rows) == list(range(first, first + len(rows)))
        self._index = torch.tensor(rows, device=device)
        self._numbers = torch.arange(len(rows), device=device)[:, None]
        self._copies: dict[int, Pair] = {}
        self._columns = torch.empty(0)
        self._seen = 0
        self._changed: tuple[int, int] | None = None

    def place(self, columns: Tensor, first: int, last: int) -> None:
        """Say where the next forward writes: `columns` is `[rows, new tokens]`, 0 for padding.

        Its smallest and largest column above 0 are `first` and `last`.
        """
        self._columns = columns
        self._seen = last + 1
        low, high = self._changed or (first, last)
        self._changed = (min(low, first), max(high, last))

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new states `[rows, heads, new, head_dim]`; all states up to the last column."""
        keys, values = self._pair(layer_idx, [key_states, value_states])
        keys[self._numbers, :, self._columns] = key_states.transpose(1, 2)
        values[self._numbers, :, self._columns] = value_states.transpose(1, 2)
        return keys[:, :, : self._seen], values[:, :, : self._seen]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns in use, the one of padding included."""
        return self._seen

    def save(self) -> None:
        """Write gathered copies back to the store."""
        if self._together or self._changed is None:
            return
        low, high = self._changed
        for index, pair in self._copies.items():
            for kept, copied in zip(self._store.layers[index], pair, strict=True):
                kept[self._index, :, low : high + 1] = copied[:, :, low : high + 1]

    def _pair(self, layer: int, like: Pair) -> Pair:
        stored = self._store.layer(layer, like)
        if self._together:
            return [tensor[self._span] for tensor in stored]
        if layer not in self._copies:
            self._copies[layer] = [tensor[:, :, : self._reach][self._index] for tensor in stored]
        return self._copies[layer]


def causal_mask(columns: Tensor, seen: int, dtype: torch.dtype) -> Tensor:
    """What each new token may attend to, as an additive mask `[rows, 1, new, seen]`.

    A token in column c > 0 sees columns 1..c of its own row; padding (c = 0) sees column 0, so that
    its softmax is defined.
    """
    last = columns[:, None, :, None]
    every = torch.arange(seen, device=columns.device)
    allowed = (every <= last) & (every >= last.clamp(max=1))
    mask = torch.zeros(allowed.shape, dtype=dtype, device=columns.device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min)


@contextmanager
def grouped_attention(model: Any) -> Iterator[None]:
    """Let a model on a CPU attend without copying its keys and values.

    transformers repeats keys and values for each query group before `sdpa`, which costs more than
    the attention itself over a long cache; PyTorch's kernel for CPUs takes groups as they are.
    """
    config = model.config.get_text_config()
    usual = config._attn_implementation
    if usual == "sdpa" and model.device.type == "cpu":
        config._attn_implementation = _GROUPED
    try:
        yield
    finally:
        config._attn_implementation = usual


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    rows, heads, length, size = query.shape
    if length == 1 and attention_mask is not None:
        # One token: the queries of a group are the rows of one small matrix, which is fastest.
        query = query.view(rows, key.shape[1], -1, size)
    output = torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        is_causal=attention_mask is None and length > 1,
        scale=scaling,
        enable_gqa=True,
    )
    return output.view(rows, heads, length, -1).transpose(1, 2).contiguous(), None


_GROUPED = "joyvl_grouped"
AttentionInterface.register(_GROUPED, _attend)
AttentionMaskInterface.register(_GROUPED, sdpa_mask)


def takes_increments(model: Any) -> bool:
    """Whether a model of transformers can be driven through `Rows`.

    It must attend causally to everything before (no sliding window, no recurrent state, no
    attention both ways within an image), and take vision features that were computed apart.
    """
    text = model.config.get_text_config()
    layers = getattr(text, "layer_types", None)
    if layers is None:
        full = getattr(text, "sliding_window", None) is None
    else:
        full = set(layers) <= {"full_attention"}
    takes = inspect.signature(model.forward).parameters
    both_ways = "token_type_ids" in takes  # which tokens are an image's, for the mask
    needed = {"mm_encoder_outputs", "logits_to_keep", "position_ids"} <= set(takes)
    stateful = bool(getattr(model, "_is_stateful", False))
    return full and needed and not both_ways and not stateful
