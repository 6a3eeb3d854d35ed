"""A step's gradient on rollouts: what those of a window share computed once, and for each anew.

    python benchmarks/shared_rows.py [--checkpoint DIR] [--windows 8] [--sizes 6 24] [--out FILE]

Both take the same rollouts of the same windows, drawn and compared as recipe=grpo does, through
forward and backward of the policy's loss with the vision tower frozen, in packed rows; rounds are
taken in turn, each with another step's windows, and the ratio is the median of theirs. How far the
two gradients lie apart stands beside it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.result_page import keep, page, row, versions
from benchmarks.rollouts import LIMIT, TEMPERATURE, opened
from joyvl_train.branching import BranchingEngine
from joyvl_train.checkpoint import load_for_inference
from joyvl_train.collate import Batch
from joyvl_train.parts import freeze
from joyvl_train.rendering import Renderer
from joyvl_train.trainer import generating
from rl.advantages import Advantages
from rl.groups import Group, judged
from rl.passes import rows_of
from rl.policy_loss import Policy, PolicyLoss
from rl.rewards import WEIGHTS
from rl.rollout import roll
from rl.spread import kept_vision

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "shared_rows.md"


def groups(
    model: Any, renderer: Renderer, windows: int, group: int, before: int, side: int, step: int
) -> list[Group]:
    """The groups of a step that teach something."""
    drawn = opened(renderer, windows, before, side, step)
    with generating(model) as plain:
        engine = BranchingEngine(
            plain, renderer, max_new_tokens=LIMIT, temperature=TEMPERATURE, details=True
        )
        rolled = roll(engine, drawn, group, step=step)
    pairs = zip(drawn, rolled, strict=True)
    every = [judged(each.window, own, WEIGHTS, Advantages()) for each, own in pairs if own]
    return [each for each in every if each.advantages is not None]


def gradient(loss: PolicyLoss, rows: Sequence[Batch]) -> tuple[float, torch.Tensor]:
    """(seconds, the whole gradient as one vector)."""
    loss.zero_grad(set_to_none=True)
    begun = time.perf_counter()
    for batch in rows:
        keys = {}
        if loss.vision is not None and batch["image_count"]:
            keys = {"frame_keys": loss.vision.keys(batch["images"])}
        loss(**batch, **keys)["loss"].backward()
    seconds = time.perf_counter() - begun
    found = [p.grad.flatten() for p in loss.parameters() if p.grad is not None]
    return seconds, torch.cat(found)


def measure(given: argparse.Namespace) -> str:
    torch.manual_seed(0)
    model, processor = load_for_inference(given.checkpoint)
    renderer = Renderer(processor)
    freeze(model, ["vision", "projector"])
    lines = [row(head := ["windows", "rows", "sequences", "tokens", "seconds", "times as fast"])]
    lines.append(row(["---"] * len(head)))
    apart = 0.0
    for size in given.sizes:
        ratios: list[float] = []
        times: dict[bool, list[float]] = {True: [], False: []}
        tokens = dict.fromkeys(times, 0)
        count = 0
        for step in range(given.rounds):
            own = groups(model, renderer, given.windows, given.group, size, given.side, step)
            loss = PolicyLoss(model, Policy(), vision=kept_vision(model, False))
            gradients = {}
            for share in (False, True):
                options: dict[str, Any] = {"room": given.row_tokens, "aggregate": "tokens"}
                rows, _ = rows_of(own, renderer, share=share, **options)
                seconds, gradients[share] = gradient(loss, rows)
                times[share].append(seconds)
                tokens[share] += sum(batch["input_ids"].numel() for batch in rows)
                count += 0 if share else sum(int(b["sequences"].max()) + 1 for b in rows)
            ratios.append(times[False][-1] / times[True][-1])
            away = (gradients[True] - gradients[False]).norm() / gradients[False].norm()
            apart = max(apart, float(away))
        for share, name in ((False, "each sequence whole"), (True, "what is shared once")):
            cells = [f"{size} + 5 s", name, str(count), str(tokens[share])]
            faster = statistics.median(ratios) if share else 1.0
            lines.append(row([*cells, f"{sum(times[share]):.1f}", f"{faster:.2f}"]))
    device = str(next(model.parameters()).device)
    note = [
        f"{given.windows} windows with {given.group} rollouts each, {given.rounds} rounds, on",
        f"{device}; sequences that say and earn the same are one in both. The gradients differ by",
        f"at most {apart:.1e} of their norm.",
    ]
    listed = " ".join(map(str, given.sizes))
    command = (
        f"shared_rows.py --checkpoint CHECKPOINT --windows {given.windows} --group {given.group} "
        f"--sizes {listed} --rounds {given.rounds} --side {given.side}"
    )
    title = "A step's gradient on rollouts that share what they begin with"
    return page(title, command, versions("torch", "transformers"), lines, note)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", default=str(ROOT / "models" / "tiny"))
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="+", default=[6, 24])
    parser.add_argument("--side", type=int, default=96, help="of frames, in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--row-tokens", type=int, default=4096)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    keep(given.out, measure(given))
    return 0


if __name__ == "__main__":
    sys.exit(main())
