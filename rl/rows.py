"""Scored sequences -> packed rows, each token with its advantage and how it was drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from joyvl_train.collate import Batch, collate
from joyvl_train.weights import Targets
from rl.sequences import Scored


@dataclass(frozen=True, slots=True)
class Weighed:
    """A sequence, the advantage of each of its seconds, and how many rollouts drew it."""

    scored: Scored
    advantages: Mapping[int, float]
    copies: int = 1

    def __len__(self) -> int:
        return len(self.scored)


def merged(group: Iterable[Weighed]) -> list[Weighed]:
    """The sequences of one window, those that say the same and earn the same as one.

    Most rollouts of a window are silent in most seconds, so that several are often alike; what
    they weigh adds up, and the gradient is the same.
    """
    found: dict[tuple[object, ...], Weighed] = {}
    for each in group:
        scored = each.scored
        own = tuple(each.advantages[int(t)] for t in scored.seconds)
        key = tuple(scored.rendered.ids), scored.positions.tobytes(), own, scored.tokens
        known = found.get(key)
        found[key] = each if known is None else replace(known, copies=known.copies + each.copies)
    return list(found.values())


def row_batch(row: Sequence[Weighed], aggregate: str) -> Batch:
    """One packed row of scored sequences, each with the advantages of its seconds."""
    samples = []
    columns: dict[str, list[Tensor]] = {"advantages": [], "drawn": [], "weights": [], "number": []}
    copies: list[Tensor] = []
    for number, weighed in enumerate(row):
        scored, advantages = weighed.scored, weighed.advantages
        count = len(scored.positions)
        each = weighed.copies / (scored.tokens if aggregate == "sequences" else 1)
        ones = torch.ones(count).numpy()
        samples.append((scored.rendered, Targets(scored.positions, ones, float(count))))
        columns["advantages"].append(torch.tensor([advantages[int(t)] for t in scored.seconds]))
        columns["drawn"].append(torch.from_numpy(scored.logprobs).float())
        columns["weights"].append(torch.full((count,), float(each)))
        columns["number"].append(torch.full((count,), number))
        copies.append(torch.full((count,), float(weighed.copies)))
    batch = collate(samples)
    del batch["weights"], batch["denominator"]
    return batch | {
        "advantages": torch.cat(columns["advantages"]).float(),
        "drawn": torch.cat(columns["drawn"]),
        "token_weights": torch.cat(columns["weights"]),
        "copies": torch.cat(copies),
        "sequences": torch.cat(columns["number"]),
    }
