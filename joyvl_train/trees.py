"""Samples that begin alike, as a tree: what they have in common stands once in a row.

A node is a run of tokens; it continues its parent, and a sample is the path from a root to where
it ends. A token sees those before it in its own node, and all of the nodes above. So a packed row
computes what several rollouts of a window share once, forward and backward, and each token's hidden
state is what it would be in its sample alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tree:
    """How its nodes stand in a row, one after another: their lengths, and the place of each one's
    parent, which stands before it; -1: it has none."""

    lengths: tuple[int, ...]
    parents: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.lengths) != len(self.parents) or not all(n > 0 for n in self.lengths):
            raise ValueError(f"nodes of {self.lengths} tokens with the parents {self.parents}")
        if any(not -1 <= parent < node for node, parent in enumerate(self.parents)):
            raise ValueError(f"a node stands before its parent: {self.parents}")

    def __len__(self) -> int:
        return sum(self.lengths)

    @property
    def starts(self) -> tuple[int, ...]:
        """Where each node begins."""
        found = [0]
        for length in self.lengths[:-1]:
            found.append(found[-1] + length)
        return tuple(found)

    def path(self, node: int) -> tuple[int, ...]:
        """The nodes from the root to `node`."""
        found = [node]
        while (parent := self.parents[found[-1]]) >= 0:
            found.append(parent)
        return tuple(reversed(found))


@lru_cache(maxsize=32)
def hidden_from(tree: Tree, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
    """-inf where the last `queries` of the tree's first `keys` tokens must not look,
    [queries, keys]."""
    above = torch.eye(len(tree.lengths), dtype=torch.bool)
    for node, parent in enumerate(tree.parents):
        if parent >= 0:
            above[node] |= above[parent]
    nodes = torch.repeat_interleave(torch.tensor(tree.lengths))[:keys]
    asking = nodes[keys - queries :]
    seen = above[asking][:, nodes].tril(keys - queries)
    return torch.zeros(queries, keys, dtype=dtype).masked_fill_(~seen, float("-inf"))


def grown(samples: Sequence[Sequence[tuple[Hashable, int]]]) -> tuple[Tree, list[list[int]]]:
    """The tree of samples that are given as parts, (what it is, tokens), and of each sample the
    node of each of its parts; what a last node holds beyond the sample's end is another's.

    Parts that are equal and follow equal ones are one; no part is empty. Raises `ValueError` where
    there is no sample, or one has no part.
    """
    if not samples or not all(samples):
        raise ValueError("no sample, or one without a part")
    below: list[dict[Hashable, int]] = [{}]  # of each part its followers; of none the first ones
    above, sizes = [-1], [0]
    ways: list[list[int]] = []
    for sample in samples:
        at, way = 0, []
        for what, size in sample:
            if what not in below[at]:
                below[at][what] = len(below)
                below.append({})
                above.append(at)
                sizes.append(size)
            at = below[at][what]
            way.append(at)
        ways.append(way)
    # A part that alone follows another stands in its node.
    node_of = {0: -1}
    lengths: list[int] = []
    parents: list[int] = []
    for part in range(1, len(below)):
        before = above[part]
        if before and len(below[before]) == 1:
            node_of[part] = node_of[before]
            lengths[node_of[part]] += sizes[part]
        else:
            node_of[part] = len(lengths)
            lengths.append(sizes[part])
            parents.append(node_of[before])
    return Tree(tuple(lengths), tuple(parents)), [[node_of[part] for part in way] for way in ways]
