"""One training run: optimizer, schedule, saving, logging and exact resume around `RowTrainer`."""

from __future__ import annotations

import copy
import io
import logging
import math
import os
import resource
import shutil
import socket
import sys
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers
from tqdm import tqdm
from transformers import TrainerCallback, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from joyvl_train.checkpoint import run_device
from joyvl_train.collate import PackedRows, Part, RowCollator
from joyvl_train.config import EngineConfig, TrainConfig, UserError
from joyvl_train.frozen_vision import FeatureFiles, FrozenVision, is_frozen
from joyvl_train.marks import Marks
from joyvl_train.model_weights import load_weights, plain_model
from joyvl_train.parts import (
    adamw,
    arithmetic,
    freeze,
    in_bf16,
    parameter_groups,
    part_of,
    use_master_weights,
    with_lora,
)
from joyvl_train.ranks import is_first, wait_for_all
from joyvl_train.saved_steps import drop_partial, last_step, read_state, write_state
from joyvl_train.trainer import RowTrainer, WeightedLoss

__all__ = [
    "fit",
    "freeze",
    "adamw",
    "parameter_groups",
    "part_of",
    "prepare_engine",
    "schedule",
    "wandb_lines",
    "with_lora",
]

_FEATURE_BYTES = 2 << 30
_FEATURES = "vision"
"""Folder of the features that a run keeps for itself."""


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


def schedule(
    train: TrainConfig, share: Callable[[], float] = lambda: 0.0
) -> Callable[[int], float]:
    """The factor on the learning rate at each step: linear warm-up, then the named schedule.

    It is run through by steps, or by `share`, how much of train.minutes is over, where that is
    further: the rate is at its lowest when training ends, whichever ends it.
    """

    def factor(step: int) -> float:
        if step < train.warmup:
            return (step + 1) / train.warmup
        done = max(share(), (step - train.warmup) / max(1, train.steps - train.warmup))
        done = min(1.0, done)
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
    found = TrainingArguments(
        output_dir=str(folder),
        max_steps=train.steps or 1,  # Trainer takes no 0; such a run doesn't begin to train
        per_device_train_batch_size=train.rows_per_step,
        gradient_accumulation_steps=train.accumulation,
        learning_rate=train.learning_rate,
        max_grad_norm=train.max_grad_norm,
        adam_beta1=train.betas[0],
        adam_beta2=train.betas[1],
        weight_decay=train.weight_decay,
        bf16=arithmetic(train.precision) == "bf16",
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
        # Written into the checkpoint's config, where it is generation's default.
        use_cache=True,
    )
    if found.n_gpu > 1:
        # One process drives one GPU; Trainer would split each packed row over all of them.
        found._n_gpu = 1
    return found


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
        left_out: Mapping[str, int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.trainer: RowTrainer | None = None
        self.share = resumed.get("share", 0.0) if resumed else 0.0
        """How much of the time limit was over at the end of the last step, on every rank alike."""
        self._log = log
        self._resumed = resumed
        self._minutes = minutes
        self._validate = validate
        self._every = every
        self._left_out = left_out
        self._clock = clock
        self._started = clock()
        self._stopped = False
        self._bar: Any = None
        self._loss = ""

    @property
    def seconds(self) -> float:
        """Spent on training so far, in earlier starts of the run too."""
        before: float = self._resumed["seconds"] if self._resumed else 0.0
        return before + self._clock() - self._started

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

    def close(self) -> None:
        """Ends the line of the progress bar, however training ended."""
        if self._bar is not None:
            self._bar.close()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """One line of the run's log for each logged step."""
        assert self.trainer is not None
        left_out = self.left_out(self.trainer.left_out_of_all())
        marked = self.trainer.marks_of_all() if logs and "loss" in logs else {}
        if state.is_world_process_zero and logs and "loss" in logs:
            names = {"loss": "train/loss", "grad_norm": "train/grad_norm"}
            names["learning_rate"] = "train/learning_rate"
            values = {names[k]: float(v) for k, v in logs.items() if k in names}
            told = left_out if left_out["train/left_out"] else {}
            self._log({"step": state.global_step, **values, **told, **marked})
            self._bar.set_postfix_str(f"loss {logs['loss']:.4f}", refresh=False)
            for name, value in values.items():
                if not math.isfinite(value):
                    raise UserError(
                        f"{name} is {value} at step {state.global_step}: training has diverged; "
                        "start again with another run.dir and a lower train.learning_rate"
                    )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Validation, and the time limit."""
        self._bar.update(1)
        # What is logged is looked at, and no step is kept that diverged.
        control.should_log = control.should_log or control.should_save
        step = state.global_step
        validated = bool(self._every) and (step % self._every == 0 or step == args.max_steps)
        if validated:
            self._validated(state)
        if self._minutes:
            self.share = self._of_first(self.seconds / (60 * self._minutes))
        if self.share >= 1:
            if self._every and not validated:
                self._validated(state)
            self._stopped = True
            control.should_training_stop = True
            control.should_log = True
            control.should_save = bool(args.save_strategy != "no")

    def _validated(self, state: Any) -> None:
        if self._validate:
            values = self._validate(state.global_step)
            if state.is_world_process_zero:
                self._log({"step": state.global_step, **values})

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Marks the step as whole. Every rank has written its part when `position` returns."""
        assert self.trainer is not None
        position = self.trainer.position()
        if state.is_world_process_zero:
            done = self._stopped or state.global_step >= args.max_steps
            tokens, left_out = sum(position["tokens"]), position["left_out"]
            figures = self.figures(state.global_step, tokens, left_out)
            whole = {
                "position": position,
                "seconds": self.seconds,
                "share": self.share,
                "figures": figures if done else None,
            }
            write_state(Path(args.output_dir) / f"checkpoint-{state.global_step}", whole)
        wait_for_all()

    def left_out(self, broken: Mapping[str, str]) -> dict[str, float]:
        """How many samples are left out, and for which reasons: before training, and `broken`."""
        counts = Counter(self._left_out) + Counter(broken.values())
        each = {
            f"train/left_out/{why.replace(' ', '_')}": float(n) for why, n in sorted(counts.items())
        }
        return {"train/left_out": float(counts.total()), **each}

    def figures(self, step: int, tokens: int, broken: Mapping[str, str]) -> dict[str, float]:
        """The run's training figures."""
        return {
            "train/seconds": self.seconds,
            "train/steps": float(step),
            "train/tokens": float(tokens),
            "train/peak_memory_bytes": float(peak_memory()),
            **self.left_out(broken),
        }

    @staticmethod
    def _of_first(here: float) -> float:
        """The first rank's word: clocks differ, and all ranks must stop at one step."""
        if not dist.is_initialized():
            return here
        word = torch.tensor(here, dtype=torch.float64, device=run_device())
        dist.broadcast(word, 0)
        return float(word.item())


def fit(
    model: Any,
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
    marks: float = 0.0,
    mark_fields: Sequence[int] = (),
    wandb: str | bool = False,
    left_out: Mapping[str, int] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, float]:
    """Train `model` in place on the mixed `parts`; saved steps go to `folder` and are resumed from.

    What is trained is held in float32 from here on, whatever it was loaded in, and computed with in
    `arithmetic(train.precision)`. Under bf16 DeepSpeed keeps float32 copies itself and leaves the
    model in bf16.

    What `log` was given after `resumed_step(folder)` is given again. A run that is complete is
    loaded and its figures are returned as they were. reuse_vision: keep the features of a frozen
    vision tower; None: wherever the tower and the projector are frozen. wandb: `offline`, `online`.
    marks: the share of the loss of marks (`joyvl_train.marks`); 0: they are not read. mark_fields:
    the classes of their labels. clock: tells the seconds that train.minutes bounds.

    left_out: reason -> count of the samples that are no part of `parts`; broken ones are added.

    Returns train/seconds, train/steps, train/tokens, train/peak_memory_bytes (of this process),
    train/left_out and train/left_out/<reason>.
    """
    prepare_engine(engine)
    if is_first():
        folder.mkdir(parents=True, exist_ok=True)
        drop_partial(folder)
    wait_for_all()
    if not engine.deepspeed or arithmetic(train.precision) == "fp32":
        use_master_weights(model, train.precision)
    resumed = last_step(folder)
    state = read_state(resumed) if resumed else None
    if resumed and state and state["figures"]:
        load_weights(model, resumed)
        _drop_features(folder)
        return dict(state["figures"])
    rows = PackedRows(
        parts,
        row_tokens=train.row_tokens,
        seed=seed,
        pack=train.pack,
        state=state["position"]["rows"] if state else None,
    )
    args = arguments(train, engine, folder, seed=seed, workers=workers, checkpointing=checkpointing)
    kept = Path(train.vision_cache) if train.vision_cache else folder / _FEATURES
    vision = _vision(model, engine, reuse_vision, kept, int(train.vision_cache_gib * 2**30))
    marked = Marks(model, marks, mark_fields) if marks else None
    loss = WeightedLoss(model, vision=vision, marks=marked, in_step=_partitioned(engine))
    with wandb_lines(wandb, folder) as tell:

        def line(values: Mapping[str, Any]) -> None:
            log(values)
            tell(values)

        def scored(step: int) -> Mapping[str, float]:
            assert validate is not None
            with in_bf16(model) if arithmetic(train.precision) == "bf16" else nullcontext():
                return validate(step)

        watch = Watch(
            line,
            resumed=state,
            minutes=train.minutes,
            validate=scored if validate else None,
            every=train.eval_every,
            left_out=left_out or {},
            clock=clock,
        )
        trainer = RowTrainer(
            loss,
            args,
            rows=rows,
            collator=RowCollator(parts),
            optimizer=lambda module: adamw(module, train),
            schedule=schedule(train, lambda: watch.share),
            callbacks=[watch],
        )
        watch.trainer = trainer
        try:
            if train.steps:
                trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        finally:
            watch.close()
    # Models loaded from here on are loaded as ever, not spread over the ranks.
    unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
    wait_for_all()
    _drop_features(folder)
    saved = last_step(folder)
    figures: dict[str, float] | None = read_state(saved)["figures"] if saved else None
    if figures:
        return figures
    tokens, broken = trainer.tokens_of_all(), trainer.left_out_of_all()
    return watch.figures(trainer.state.global_step, tokens, broken)


def _partitioned(engine: EngineConfig) -> bool:
    """Whether ranks hold a part of each weight (ZeRO-3), so that they must call modules in step."""
    stage: object = engine.deepspeed.get("zero_optimization", {}).get("stage")
    return stage == 3


def _vision(
    model: Any, engine: EngineConfig, wanted: bool | None, folder: Path, space: int
) -> FrozenVision | None:
    """The kept features of a frozen tower; under ZeRO-3 ranks must call the tower in step."""
    plain = plain_model(model)
    spread = _partitioned(engine)
    if wanted and spread:
        raise UserError("vision features can't be reused under engine=zero3; use zero2 or ddp")
    if wanted is None:
        wanted = is_frozen(plain) and not spread
    if not wanted:
        return None
    return FrozenVision(plain, _FEATURE_BYTES, FeatureFiles(folder, space) if space else None)


def _drop_features(folder: Path) -> None:
    """Nobody needs the run's own features once it is trained."""
    if is_first():
        shutil.rmtree(folder / _FEATURES, ignore_errors=True)


@contextmanager
def wandb_lines(mode: str | bool, folder: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Tells Weights & Biases each line; `offline` needs no network and writes beside `folder`,
    which keeps the name of the run for when it goes on."""
    if mode in (False, "off", "") or not is_first():
        yield lambda line: None
        return
    try:
        import wandb
    except ImportError as error:
        raise UserError("run.wandb needs wandb: pip install 'joyvl[wandb]'") from error
    folder.mkdir(parents=True, exist_ok=True)
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
