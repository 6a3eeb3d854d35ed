"""One training run: optimizer, schedule, saving, logging and exact resume around `RowTrainer`."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments

from joyvl_train.checkpoint import Processor
from joyvl_train.collate import PackedRows, Part, RowCollator
from joyvl_train.config import EngineConfig, ModelConfig, TrainConfig, UserError
from joyvl_train.trainer import STATE_FILE, RowState, RowTrainer, WeightedLoss, last_step

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


def with_lora(model: Any, config: ModelConfig) -> Any:
    """`model` with LoRA matrices on the text model's layers, where the config asks for them."""
    if not config.lora.rank:
        return model
    from peft import LoraConfig, get_peft_model

    names = [
        name
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in config.lora.targets
        and part_of(name) == TEXT
        and isinstance(module, torch.nn.Linear)
    ]
    if not names:
        raise UserError(
            f"model.lora.targets={config.lora.targets}: no linear layer of the text model has "
            "such a name"
        )
    return get_peft_model(
        model,
        LoraConfig(
            r=config.lora.rank,
            lora_alpha=int(config.lora.alpha),
            lora_dropout=config.lora.dropout,
            target_modules=names,
            task_type="CAUSAL_LM",
        ),
    )


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


def schedule(train: TrainConfig) -> Callable[[int], float]:
    """The factor on the learning rate at each step: linear warm-up, then the named schedule."""

    def factor(step: int) -> float:
        if step < train.warmup:
            return (step + 1) / train.warmup
        done = min(1.0, (step - train.warmup) / max(1, train.steps - train.warmup))
        if train.schedule == "cosine":
            return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))
        return 1.0 - 0.98 * done if train.schedule == "linear" else 1.0

    return factor


def arguments(
    train: TrainConfig,
    engine: EngineConfig,
    folder: Path,
    *,
    seed: int,
    workers: int,
    checkpointing: bool,
    wandb: bool,
) -> TrainingArguments:
    """transformers' own arguments for this run."""
    bf16 = train.precision in ("auto", "bf16")
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=train.steps,
        per_device_train_batch_size=train.rows_per_step,
        gradient_accumulation_steps=train.accumulation,
        learning_rate=train.learning_rate,
        max_grad_norm=train.max_grad_norm,
        adam_beta1=train.betas[0],
        adam_beta2=train.betas[1],
        weight_decay=train.weight_decay,
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        data_seed=seed,
        logging_steps=train.log_every,
        save_strategy="steps" if train.save_every else "no",
        save_steps=train.save_every or 1,
        save_total_limit=2,
        eval_strategy="no",
        report_to=["wandb"] if wandb else [],
        remove_unused_columns=False,
        label_names=["targets"],
        dataloader_num_workers=workers,
        dataloader_prefetch_factor=2 if workers else None,
        dataloader_pin_memory=torch.cuda.is_available(),
        gradient_checkpointing=checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None,
        ignore_data_skip=True,
        accelerator_config={"dispatch_batches": False, "split_batches": False},
        deepspeed=dict(engine.deepspeed) or None,
        ddp_find_unused_parameters=False,
        disable_tqdm=False,
    )


class Watch(TrainerCallback):
    """Passes each logged step on, validates now and then, and ends the run at its time limit."""

    def __init__(
        self,
        log: Callable[[Mapping[str, Any]], None],
        *,
        minutes: float,
        validate: Callable[[int], Mapping[str, float]] | None,
        every: int,
    ) -> None:
        self._log = log
        self._minutes = minutes
        self._validate = validate
        self._every = every
        self._started = time.monotonic()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """One line of the run's log for each logged step."""
        if state.is_world_process_zero and logs and "loss" in logs:
            names = {"loss": "train/loss", "grad_norm": "train/grad_norm"}
            names["learning_rate"] = "train/learning_rate"
            values = {names[k]: float(v) for k, v in logs.items() if k in names}
            self._log({"step": state.global_step, **values})

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Validation, and the time limit."""
        step = state.global_step
        if self._validate and self._every and step % self._every == 0 and step < args.max_steps:
            values = self._validate(step)
            if state.is_world_process_zero:
                self._log({"step": step, **values})
        if self._minutes and time.monotonic() - self._started > 60 * self._minutes:
            control.should_training_stop = True
            control.should_save = bool(args.save_strategy != "no")


def fit(
    model: Any,
    processor: Processor,
    parts: Sequence[Part],
    train: TrainConfig,
    engine: EngineConfig,
    folder: Path,
    *,
    seed: int,
    workers: int = 0,
    checkpointing: bool = False,
    log: Callable[[Mapping[str, Any]], None] = lambda line: None,
    validate: Callable[[int], Mapping[str, float]] | None = None,
    wandb: bool = False,
) -> dict[str, float]:
    """Train `model` in place on the mixed `parts`; saved steps go to `folder` and are resumed from.

    Returns train/seconds, train/steps, train/tokens (of this call), train/peak_memory_bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    resumed = last_step(folder)
    state = None
    if resumed is not None:
        import json

        state = json.loads((resumed / STATE_FILE).read_text())
    rows = PackedRows(parts, row_tokens=train.row_tokens, seed=seed, pack=train.pack, state=state)
    args = arguments(
        train,
        engine,
        folder,
        seed=seed,
        workers=workers,
        checkpointing=checkpointing,
        wandb=wandb,
    )
    loss = WeightedLoss(model)
    optimizers: tuple[Any, Any] = (None, None)
    if not engine.deepspeed:
        optimizer = torch.optim.AdamW(
            parameter_groups(loss, train), betas=(train.betas[0], train.betas[1])
        )
        optimizers = (optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(train)))
    keeper = RowState()
    watch = Watch(log, minutes=train.minutes, validate=validate, every=train.eval_every)
    trainer = RowTrainer(
        loss,
        args,
        rows=rows,
        collator=RowCollator(parts),
        processor=processor,
        callbacks=[keeper, watch],
        optimizers=optimizers,
    )
    keeper.trainer = trainer
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    return {
        "train/seconds": time.monotonic() - started,
        "train/steps": float(trainer.state.global_step),
        "train/tokens": float(trainer.tokens_seen),
        "train/peak_memory_bytes": float(peak_memory()),
    }


def peak_memory() -> int:
    """The most memory held so far, in bytes: on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
