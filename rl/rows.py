"""Scored sequences -> packed rows, each token with its advantage and how it was drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from joyvl_train.collate import Batch, collate
from joyvl_train.weights import Targets
from rl.sequences import Scored

Weighed = tuple[Scored, Mapping[int, float]]
"""A sequence, and the advantage of each of its seconds."""


def row_batch(row: Sequence[Weighed], aggregate: str) -> Batch:
    """One packed row of scored sequences, each with the advantages of its seconds."""
    samples = []
    columns: dict[str, list[Tensor]] = {"advantages": [], "drawn": [], "weights": [], "number": []}
    for number, (scored, advantages) in enumerate(row):
        count = len(scored.positions)
        each = 1.0 / scored.tokens if aggregate == "sequences" else 1.0
        ones = torch.ones(count).numpy()
        samples.append((scored.rendered, Targets(scored.positions, ones, float(count))))
        columns["advantages"].append(torch.tensor([advantages[int(t)] for t in scored.seconds]))
        columns["drawn"].append(torch.from_numpy(scored.logprobs).float())
        columns["weights"].append(torch.full((count,), each))
        columns["number"].append(torch.full((count,), number))
    batch = collate(samples)
    del batch["weights"], batch["denominator"]
    return batch | {
        "advantages": torch.cat(columns["advantages"]).float(),
        "drawn": torch.cat(columns["drawn"]),
        "token_weights": torch.cat(columns["weights"]),
        "sequences": torch.cat(columns["number"]),
    }
