"""One arm of `sft_throughput.py`, in a process of its own: our trainer, or TRL's."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.sft_streams import Streams, build, pack


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def clock() -> Any:
    """A callback that notes when each optimizer step begins and ends."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        ends: list[float] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.ends.append(time.perf_counter())

    return Clock()


def our_arm(arm: Mapping[str, Any], video: Path) -> dict[str, float]:
    """One pass by `RowTrainer`."""
    import torch
    from torch.utils.data import IterableDataset

    from joyvl_train.collate import Part, Row, RowCollator
    from joyvl_train.config import EngineConfig, TrainConfig
    from joyvl_train.frozen_vision import FrozenVision
    from joyvl_train.head import score
    from joyvl_train.trainer import RowTrainer, WeightedLoss
    from joyvl_train.training import adamw, arguments, freeze, prepare_engine

    prepare_engine(EngineConfig())
    model, processor = build(arm["model"])
    if arm["frozen"]:
        freeze(model, ["vision", "projector"])
    source = Streams(processor, arm["lengths"], video, arm["frame_cache"])
    lengths = {index: source.length(index) for index in range(len(source))}
    row = max(lengths.values()) if arm["packing"] else 1
    rows = pack(lengths, row)
    shortest, longest = (pick(lengths, key=lambda i: lengths[i]) for pick in (min, max))

    class AllLogits(WeightedLoss):
        """Logits of every position, held at once; those that are not scored weigh nothing."""

        def forward(self, **batch: Any) -> Any:
            scored, targets, weights = batch["scored"], batch["targets"], batch["weights"]
            count = batch["input_ids"].shape[1]
            all_targets = targets.new_zeros(count).index_copy(0, scored, targets)
            all_weights = weights.new_zeros(count).index_copy(0, scored, weights)
            hidden = self.hidden({**batch, "scored": torch.arange(count)})
            head = model.get_output_embeddings()
            loss, correct = score(head, hidden, all_targets, all_weights)
            return {"loss": loss, "correct": correct}

    vision = FrozenVision(model, 1 << 30) if arm["reuse"] else None
    loss = (WeightedLoss if arm["scored_only"] else AllLogits)(model, vision=vision)
    base = resident()
    collator = RowCollator([Part("streams", source, 1.0)])
    if arm["kind"] == "floor":
        return floor(
            loss, [collator([Row(tuple(("streams", i) for i in r), {})]) for r in rows], base
        )

    # As many rows in the step that is not timed, one of them the longest, as a run's later steps
    # find the memory of earlier ones; with kept features, all of them, to keep.
    first = rows if arm["reuse"] else [[longest], *[[shortest]] * (len(rows) - 1)]

    class Twice(IterableDataset[Row]):
        def __iter__(self) -> Iterator[Row]:
            for members in (*first, *rows):
                yield Row(tuple(("streams", i) for i in members), {})

    train = TrainConfig(steps=2, accumulation=len(rows), save_every=0, log_every=10)
    timer = clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = RowTrainer(
            loss,
            arguments(
                train,
                EngineConfig(),
                Path(folder),
                seed=0,
                workers=0,
                checkpointing=arm["checkpointing"],
            ),
            rows=Twice(),  # type: ignore[arg-type]
            collator=collator,
            optimizer=lambda module: adamw(module, train),
            schedule=lambda step: 1.0,
            callbacks=[timer],
        )
        trainer.train()
    return {
        "seconds": timer.ends[1] - timer.ends[0],
        "tokens": sum(lengths.values()),
        "peak": peak(),
        "above": peak() - base,
    }


def floor(loss: Any, batches: Sequence[Mapping[str, Any]], base: float) -> dict[str, float]:
    """Forward and backward of rendered rows, and nothing else; first, untimed, of the longest."""
    import torch

    taken = []
    longest = max(batches, key=lambda batch: batch["input_ids"].numel())
    for batch in (longest, *batches):
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(**{k: v for k, v in batch.items() if k != "state"})["loss"]
        value.backward()
        taken.append(time.perf_counter() - begun)
    tokens = sum(batch["input_ids"].numel() for batch in batches)
    return {"seconds": sum(taken[1:]), "tokens": tokens, "peak": peak(), "above": peak() - base}


def trl_arm(arm: Mapping[str, Any], video: Path) -> dict[str, float]:
    """One pass by TRL's trainer."""
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, processor = build(arm["model"])
    if arm["frozen"]:
        from joyvl_train.training import freeze

        freeze(model, ["vision", "projector"])
    source = Streams(processor, arm["lengths"], video, True)
    order = sorted(range(len(source)), key=source.length)
    size = arm["batch"]
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    tokens = sum(len(b) * max(map(source.length, b)) for b in batches)
    base = resident()

    def collate(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        samples = [source.render(index) for item in items for index in item["index"]]
        longest = max(len(rendered) for rendered, _ in samples)
        ids = torch.full((len(samples), longest), processor.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, -100)
        for at, (rendered, targets) in enumerate(samples):
            sample = torch.tensor(rendered.ids)
            ids[at, : len(sample)] = sample
            mask[at, : len(sample)] = 1
            labels[at, targets.positions] = sample[targets.positions]
        images = {k: torch.cat([r.images[k] for r, _ in samples]) for k in samples[0][0].images}
        types = (ids == processor.image_id).int()
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": labels,
            "mm_token_type_ids": types,
            **images,
        }

    # An item is a batch, as the last one may be smaller. The pass that is not timed has as many:
    # the last, with the longest stream, and others of the shortest.
    plan = [batches[-1], *([order[0]] * len(batch) for batch in batches[1:]), *batches]
    timer = clock()
    with tempfile.TemporaryDirectory() as folder:
        args = SFTConfig(
            output_dir=folder,
            max_steps=2,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=len(batches),
            gradient_checkpointing=arm["checkpointing"],
            learning_rate=1e-3,
            bf16=True,
            use_cpu=True,
            max_length=None,
            packing=arm.get("packing", False),
            padding_free=arm.get("padding_free", False),
            remove_unused_columns=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            save_strategy="no",
            report_to=[],
            logging_steps=100,
            train_sampling_strategy="sequential",
            disable_tqdm=True,
        )
        rows: dict[str, list[Any]] = {"index": plan, "labels": [[0]] * len(plan)}
        if arm.get("as_vision"):
            rows |= {"images": [[]] * len(plan), "messages": [[]] * len(plan)}
        trainer = SFTTrainer(
            model,
            args,
            data_collator=None if arm.get("padding_free") else collate,
            train_dataset=Dataset.from_dict(rows),
            processing_class=whole(processor) if arm.get("as_vision") else processor.tokenizer,
            callbacks=[timer],
        )
        trainer.train()
    return {
        "seconds": timer.ends[1] - timer.ends[0],
        "tokens": tokens,
        "peak": peak(),
        "above": peak() - base,
    }


def whole(processor: Any) -> Any:
    """A processor that TRL takes for one of a vision-language model: to see what it refuses."""
    from transformers import ProcessorMixin

    class Whole(ProcessorMixin):
        def __init__(self) -> None:
            self.tokenizer = processor.tokenizer
            self.chat_template = processor.tokenizer.chat_template

    return Whole()


def main() -> None:
    """The arm's figures, as the last line of the output."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arm", required=True, help="what is switched on, as JSON")
    parser.add_argument("--video", required=True, type=Path)
    given = parser.parse_args()
    arm = json.loads(given.arm)
    torch.set_num_threads(arm["threads"])
    found = trl_arm(arm, given.video) if arm["kind"] == "trl" else our_arm(arm, given.video)
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
