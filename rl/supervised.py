"""Gold streams that a policy goes on learning from beside its own rollouts.

Rewards say which of its own ways a policy should take; they can't show it one that it never takes.
So each step may also hold rows of gold streams under the weighted loss of `recipe=sft`, as PPO-ptx
mixes its pretraining in (arXiv 2203.02155, section 3.5). Rows are planned as there: packed, drawn
by number, and each rank takes its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from joyvl_train.collate import Batch, PackedRows, Part, Row, RowCollator
from joyvl_train.trainer import RankRows


class Supervised:
    """`rows` rows of `parts` a step, over all ranks, each of at most `row_tokens`; in the loss of a
    step their mean counts `weight` times. rows must be a multiple of `ranks`."""

    def __init__(
        self,
        parts: Sequence[Part],
        rows: int,
        *,
        weight: float = 1.0,
        row_tokens: int = 4096,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if rows % ranks:
            raise ValueError(f"{rows} rows of supervision on {ranks} ranks; take a multiple")
        self.weight = weight
        self.left_out: dict[str, str] = {}
        """Samples that were broken, by name, with the reason."""
        self._parts, self._row_tokens, self._seed = parts, row_tokens, seed
        self._size, self._rank, self._ranks = rows // ranks, rank, ranks
        self._collate = RowCollator(parts)
        self._state: Mapping[str, Any] | None = None
        self._plan = self._planned()

    def _planned(self) -> Iterator[Row]:
        rows = PackedRows(
            self._parts, row_tokens=self._row_tokens, seed=self._seed, state=self._state
        )
        return iter(RankRows(rows, self._size, self._rank, self._ranks))

    def next(self) -> list[Batch]:
        """This rank's rows of the step."""
        found = []
        for _ in range(self._size):
            batch = self._collate([next(self._plan)])
            self._state = batch.pop("state")
            self.left_out |= batch.pop("left_out")
            found.append(batch)
        return found

    def state_dict(self) -> Mapping[str, Any]:
        """Where it stands in the plan of rows, of every rank the same, and what this one left
        out."""
        return {"rows": self._state, "left_out": self.left_out}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._state, self.left_out = state["rows"], dict(state["left_out"])
        self._plan = self._planned()
