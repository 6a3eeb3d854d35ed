"""Scored sequences -> packed rows, each token with its advantage and how it was drawn.

The rollouts of a window begin alike and see the same pictures. Where attention is ours, they stand
in a row as a tree (`joyvl_train.trees`): what they have in common is computed once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from joyvl_train.collate import Batch, collate
from joyvl_train.rendering import Rendered, Segment, join
from joyvl_train.trees import Tree, grown
from joyvl_train.weights import Targets
from rl.sequences import Scored

_NONE = Targets(np.empty(0, np.int64), np.empty(0), 0.0)


@dataclass(frozen=True, slots=True)
class Weighed:
    """A sequence, the advantage of each of its seconds, and how many rollouts drew it."""

    scored: Scored
    advantages: Mapping[int, float]
    copies: int = 1

    def __len__(self) -> int:
        return len(self.scored)


@dataclass(frozen=True, slots=True)
class Bunch:
    """Sequences of one window that stand in a row as one tree. nodes: of each sequence the node of
    each of its segments."""

    sequences: tuple[Weighed, ...]
    tree: Tree
    nodes: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.tree)

    @property
    def rendered(self) -> list[Rendered]:
        """The tree's nodes, their positions counted from the root."""
        parts: list[list[Segment]] = [[] for _ in self.tree.lengths]
        begins = [0] * len(parts)
        for weighed, nodes in zip(self.sequences, self.nodes, strict=True):
            seen = [0] * len(parts)
            at = 0
            for segment, node in zip(weighed.scored.segments, nodes, strict=True):
                if not parts[node]:
                    begins[node] = at
                if seen[node] == len(parts[node]):
                    parts[node].append(segment)
                seen[node] += 1
                at += segment.advance
        made = [join(segments) for segments in parts]
        return [replace(m, positions=m.positions + b) for m, b in zip(made, begins, strict=True)]

    def columns(self, number: int) -> np.ndarray:
        """Where in the tree the tokens of a sequence stand."""
        starts, lengths = self.tree.starts, self.tree.lengths
        path = dict.fromkeys(self.nodes[number])
        found = np.concatenate([np.arange(starts[n], starts[n] + lengths[n]) for n in path])
        return found[: len(self.sequences[number])]


def merged(group: Iterable[Weighed]) -> list[Weighed]:
    """The sequences of one window, those that say the same and earn the same as one.

    Most rollouts of a window are silent in most seconds, so that several are often alike; what
    they weigh adds up, and the gradient is the same.
    """
    found: dict[tuple[object, ...], Weighed] = {}
    for each in group:
        scored = each.scored
        own = tuple(each.advantages[int(t)] for t in scored.seconds)
        ids = tuple(segment.ids for segment in scored.segments)
        key = ids, scored.positions.tobytes(), own, scored.tokens
        known = found.get(key)
        found[key] = each if known is None else replace(known, copies=known.copies + each.copies)
    return list(found.values())


def bunch(sequences: Sequence[Weighed]) -> Bunch:
    """These sequences of one window as one tree.

    Segments of the same ids are the same: what is shown in a window does not depend on what is
    said in it.
    """
    parts = [[(s.ids, len(s.ids)) for s in each.scored.segments] for each in sequences]
    tree, nodes = grown(parts)
    return Bunch(tuple(sequences), tree, tuple(map(tuple, nodes)))


def bunched(sequences: Iterable[Weighed], room: int) -> list[Bunch]:
    """The sequences of one window as few trees of at most `room` tokens; none is longer alone."""
    found: list[Bunch] = []
    for each in sequences:
        if found and len(larger := bunch([*found[-1].sequences, each])) <= room:
            found[-1] = larger
        else:
            found.append(bunch([each]))
    return found


def row_batch(row: Sequence[Bunch], aggregate: str) -> Batch:
    """One packed row of scored sequences, each with the advantages of its seconds."""
    columns: dict[str, list[Tensor]] = {"advantages": [], "drawn": [], "weights": [], "number": []}
    copies: list[Tensor] = []
    places: list[np.ndarray] = []
    start = number = 0
    for each in row:
        for own, weighed in enumerate(each.sequences):
            scored, advantages = weighed.scored, weighed.advantages
            count = len(scored.positions)
            weight = weighed.copies / (scored.tokens if aggregate == "sequences" else 1)
            stand = each.columns(own) + start
            places.append(np.stack([stand[scored.positions], stand[scored.positions - 1]]))
            columns["advantages"].append(torch.tensor([advantages[int(t)] for t in scored.seconds]))
            columns["drawn"].append(torch.from_numpy(scored.logprobs).float())
            columns["weights"].append(torch.full((count,), float(weight)))
            columns["number"].append(torch.full((count,), number))
            copies.append(torch.full((count,), float(weighed.copies)))
            number += 1
        start += len(each)
    trees = [each.tree for each in row]
    batch = collate([(node, _NONE) for each in row for node in each.rendered])
    del batch["weights"], batch["denominator"]
    if any(len(tree.lengths) > 1 for tree in trees):
        batch["trees"] = trees
    targets, scored_at = np.concatenate(places, axis=1)
    return batch | {
        "sample_lengths": [len(tree) for tree in trees],
        "targets": batch["input_ids"][0, targets],
        "scored": torch.from_numpy(scored_at),
        "advantages": torch.cat(columns["advantages"]).float(),
        "drawn": torch.cat(columns["drawn"]),
        "token_weights": torch.cat(columns["weights"]),
        "copies": torch.cat(copies),
        "sequences": torch.cat(columns["number"]),
    }
