"""One training run: optimizer, schedule, saving, logging and exact resume around `RowTrainer`."""

from __future__ import annotations

import copy
import io
import logging
import math
import os
import resource
import socket
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers
from tqdm import tqdm
from transformers import TrainerCallback, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from joyvl_train.checkpoint import Processor
from joyvl_train.collate import PackedRows, Part, RowCollator
from joyvl_train.config import EngineConfig, ModelConfig, TrainConfig, UserError
from joyvl_train.frozen_vision import FrozenVision, can_reuse
from joyvl_train.trainer import (
    RowTrainer,
    WeightedLoss,
    drop_partial,
    is_first,
    last_step,
    load_weights,
    read_state,
    resumed_step,
    wait_for_all,
    write_state,
)

__all__ = ["fit", "freeze", "prepare_engine", "resumed_step", "schedule", "with_lora"]

VISION, PROJECTOR, TEXT = "vision", "projector", "text"
_PROJECTORS = ("merger", "multi_modal_projector", "connector", "modality_projection")
_TOWERS = ("visual", "vision_tower", "vision_model")
_FEATURE_BYTES = 2 << 30


def prepare_engine(engine: EngineConfig) -> None:
    """Joins the other ranks and quiets the libraries; to be called before any model is loaded.

    Under ZeRO-3 each rank loads the model whole, into host memory; `fit` then spreads it.
    """
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        # accelerate imports DeepSpeed where it is installed, which then looks for accelerators.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if not engine.deepspeed and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        os.environ.update(alone, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if engine.deepspeed:
        _prepare_deepspeed(engine, on_gpu)
    elif not dist.is_initialized():
        dist.init_process_group("nccl" if on_gpu else "gloo")


def _prepare_deepspeed(engine: EngineConfig, on_gpu: bool) -> None:
    try:
        import deepspeed
    except ImportError as error:
        raise UserError(
            "engine=zero2 and engine=zero3 need DeepSpeed: pip install 'joyvl[deepspeed]'"
        ) from error
    deepspeed.utils.logger.setLevel(logging.ERROR)
    if not dist.is_initialized():
        with redirect_stdout(io.StringIO()):  # it tells of each kernel that it builds
            deepspeed.init_distributed("nccl" if on_gpu else "gloo", auto_mpi_discovery=False)


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


def with_lora(model: Any, config: ModelConfig, seed: int = 0) -> Any:
    """`model` with LoRA matrices on the text model's layers, where the config asks for them.

    Nothing else of it is then trained. The matrices start from `seed`.
    """
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
    lora = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,  # type: ignore[arg-type]  # its scale may be any number
        lora_dropout=config.lora.dropout,
        target_modules=names,
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
) -> TrainingArguments:
    """transformers' own arguments for this run."""
    on_gpu = torch.cuda.is_available()
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
        bf16=train.precision in ("auto", "bf16"),
        use_cpu=not on_gpu,
        seed=seed,
        data_seed=seed,
        logging_steps=train.log_every,
        # An infinite loss must be seen, not replaced by the mean of those before.
        logging_nan_inf_filter=False,
        save_strategy="steps" if train.save_every else "no",
        save_steps=train.save_every or 1,
        save_total_limit=2,
        eval_strategy="no",
        report_to=[],
        remove_unused_columns=False,
        label_names=["targets"],
        dataloader_num_workers=workers,
        dataloader_prefetch_factor=2 if workers else None,
        dataloader_pin_memory=on_gpu,
        gradient_checkpointing=checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None,
        ignore_data_skip=True,
        deepspeed=copy.deepcopy(engine.deepspeed) or None,
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
    )


class Watch(TrainerCallback):
    """Passes logged steps on, validates, marks saved steps as whole, ends at the time limit."""

    def __init__(
        self,
        log: Callable[[Mapping[str, Any]], None],
        *,
        resumed: Mapping[str, Any] | None,
        minutes: float,
        validate: Callable[[int], Mapping[str, float]] | None,
        every: int,
    ) -> None:
        self.trainer: RowTrainer | None = None
        self._log = log
        self._resumed = resumed
        self._minutes = minutes
        self._validate = validate
        self._every = every
        self._started = time.monotonic()
        self._stopped = False
        self._bar: Any = None
        self._loss = ""

    @property
    def seconds(self) -> float:
        """Spent on training so far, in earlier starts of the run too."""
        before: float = self._resumed["seconds"] if self._resumed else 0.0
        return before + time.monotonic() - self._started

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Takes up where the resumed step stood, and opens the progress bar."""
        assert self.trainer is not None
        if self._resumed:
            self.trainer.go_on_from(self._resumed["position"])
        # Where nobody watches, a line a minute is enough.
        self._bar = tqdm(
            total=args.max_steps,
            initial=state.global_step,
            desc="training",
            unit="step",
            mininterval=0.5 if sys.stderr.isatty() else 60,
            disable=not state.is_world_process_zero,
        )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Closes the progress bar."""
        self._bar.close()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """One line of the run's log for each logged step."""
        if state.is_world_process_zero and logs and "loss" in logs:
            names = {"loss": "train/loss", "grad_norm": "train/grad_norm"}
            names["learning_rate"] = "train/learning_rate"
            values = {names[k]: float(v) for k, v in logs.items() if k in names}
            self._log({"step": state.global_step, **values})
            self._bar.set_postfix_str(f"loss {logs['loss']:.4f}", refresh=False)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Validation, and the time limit."""
        self._bar.update(1)
        step = state.global_step
        if self._validate and self._every and step % self._every == 0 and step < args.max_steps:
            values = self._validate(step)
            if state.is_world_process_zero:
                self._log({"step": step, **values})
        if self._minutes and self._decided(self.seconds >= 60 * self._minutes):
            self._stopped = True
            control.should_training_stop = True
            control.should_log = True
            control.should_save = bool(args.save_strategy != "no")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Marks the step as whole. Every rank has written its part when `position` returns."""
        assert self.trainer is not None
        position = self.trainer.position()
        if state.is_world_process_zero:
            done = self._stopped or state.global_step >= args.max_steps
            figures = self.figures(state.global_step, sum(position["tokens"]))
            whole = {
                "position": position,
                "seconds": self.seconds,
                "figures": figures if done else None,
            }
            write_state(Path(args.output_dir) / f"checkpoint-{state.global_step}", whole)
        wait_for_all()

    def figures(self, step: int, tokens: int) -> dict[str, float]:
        """The run's training figures."""
        return {
            "train/seconds": self.seconds,
            "train/steps": float(step),
            "train/tokens": float(tokens),
            "train/peak_memory_bytes": float(peak_memory()),
        }

    @staticmethod
    def _decided(here: bool) -> bool:
        """The first rank's word: clocks differ, and all ranks must stop at one step."""
        if not dist.is_initialized():
            return here
        word = torch.tensor(float(here), device="cuda" if torch.cuda.is_available() else "cpu")
        dist.broadcast(word, 0)
        return bool(word.item())


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
    reuse_vision: bool | None = None,
    wandb: str | bool = False,
) -> dict[str, float]:
    """Train `model` in place on the mixed `parts`; saved steps go to `folder` and are resumed from.

    What `log` was given after `resumed_step(folder)` is given again. A run that is complete is
    loaded and its figures are returned as they were. reuse_vision: keep the features of a frozen
    vision tower; None: wherever the tower and the projector are frozen. wandb: `offline`, `online`.

    Returns train/seconds, train/steps, train/tokens, train/peak_memory_bytes (of this process).
    """
    prepare_engine(engine)
    if is_first():
        folder.mkdir(parents=True, exist_ok=True)
        drop_partial(folder)
    wait_for_all()
    resumed = last_step(folder)
    state = read_state(resumed) if resumed else None
    if resumed and state and state["figures"]:
        load_weights(model, resumed)
        return dict(state["figures"])
    rows = PackedRows(
        parts,
        row_tokens=train.row_tokens,
        seed=seed,
        pack=train.pack,
        state=state["position"]["rows"] if state else None,
    )
    args = arguments(train, engine, folder, seed=seed, workers=workers, checkpointing=checkpointing)
    loss = WeightedLoss(model, vision=_vision(model, engine, reuse_vision))
    with _wandb(wandb, folder) as tell:

        def line(values: Mapping[str, Any]) -> None:
            log(values)
            tell(values)

        watch = Watch(
            line, resumed=state, minutes=train.minutes, validate=validate, every=train.eval_every
        )
        trainer = RowTrainer(
            loss,
            args,
            rows=rows,
            collator=RowCollator(parts),
            processor=processor,
            optimizer=lambda module: torch.optim.AdamW(
                parameter_groups(module, train), betas=(train.betas[0], train.betas[1])
            ),
            schedule=schedule(train),
            callbacks=[watch],
        )
        watch.trainer = trainer
        if train.steps:
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    # Models loaded from here on are loaded as ever, not spread over the ranks.
    unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
    saved = last_step(folder)
    figures: dict[str, float] | None = read_state(saved)["figures"] if saved else None
    return figures or watch.figures(trainer.state.global_step, trainer.tokens_of_all())


def _vision(model: Any, engine: EngineConfig, wanted: bool | None) -> FrozenVision | None:
    """The kept features of a frozen tower; under ZeRO-3 ranks must call the tower in step."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    spread = engine.deepspeed.get("zero_optimization", {}).get("stage") == 3
    if wanted and spread:
        raise UserError("vision features can't be reused under engine=zero3; use zero2 or ddp")
    if wanted is None:
        wanted = can_reuse(plain) and not spread
        wanted = wanted and not any(p.requires_grad for p in plain.model.visual.parameters())
    return FrozenVision(plain, _FEATURE_BYTES) if wanted else None


@contextmanager
def _wandb(mode: str | bool, folder: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Tells Weights & Biases each line; `offline` needs no network and writes beside `folder`."""
    if mode in (False, "off", "") or not is_first():
        yield lambda line: None
        return
    try:
        import wandb
    except ImportError as error:
        raise UserError("run.wandb needs wandb: pip install 'joyvl[wandb]'") from error
    note = folder / "wandb_id"
    name = note.read_text() if note.exists() else uuid.uuid4().hex[:12]
    note.write_text(name)
    online = mode != "offline"
    run = wandb.init(
        project="joyvl",
        dir=str(folder.parent),
        id=name,
        resume="allow" if online else None,
        mode="online" if online else "offline",
        settings=wandb.Settings(silent=True, console="off"),
    )
    try:
        yield lambda line: run.log({k: v for k, v in line.items() if k != "step"}, line["step"])
    finally:
        run.finish()


def peak_memory() -> int:
    """The most memory held so far, in bytes: on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
