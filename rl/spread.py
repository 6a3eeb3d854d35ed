"""A policy over processes: accelerate, DeepSpeed, and whole copies of what ranks hold in parts."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.state import AcceleratorState  # type: ignore[import-untyped]
from accelerate.utils import DeepSpeedPlugin  # type: ignore[import-untyped]
from torch import Tensor

from joyvl_train.config import EngineConfig, TrainConfig
from joyvl_train.frozen_vision import FrozenVision, is_frozen
from joyvl_train.model_weights import plain_model
from joyvl_train.parts import arithmetic
from joyvl_train.ranks import of_all

_FEATURE_BYTES = 2 << 30


def kept_vision(model: Any, spread: bool) -> FrozenVision | None:
    """The kept features of a tower that is not trained."""
    plain = plain_model(model)
    return FrozenVision(plain, _FEATURE_BYTES) if is_frozen(plain) and not spread else None


def accelerator_of(train: TrainConfig, engine: EngineConfig) -> Accelerator:
    """What spreads this run over its processes."""
    # It warns, each time, that weights under two names are saved once.
    logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)
    plugin = None
    if engine.deepspeed:
        filled = copy.deepcopy(engine.deepspeed)
        filled |= {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}
        filled["gradient_clipping"] = train.max_grad_norm or 0.0
        plugin = DeepSpeedPlugin(hf_ds_config=filled)
    # A process may hold the state of an earlier run, of another precision; Trainer forgets it, too.
    AcceleratorState._reset_state(reset_partial_state=True)
    half = arithmetic(train.precision) == "bf16"
    return Accelerator(
        mixed_precision="bf16" if half else "no",
        cpu=not torch.cuda.is_available(),
        deepspeed_plugin=plugin,
    )


def gathered(values: list[Any]) -> list[Any]:
    """All ranks' lists as one, rank by rank. Collective."""
    return [value for of_rank in of_all(values) for value in of_rank]


def reduced(accelerator: Accelerator, value: Tensor) -> Tensor:
    """The sum of all ranks' values, on the CPU. Collective."""
    if accelerator.num_processes == 1:
        return value
    moved = value.to(accelerator.device)
    dist.all_reduce(moved)
    return moved.cpu()


@torch.no_grad()
def synchronize(source: Any, target: Any) -> None:
    """Gives `target` the weights of `source`, of which each rank holds a part."""
    import deepspeed

    for (_, whole), (_, part) in zip(
        target.named_parameters(), source.named_parameters(), strict=True
    ):
        with deepspeed.zero.GatheredParameters([part]):
            whole.copy_(part)
