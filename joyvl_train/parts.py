"""What of a model is trained: its parts, LoRA matrices, master weights, a rate for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from joyvl_train.checkpoint import run_device
from joyvl_train.config import TrainConfig, UserError

VISION, PROJECTOR, TEXT = "vision", "projector", "text"
_PROJECTORS = ("merger", "multi_modal_projector", "connector", "modality_projection")
_TOWERS = ("visual", "vision_tower", "vision_model")


def part_of(name: str) -> str:
    """Which part of a vision-language model the parameter `name` belongs to.

    >>> part_of("model.visual.merger.linear_fc1.weight")
    'projector'
    """
    pieces = name.split(".")
    if any(piece.startswith(_PROJECTORS) or piece == "deepstack_merger_list" for piece in pieces):
        return PROJECTOR
    return VISION if any(piece in _TOWERS for piece in pieces) else TEXT


def freeze(model: Any, parts: Sequence[str]) -> None:
    """Keep the named parts as they are; `ValueError` where the model has no such part."""
    present = {part_of(name) for name, _ in model.named_parameters()}
    for part in parts:
        if part not in present:
            raise UserError(f"model.freeze={list(parts)}: this model has no {part} part; drop it")
    for name, parameter in model.named_parameters():
        if part_of(name) in parts:
            parameter.requires_grad_(False)


def with_lora(
    model: Any,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    targets: Sequence[str],
    token_ids: Sequence[int] = (),
    seed: int = 0,
) -> Any:
    """`model` with LoRA matrices on those linear layers of the text model that `targets` names.

    Nothing else of it is then trained, but for the embedding rows (and, where the head has its own,
    the head's rows) of `token_ids`: tokens that the model never saw. The matrices start from
    `seed`. Rank 0: the model as it is.
    """
    if not rank:
        return model
    from peft import LoraConfig, get_peft_model

    names = [
        name
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in targets
        and part_of(name) == TEXT
        and isinstance(module, torch.nn.Linear)
    ]
    if not names:
        raise UserError(
            f"model.lora.targets={list(targets)}: no linear layer of the text model has such a name"
        )
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tables = [embedding] if head.weight is embedding.weight else [embedding, head]
    rows = {name: [*token_ids] for name, module in model.named_modules() if module in tables}
    lora = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # its scale may be any number
        lora_dropout=dropout,
        target_modules=names,
        trainable_token_indices=rows if token_ids else None,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, lora)


def parameter_groups(model: torch.nn.Module, train: TrainConfig) -> list[dict[str, Any]]:
    """AdamW groups: a rate a part, and no decay on vectors (norms, biases)."""
    rates = {
        TEXT: train.learning_rate,
        VISION: train.vision_learning_rate or train.learning_rate,
        PROJECTOR: train.projector_learning_rate or train.learning_rate,
    }
    groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (rates[part_of(name)], parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": params, "lr": rate, "weight_decay": train.weight_decay if decays else 0.0}
        for (rate, decays), params in groups.items()
    ]


def adamw(model: torch.nn.Module, train: TrainConfig) -> torch.optim.AdamW:
    """The optimizer of a run. On a CPU it steps in one pass that takes no memory of its own."""
    fused = run_device().type == "cpu" or None
    return torch.optim.AdamW(
        parameter_groups(model, train), betas=(train.betas[0], train.betas[1]), fused=fused
    )


def arithmetic(precision: str) -> str:
    """`bf16` or `fp32`: what this process computes in, given `train.precision`.

    auto: bf16, except on CPUs without instructions for it, where torch takes 8 to 115 times as long
    for a product of matrices as in float32 (512 x 512, by which of them is transposed).
    """
    if precision != "auto":
        return precision
    return "bf16" if run_device().type != "cpu" or _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    asked = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # a build may lack oneDNN
    return asked is not None and bool(asked())


def use_master_weights(model: torch.nn.Module, precision: str) -> None:
    """Hold what is trained in float32, so that no update is too small for its weight.

    bf16 keeps 8 bits: there an update below 0.2 % of a weight is lost. Frozen weights stay as they
    were loaded, unless the arithmetic itself is float32.
    """
    if arithmetic(precision) == "fp32":
        model.float()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


@contextmanager
def in_bf16(model: torch.nn.Module) -> Iterator[None]:
    """bf16 arithmetic on weights of several types, or of float32 on a GPU, for a while."""
    types = {p.dtype for p in model.parameters()}
    device = next(model.parameters()).device.type
    wanted = len(types) > 1 or (device == "cuda" and torch.float32 in types)
    with torch.autocast(device, torch.bfloat16, enabled=wanted):
        yield
