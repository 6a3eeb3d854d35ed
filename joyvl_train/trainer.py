"""`transformers.Trainer` with the weighted token loss over packed rows.

The loss is sum(weight * cross entropy) over the supervised tokens of the whole global batch (ranks
and accumulation steps included), divided by that batch's one denominator (`LossWeights`), so that
how samples are spread over rows, steps and ranks does not move it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from joyvl_train import attention
from joyvl_train.checkpoint import Processor, save
from joyvl_train.collate import Batch, PackedRows, RowCollator, model_inputs

STATE_FILE = "rows.json"
"""Beside each saved step: where in the plan of rows it stands."""

_HEAD_ROWS = 1024


class WeightedLoss(nn.Module):
    """A model together with its loss, as one module, so that DDP, DeepSpeed and hooks see it all.

    Logits are computed at the scored positions only, `head_rows` at a time and again in the
    backward pass: [K, V] is never held whole.
    """

    def __init__(self, model: Any, *, head_rows: int = _HEAD_ROWS, packed: bool = True) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self._head_rows = head_rows
        self._packed = packed and attention.use_packed(_plain(model))

    def forward(self, **batch: Any) -> dict[str, Tensor]:
        """loss: the weighted sum (not the mean), for `RowTrainer` to divide; correct: [K] bools."""
        hidden = self.hidden(batch)
        loss, correct = score(
            _plain(self.model).get_output_embeddings(),
            hidden,
            batch["targets"],
            batch["weights"],
            self._head_rows,
        )
        return {"loss": loss, "correct": correct}

    def hidden(self, batch: Mapping[str, Any]) -> Tensor:
        """The last hidden states [K, H] at the scored positions of `batch`."""
        inputs = model_inputs(dict(batch))
        extra = {"sample_lengths": batch["sample_lengths"]} if self._packed else {}
        features = batch.get("features")
        if features is not None:
            inputs = {k: v for k, v in inputs.items() if k in ("input_ids", "position_ids")}
            extra["mm_encoder_outputs"] = {"image": features}
        states = _plain(self.model).model(**inputs, use_cache=False, **extra)[0]
        return states[0, batch["scored"]]

    def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
        """Recompute activations layer by layer in the backward pass."""
        self.model.gradient_checkpointing_enable(**kwargs)
        if hasattr(self.model, "enable_input_require_grads"):
            self.model.enable_input_require_grads()


def _plain(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def score(
    head: nn.Module, hidden: Tensor, targets: Tensor, weights: Tensor, rows: int = _HEAD_ROWS
) -> tuple[Tensor, Tensor]:
    """(sum of weight * cross entropy, which targets were the likeliest token [K]).

    hidden [K, H], targets [K], weights [K]; the loss is summed in float32.
    """
    total = hidden.new_zeros((), dtype=torch.float32)
    correct = []
    pieces = (t.split(rows) for t in (hidden, targets, weights))
    for part, wanted, weight in zip(*pieces, strict=True):
        if torch.is_grad_enabled() and len(hidden) > rows:
            loss, right = checkpoint(_score_rows, head, part, wanted, weight, use_reentrant=False)
        else:
            loss, right = _score_rows(head, part, wanted, weight)
        total = total + loss
        correct.append(right)
    return total, torch.cat(correct) if correct else targets == targets


def _score_rows(
    head: nn.Module, hidden: Tensor, targets: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    logits = head(hidden).float()
    losses = cross_entropy(logits, targets, reduction="none")
    return (losses * weights).sum(), logits.detach().argmax(-1) == targets


class RowTrainer(Trainer):
    """Trains a `WeightedLoss` on `PackedRows`; checkpoints hold the bare model and the plan's state.

    `on_step`: called with (step, loss of the global batch) after every optimizer step.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        loss: WeightedLoss,
        args: TrainingArguments,
        *,
        rows: PackedRows | None,
        collator: RowCollator,
        processor: Processor,
        source: str | Path | None = None,
        callbacks: list[TrainerCallback] | None = None,
        features: Callable[[Batch], Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
    ) -> None:
        super().__init__(
            loss,
            args,
            data_collator=collator,
            train_dataset=rows,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        # Trainer would shift labels and count them itself; both are done here.
        self.model_accepts_loss_kwargs = False
        self._processor = processor
        self._source = source
        self._features = features
        self._row_state: Mapping[str, Any] | None = None
        self.tokens_seen = 0
        self.rows_seen = 0

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> Any:
        if not batch_samples:
            return None
        total = torch.stack([batch["denominator"] for batch in batch_samples]).sum().to(device)
        if self.args.world_size > 1:
            total = self.accelerator.reduce(total, reduction="sum")
        return total.float()

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        state = inputs.pop("state", None)
        if self.model.training and state is not None:
            self._row_state = state
            self.tokens_seen += inputs["input_ids"].numel()
            self.rows_seen += 1
        moved: Batch = super()._prepare_inputs(inputs)
        if self._features is not None and moved["image_count"]:
            moved["features"] = self._features(moved)
        return moved

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """This row's share of the global mean, times the ranks that gradients are averaged over."""
        outputs = model(**inputs)
        denominator = num_items_in_batch
        if denominator is None:
            denominator = inputs["denominator"].float()
        loss = outputs["loss"] / denominator
        if num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def get_train_dataloader(self) -> DataLoader[Any]:
        """One row a batch; rows are planned alike on every rank, each renders its own."""
        return super().get_train_dataloader()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        wrapped = self.accelerator.unwrap_model(self.model)
        model = wrapped.model if isinstance(wrapped, WeightedLoss) else wrapped
        if state_dict is not None:
            state_dict = {
                k.removeprefix(
                    "model.",
                ): v
                for k, v in state_dict.items()
            }
        model.save_pretrained(folder, state_dict=state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        from safetensors.torch import load_file

        target = (model or self.model).model
        folder = Path(resume_from_checkpoint)
        if hasattr(target, "get_base_model"):
            from peft import load_peft_weights, set_peft_model_state_dict

            set_peft_model_state_dict(target, load_peft_weights(str(folder)))
            return
        state: dict[str, Tensor] = {}
        for file in sorted(folder.glob("*.safetensors")):
            state.update(load_file(file))
        missing, unexpected = target.load_state_dict(state, strict=False)
        tied = set(getattr(target, "all_tied_weights_keys", {}) or {})
        if unexpected or set(missing) - tied:
            raise ValueError(f"{folder} does not fit the model: {unexpected or missing}")


class RowState(TrainerCallback):
    """Writes where in the plan of rows each saved step stands."""

    def __init__(self) -> None:
        self.trainer: RowTrainer | None = None

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        """Beside the step's checkpoint, on the main process."""
        if not state.is_world_process_zero or self.trainer is None:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        data = json.dumps(self.trainer._row_state)
        temporary = folder / (STATE_FILE + ".partial")
        temporary.write_text(data)
        os.replace(temporary, folder / STATE_FILE)


def last_step(folder: Path) -> Path | None:
    """The newest whole saved step in `folder`: the one with `STATE_FILE`, written last."""
    steps = [p for p in folder.glob("checkpoint-*") if (p / STATE_FILE).is_file()]
    return max(steps, key=lambda p: int(p.name.rpartition("-")[2]), default=None)


@contextmanager
def generating(model: Any) -> Iterator[Any]:
    """`model` for generation for a while: evaluation mode, plain attention, cache allowed."""
    plain = _plain(model)
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


def save_final(model: Any, processor: Processor, folder: Path, source: str | Path | None) -> None:
    """The run's `checkpoint/`: LoRA merged in, loadable by transformers and vLLM as it is."""
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    save(model, processor, folder, source=source)
