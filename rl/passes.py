"""The optimizer steps of a step of GRPO: rows of its rollouts, and of gold streams beside them.

A step's windows are dealt to parts by their numbers in its draw, each an optimizer step in each
pass, before anything is packed. So how many steps there are, and what each learns from, hangs
neither on the ranks nor on how sequences fill rows. A part in which no rank has anything to learn
is no step. Gold rows are dealt to the steps there are by their numbers, too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor

from joyvl_train.collate import Batch
from joyvl_train.config import UserError
from joyvl_train.ranks import of_all
from joyvl_train.rendering import Renderer
from rl.groups import Group
from rl.policy_loss import STATS, PolicyLoss, Reference
from rl.rows import Bunch, Weighed, bunch, bunched, merged, row_batch
from rl.sequences import packed, sequences
from rl.settings import Settings
from rl.spread import gathered, reduced


def rows_of(
    groups: Sequence[Group],
    renderer: Renderer,
    *,
    system: str = "",
    room: int,
    pack: bool = True,
    share: bool = True,
    aggregate: str,
) -> tuple[list[Batch], Counter[str]]:
    """The packed rows of these groups, and how many of their sequences are in none, by reason.

    room: tokens of a row. pack: several sequences share one. share: what those of a window have in
    common stands there once, which only attention of our own can read.
    """
    lost: Counter[str] = Counter()
    found: list[Bunch] = []
    for group in groups:
        assert group.advantages is not None
        own: list[Weighed] = []
        for rollout, advantages in zip(group.learnt_from, group.advantages, strict=True):
            made = sequences(rollout, renderer, system)
            if sum(len(sequence.positions) for sequence in made) < rollout.tokens:
                lost["an image's placeholder was drawn"] += 1
            for sequence in made:
                if len(sequence) > room:
                    lost["longer than a row"] += 1
                else:
                    own.append(Weighed(sequence, advantages))
        few = merged(own)
        found += bunched(few, room) if pack and share else [bunch([each]) for each in few]
    lengths = [len(each) for each in found]
    rows = packed(lengths, room) if pack else [[i] for i in range(len(lengths))]
    return [row_batch([found[i] for i in row], aggregate) for row in rows], lost


def part_of(number: int, windows: int, parts: int) -> int:
    """The part that window `number` of a draw of so many windows is dealt to: parts are runs of
    numbers, so that ranks, which take windows in turn, have equally many in each."""
    return number * parts // windows


def evened(parts: Sequence[list[Batch]]) -> list[list[Batch]]:
    """This rank's rows of each part, as many as every rank has; of parts in which no rank has any,
    none. Collective.

    A rank that has fewer repeats one whose tokens weigh nothing.
    """
    counts = of_all([len(rows) for rows in parts])
    most = [max(of_part) for of_part in zip(*counts, strict=True)]
    own = [row for rows in parts for row in rows]
    # A rank without rows of its own takes another's, as a filler.
    others = own if all(map(sum, counts)) else gathered(own[:1])
    return [
        rows + [_nothing(others[0], "token_weights") for _ in range(count - len(rows))]
        for rows, count in zip(parts, most, strict=True)
        if count
    ]


def gold_dealt(shown: Sequence[Batch], steps: int, rank: int, ranks: int) -> list[list[Batch]]:
    """This rank's gold rows of each optimizer step, as many as every rank has; of steps that get
    none, none. Of all ranks' rows, `rank` has the run of numbers that follows those before it."""
    size = len(shown)
    nothing: Batch = {}
    if shown:
        none = torch.zeros_like(shown[0]["denominator"])
        nothing = {**_nothing(shown[0], "weights"), "denominator": none}
    takes = [[number % steps for number in range(r * size, (r + 1) * size)] for r in range(ranks)]
    found: list[list[Batch]] = []
    for step in range(steps):
        own = [row for row, to in zip(shown, takes[rank], strict=True) if to == step]
        most = max(of_rank.count(step) for of_rank in takes)
        found.append(own + [nothing] * (most - len(own)))
    return found


def _nothing(row: Batch, weights: str) -> Batch:
    """The row, its tokens without weight: for ranks that must call the model in step."""
    return {**row, weights: torch.zeros_like(row[weights])}


class Passes:
    """Takes optimizer steps on rows, on all ranks alike.

    loss, optimizer: as `accelerator` has prepared them. max_grad_norm: gradients are clipped to it;
    0: not at all. gold_weight: what the mean loss of gold streams counts beside that of the
    rollouts. reference: the policy that the KL is measured to; None: it is not.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        loss: Any,
        optimizer: Any,
        settings: Settings,
        max_grad_norm: float,
        *,
        gold_weight: float = 1.0,
        reference: Reference | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.loss = loss
        self._accelerator, self._settings = accelerator, settings
        self._raw: PolicyLoss = accelerator.unwrap_model(loss)
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self._max_grad_norm, self._gold_weight = max_grad_norm, gold_weight
        self._reference = reference

    def take(
        self, parts: Sequence[Sequence[Batch]], shown: Sequence[Batch], step: int, rate: float
    ) -> dict[str, float]:
        """An optimizer step on each of these parts, in each pass, beside its share of `shown`, rows
        of gold streams; where there is no part one on those alone. The figures of them. rate: the
        factor on the learning rates. Collective."""
        accelerator = self._accelerator
        passes = list(parts) * self._settings.epochs or [[]]
        gold = gold_dealt(shown, len(passes), accelerator.process_index, accelerator.num_processes)
        batches = [row for rows in parts for row in rows]
        self.loss.train()
        if len(passes) > 1:
            for batch in batches:
                with torch.no_grad():
                    batch["old"] = self.loss(**self._moved(batch))["logp"].cpu()
        if self._reference is not None:
            with self._accelerator.autocast():
                for batch in batches:
                    batch["reference"] = self._reference.logp(self._raw, self._moved(batch))
        for group, peak in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = peak * rate
        total = torch.zeros(len(STATS), dtype=torch.float64)
        norm = supervised = 0.0
        for rows, gold_rows in zip(passes, gold, strict=True):
            stats, loss, norm = self.optimized(rows, gold_rows, step)
            total += stats
            supervised += loss
        sums = dict(zip(STATS, reduced(self._accelerator, total).tolist(), strict=True))
        count = max(sums.pop("tokens"), 1.0)
        found = {f"grpo/{name}": value / count for name, value in sums.items() if name != "loss"}
        if self._reference is None:
            del found["grpo/kl"]
        if shown:
            found["grpo/supervised_loss"] = supervised / sum(map(bool, gold))
        found["grpo/updates"] = float(len(passes))
        return {**found, "train/learning_rate": self._rates[0] * rate, "train/grad_norm": norm}

    def optimized(
        self, rows: Sequence[Batch], shown: Sequence[Batch], step: int
    ) -> tuple[Tensor, float, float]:
        """An optimizer step on these rows of rollouts and of gold streams: the sums of the former's
        figures, the mean loss of the latter, and the gradient's norm. Collective."""
        accelerator = self._accelerator
        ranks = accelerator.num_processes
        weights = torch.zeros(2, dtype=torch.float64)
        weights[0] += sum(float(b["token_weights"].double().sum()) for b in rows)
        weights[1] += sum(float(b["denominator"]) for b in shown)
        of_rollouts, of_gold = reduced(accelerator, weights).clamp(min=1e-12).tolist()
        total = torch.zeros(len(STATS), dtype=torch.float64)
        told = 0.0
        for number, batch in enumerate([*rows, *shown]):
            last = number == len(rows) + len(shown) - 1
            accelerator.gradient_state._set_sync_gradients(last)
            hold = nullcontext() if last else accelerator.no_sync(self.loss)
            own = number < len(rows)
            share = ranks / of_rollouts if own else self._gold_weight * ranks / of_gold
            with hold:
                output = self.loss(**self._moved(batch))
                if not bool(output["loss"].isfinite()):
                    raise _diverged("loss", float(output["loss"]), step)
                accelerator.backward(output["loss"] * share)
            if not own:
                told += float(output["loss"].detach()) / of_gold
            elif bool(batch["token_weights"].any()):
                total += output["stats"].double().cpu()
        norm = 0.0
        if self._max_grad_norm:
            parameters = [p for p in self._raw.parameters() if p.requires_grad]
            found = accelerator.clip_grad_norm_(parameters, self._max_grad_norm)
            norm = 0.0 if found is None else float(found)
        if not math.isfinite(norm):
            raise _diverged("gradient's norm", norm, step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if shown:
            told = float(reduced(accelerator, torch.tensor([told], dtype=torch.float64)))
        return total, told, norm

    def _moved(self, batch: Batch) -> Batch:
        device = self._accelerator.device

        def moved(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device)
            return {k: moved(v) for k, v in value.items()} if isinstance(value, dict) else value

        vision = self._raw.vision
        found = {name: moved(value) for name, value in batch.items()}
        if vision is not None and batch["image_count"]:
            found["frame_keys"] = vision.keys(batch["images"])
        return found


def _diverged(what: str, value: float, step: int) -> UserError:
    return UserError(
        f"grpo: the {what} is {value} at step {step}: training has diverged; start again with "
        "another run.dir and a lower train.learning_rate"
    )
