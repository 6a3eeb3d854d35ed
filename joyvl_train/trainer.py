"""`transformers.Trainer` with the weighted token loss over packed rows.

The loss is sum(weight * cross entropy) over the supervised tokens of the whole global batch (ranks
and accumulation steps included), divided by that batch's one denominator (`LossWeights`), so that
how samples are spread over rows, steps and ranks does not move it. The loss of marks, where there
are some, is added to it; that is a mean of each row, and does hang on what rows hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from joyvl_train import attention
from joyvl_train.checkpoint import run_device
from joyvl_train.collate import Batch, PackedRows, Row, RowCollator, model_inputs
from joyvl_train.config import UserError
from joyvl_train.frozen_vision import FrozenVision
from joyvl_train.head import pieces, score
from joyvl_train.marks import UNKNOWN, Marks
from joyvl_train.model_weights import load_weights, plain_model
from joyvl_train.parts import TEXT, part_of

_MARKS_FILE = "marks.pt"


class WeightedLoss(nn.Module):
    """A model together with its loss, as one module, so that DDP, DeepSpeed and hooks see it all.

    Logits are computed at the scored positions only, and never held whole (`head.score`). `vision`
    keeps the features of a frozen tower. `marks` adds the loss of a batch's marks, where it has
    some. packed: attention keeps a row's samples apart by their lengths; False where the model's
    architecture can't. in_step: all ranks call every part of the model equally often, whatever
    their rows hold, as ZeRO-3's partitioned weights need.
    """

    def __init__(
        self,
        model: Any,
        *,
        packed: bool = True,
        vision: FrozenVision | None = None,
        marks: Marks | None = None,
        in_step: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self.vision = vision
        self.marks = marks
        self._vocabulary = plain_model(model).config.get_text_config().vocab_size
        self._in_step = in_step and dist.is_initialized() and dist.get_world_size() > 1
        self.packed = packed and attention.use_packed(plain_model(model))

    def forward(self, **batch: Any) -> dict[str, Tensor]:
        """loss: the weighted sum (not the mean), for `RowTrainer` to divide; correct: [K] bools."""
        count = (
            self._agreed(batch)
            if self._in_step
            else pieces(len(batch["targets"]), self._vocabulary)
        )
        hidden = self.hidden(batch)
        head = plain_model(self.model).get_output_embeddings()
        loss, correct = score(head, hidden, batch["targets"], batch["weights"], count)
        if not batch["image_count"] and not self._in_step:
            loss = loss + self._untouched()
        if self.marks is not None:
            # Ranks wait for the head's gradients, of a batch without marks as well.
            marks = batch.get("marks", torch.full_like(batch["input_ids"], UNKNOWN)[..., None])
            share = self.marks.share * batch["denominator"].float()
            loss = loss + share * self.marks(marks)
        return {"loss": loss, "correct": correct}

    def _agreed(self, batch: Batch) -> int:
        """In how many pieces the head sees each rank's positions. `UserError` on all ranks where
        some of them would call the tower and others not."""
        seen = bool(batch["image_count"])
        own = [pieces(len(batch["targets"]), self._vocabulary), seen, not seen]
        most = torch.tensor(own, device=run_device())
        dist.all_reduce(most, dist.ReduceOp.MAX)
        count, some, others = most.tolist()
        if some and others:
            raise UserError(
                "the row of one rank holds pictures and that of another none, which engine=zero3 "
                "can't train: ranks must call the tower together; use engine=zero2 or ddp"
            )
        return int(count)

    def _untouched(self) -> Tensor | float:
        """0, on which the vision tower hangs: ranks whose rows have pictures wait for its gradients
        from the one whose row has none."""
        seeing = (p for n, p in self.model.named_parameters() if part_of(n) != TEXT)
        return sum((p.sum() * 0.0 for p in seeing if p.requires_grad), 0.0)

    def hidden(self, batch: Mapping[str, Any]) -> Tensor:
        """The last hidden states [K, H] at the scored positions of `batch`.

        Its `trees`, where it has them, are of its samples, `sample_lengths` their tokens.
        """
        inputs = model_inputs(dict(batch))
        extra: dict[str, Any] = {"sample_lengths": batch["sample_lengths"]} if self.packed else {}
        if "trees" in batch:
            assert self.packed, "samples share tokens only where attention is ours"
            extra["trees"] = batch["trees"]
        plain = plain_model(self.model)
        if self.vision is not None and batch["image_count"]:
            inputs = {k: v for k, v in inputs.items() if k in ("input_ids", "position_ids")}
            features = self.vision(plain, batch["images"], batch["frame_keys"])
            extra["mm_encoder_outputs"] = {"image": features}
        states: Tensor = plain.model(**inputs, use_cache=False, **extra)[0]
        return states[0, batch["scored"]]

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Recompute activations layer by layer in the backward pass."""
        plain_model(self.model).gradient_checkpointing_enable(gradient_checkpointing_kwargs)


class RankRows(IterableDataset[Row]):
    """This rank's and this loader process's rows of one plan, in batches of `size`.

    All ranks plan alike, and each takes its own of every size * ranks rows. A row's state is that
    of the plan after the whole group, so that any rank's state goes on for all of them.
    """

    def __init__(self, rows: PackedRows, size: int, rank: int, ranks: int) -> None:
        self._rows = rows
        self._size = size
        self._rank = rank
        self._ranks = ranks

    def __iter__(self) -> Iterator[Row]:
        worker = get_worker_info()
        turn, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        rows = iter(self._rows)
        number = 0
        while group := list(islice(rows, self._size * self._ranks)):
            # Loader processes are asked in turn, a batch each.
            if number % workers == turn:
                own = group[self._rank * self._size : (self._rank + 1) * self._size]
                yield from (replace(row, state=group[-1].state) for row in own)
            number += 1


class RowTrainer(Trainer):
    """Trains a `WeightedLoss` on `PackedRows`; saved steps hold the bare model.

    optimizer and schedule make the optimizer from the module and the factor on its rates at a step;
    so every engine, DeepSpeed included, has the same of both.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        loss: WeightedLoss,
        args: TrainingArguments,
        *,
        rows: PackedRows,
        collator: RowCollator,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        schedule: Callable[[int], float],
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        super().__init__(
            loss, args, data_collator=collator, train_dataset=rows, callbacks=callbacks
        )
        self.remove_callback(PrinterCallback)
        # Trainer would shift labels and count them itself; both are done here.
        self.model_accepts_loss_kwargs = False
        self._rows = rows
        self._make_optimizer = optimizer
        self._schedule = schedule
        self._row_state: Mapping[str, Any] | None = None
        self.tokens_seen = 0
        self.left_out: dict[str, str] = {}

    @property
    def marks(self) -> Marks | None:
        """What reads marks in the module that is trained."""
        found: Marks | None = self.accelerator.unwrap_model(self.model).marks
        return found

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The optimizer, made once."""
        if self.optimizer is None:
            module: Any = model if model is not None else self.model
            self.optimizer = self._make_optimizer(module)
        optimizer: torch.optim.Optimizer = self.optimizer
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule over whichever optimizer the engine made of ours."""
        if self.lr_scheduler is None:
            wrapped: Any = optimizer if optimizer is not None else self.optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(wrapped, self._schedule)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This rank's batches, whole rows each."""
        args = self.args
        own = RankRows(
            self._rows, args.per_device_train_batch_size, args.process_index, args.world_size
        )
        return DataLoader(
            own,
            batch_size=args.per_device_train_batch_size,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            pin_memory=args.dataloader_pin_memory,
            # Its own, so that starting anew draws nothing from the one that dropout draws from.
            generator=torch.Generator().manual_seed(args.seed),
        )

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> Any:
        if not batch_samples:
            return None
        total = torch.stack([batch["denominator"] for batch in batch_samples]).sum().to(device)
        if self.args.world_size > 1:
            total = self.accelerator.reduce(total, reduction="sum")
        # Where every weight of the batch is 0 its loss is 0, not 0 / 0.
        return total.float().clamp(min=1e-12)

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        self._row_state = inputs.pop("state")
        self.left_out |= inputs.pop("left_out")
        self.tokens_seen += inputs["input_ids"].numel()
        vision = self.accelerator.unwrap_model(self.model).vision
        if vision is not None and inputs["image_count"]:
            inputs["frame_keys"] = vision.keys(inputs["images"])
        moved: Batch = super()._prepare_inputs(inputs)
        return moved

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """This row's share of the global mean, times the ranks that gradients are averaged over."""
        outputs = model(**inputs)
        assert num_items_in_batch is not None
        loss = outputs["loss"] / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        model = self.accelerator.unwrap_model(self.model).model
        head = self.marks.state_dict() if self.marks is not None else {}
        if state_dict is not None:  # gathered from all ranks
            head = {name: state_dict[f"marks.{name}"] for name in head}
            state_dict = {
                name.removeprefix("model."): tensor
                for name, tensor in state_dict.items()
                if name.startswith("model.")
            }
        options = {"save_embedding_layers": False} if hasattr(model, "get_base_model") else {}
        model.save_pretrained(folder, state_dict=state_dict, **options)
        if head:
            torch.save(head, folder / _MARKS_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        module: Any = model if model is not None else self.model
        load_weights(module.model, Path(resume_from_checkpoint))
        if module.marks is not None:
            kept = torch.load(Path(resume_from_checkpoint) / _MARKS_FILE, weights_only=True)
            module.marks.load_state_dict(kept)

    # -- what a saved step must know beside weights and optimizer --------------------------------

    def position(self) -> dict[str, Any]:
        """Where training stands in the plan of rows and in the log. All ranks call it."""
        return {
            "rows": self._row_state,
            "loss": self._of_all(self._tr_loss.item()),
            "tokens": self._of_all(self.tokens_seen),
            "left_out": self.left_out_of_all(),
            "marks": self._of_all(self.marks.counts if self.marks is not None else None),
            "logged": self._globalstep_last_logged,
        }

    def tokens_of_all(self) -> int:
        """Tokens that all ranks have computed. All ranks call it."""
        return sum(self._of_all(self.tokens_seen))

    def left_out_of_all(self) -> dict[str, str]:
        """The broken samples that all ranks have met, each with its reason. All ranks call it."""
        return {name: why for each in self._of_all(self.left_out) for name, why in each.items()}

    def marks_of_all(self) -> dict[str, float]:
        """The figures of all ranks' marks since the last call. All ranks call it."""
        if self.marks is None:
            return {}
        return self.marks.figures(self._of_all(self.marks.counts))

    def _of_all(self, value: Any) -> list[Any]:
        values = [value] * self.args.world_size
        if self.args.world_size > 1:
            dist.all_gather_object(values, value)
        return values

    def go_on_from(self, position: Mapping[str, Any]) -> None:
        """Take up a `position`; once training has begun.

        Of another number of ranks the sums since the last logged step are let go: the next one is
        of the steps that follow.
        """
        rank = self.args.process_index
        if len(position["loss"]) == self.args.world_size:
            self._tr_loss += position["loss"][rank]
            if self.marks is not None and "marks" in position:
                self.marks.counts = position["marks"][rank]
            self.tokens_seen = position["tokens"][rank]
            self._globalstep_last_logged = position["logged"]
        else:
            self.tokens_seen = 0 if rank else sum(position["tokens"])
            self._globalstep_last_logged = self.state.global_step
        self.left_out = dict(position.get("left_out", {}))
        self._row_state = position["rows"]


@contextmanager
def generating(model: Any) -> Iterator[Any]:
    """`model` for generation for a while: evaluation mode, plain attention, cache allowed."""
    plain = plain_model(model)
    was_training = plain.training
    packed = getattr(plain.config, "text_config", plain.config)._attn_implementation
    plain.eval()
    if packed == attention.TEXT:
        attention.use_plain(plain)
    try:
        yield plain
    finally:
        if packed == attention.TEXT:
            attention.use_packed(plain)
        plain.train(was_training)
