"""Dense supervision of a vision tower: what stands at each of its tokens.

A small model that learns to see from captions alone stays blind for long: the text tells little of
where to look. Labels of every token's place teach the tower in minutes; the heads that read them
are thrown away afterwards.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from joyvl_train.attention import use_packed
from joyvl_train.checkpoint import Processor, run_device
from joyvl_train.parts import arithmetic

Item = tuple[Image.Image, Any]
"""A frame, and its labels [heads, tokens] as integers."""

_DEEP_SHARE = 0.3
_STATE = "dense.pt"
UNTOLD = -100
"""The label of a token of which nothing is told."""


class _Batches(Dataset[tuple[Tensor, Tensor, Tensor]]):
    def __init__(
        self, item: Callable[[int], Item], processor: Processor, size: int, start: int, stop: int
    ) -> None:
        self._item, self._processor, self._size = item, processor, size
        self._steps = range(start, stop)

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        first = self._steps[index] * self._size
        frames, labels = zip(
            *(self._item(n) for n in range(first, first + self._size)), strict=True
        )
        images = self._processor.images(frames)
        stacked = torch.stack([torch.as_tensor(label) for label in labels])
        return images["pixel_values"], images["image_grid_thw"], stacked


def teach_tower(
    model: Any,
    processor: Processor,
    item: Callable[[int], Item],
    classes: Sequence[int],
    folder: Path,
    *,
    shares: Sequence[float] = (),
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    precision: str = "auto",
    workers: int = 0,
    save_every: int = 250,
    log: Callable[[int, dict[str, float]], None] = lambda step, values: None,
) -> None:
    """Train the vision tower of a Qwen-VL `model` in place; state goes to `folder` and is resumed.

    item(n) gives the n-th frame with labels [len(classes), tokens of a frame]; classes are the
    numbers of labels of each head, label 0 meaning "nothing here", shares the heads' shares of the
    loss (1 each where none are given), precision as `train.precision`. All frames of a batch must
    have the same size; `UNTOLD` labels count for nothing. Logged: dense/loss,
    and the accuracy over what shows something: dense/accuracy of the first head's labels,
    dense/accuracy_rest of all others. With steps=0 nothing is done.
    """
    if not steps:
        return
    use_packed(model)
    device = run_device()
    tower = model.model.visual.to(device)
    width = model.config.vision_config.out_hidden_size
    levels = 1 + len(model.config.vision_config.deepstack_visual_indexes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = nn.ModuleList(nn.Linear(width, sum(classes)) for _ in range(levels)).to(device)
    trained = [*tower.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.02)
    half = arithmetic(precision) == "bf16"
    warmup = min(60, max(1, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            min(1, (step + 1) / warmup)
            * (0.05 + 0.475 * (1 + math.cos(math.pi * min(1, step / steps))))
        ),
    )
    parts = {"tower": tower, "heads": heads, "optimizer": optimizer, "schedule": schedule}
    start = _resume(folder / _STATE, parts)
    batches = DataLoader(
        _Batches(item, processor, batch, start, steps), batch_size=None, num_workers=workers
    )
    bar = tqdm(batches, initial=start, total=steps, desc="vision tower", unit="step")
    for step, found in enumerate(bar, start + 1):
        pixels, grid, labels = (part.to(device) for part in found)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            seen = tower(pixels, grid_thw=grid)
            features = [seen.pooler_output, *seen.deepstack_features]
            loss, right = _loss(heads, features, labels, classes, shares or [1.0] * len(classes))
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps:
            log(step, {"dense/loss": loss.item(), **right})
        if step % save_every == 0 or step == steps:
            _save(folder / _STATE, parts, step)


def taught_steps(folder: Path) -> int:
    """The step that `teach_tower` goes on from in `folder`; 0 where nothing is saved."""
    path = folder / _STATE
    return int(torch.load(path, weights_only=True)["step"]) if path.exists() else 0


def _loss(
    heads: nn.ModuleList,
    features: Sequence[Tensor],
    labels: Tensor,
    classes: Sequence[int],
    shares: Sequence[float],
) -> tuple[Tensor, dict[str, float]]:
    """labels [N, heads, tokens]; features [N * tokens, H] a level, the last layer's first."""
    wanted = labels.transpose(0, 1).flatten(1)
    shown = wanted > 0
    total = features[0].new_zeros((), dtype=torch.float32)
    guesses: list[Tensor] = []
    for level, head in enumerate(heads):
        of_level = 1.0 if level == 0 else _DEEP_SHARE
        for kind, logits in enumerate(head(features[level]).float().split(list(classes), dim=-1)):
            # A mean over none would be no number.
            lost = cross_entropy(logits, wanted[kind], reduction="sum")
            told = (wanted[kind] != UNTOLD).sum().clamp(min=1)
            total = total + of_level * shares[kind] * lost / told
            if level == 0:
                guesses.append(logits.detach().argmax(-1))
    right = torch.stack(guesses) == wanted
    return total, {
        "dense/accuracy": right[0][shown[0]].float().mean().item(),
        "dense/accuracy_rest": right[1:][shown[1:]].float().mean().item(),
    }


def _save(path: Path, parts: dict[str, Any], step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    torch.save({"step": step, **{k: v.state_dict() for k, v in parts.items()}}, temporary)
    os.replace(temporary, path)


def _resume(path: Path, parts: dict[str, Any]) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])
