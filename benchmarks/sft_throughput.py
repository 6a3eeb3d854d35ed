"""Our trainer and TRL's `SFTTrainer`, side by side on the same streams and the same random models.

    python benchmarks/sft_throughput.py [--quick] [--threads N] [--model tiny|wide]

The streams last 10 to 320 seconds, one 64x64 frame a second, nine silent seconds to each that
speaks. Both trainers get the same tokens from the same rendering, train all weights in bf16
autocast with AdamW, and make one optimizer step of one pass over the streams. Each arm runs in a
process of its own, one after another: a first step over the shortest stream is not timed, then one
whole pass is. Figures of an arm: supervised seconds (turns that are scored) a second; the peak of
resident memory, and how much of it lies above what the process held with its model loaded; the
tokens computed, padding included.

TRL gets its inputs from our collator, padded, so that its own image processing is not counted
against it, with streams ordered by length, so that it pads least; it knows no token weights. Its
settings are searched: batch size and gradient checkpointing; its head is the fused one, which
scores supervised positions only. It refuses packing and padding-free batches for vision data; its
words are in the table. Then each of our gains is switched off in turn, each against the same arm
with it on, on streams short enough for both. The floor is forward and backward of our packed rows
alone: rendered before, no optimizer.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULTS = Path(__file__).parent / "results" / "sft_throughput.md"
SIDE = 64
WORDS = ["the red ball rolls left and a dog runs by", "seconds", "fire now", "it is over there"]


@dataclass(frozen=True)
class Size:
    """What is run of one model."""

    lengths: tuple[int, ...]  # the comparison
    search: tuple[int, ...]  # TRL's settings, and the gains switched off
    batches: tuple[int, ...]


SIZES = {
    "tiny": Size((10, 20, 40, 80, 160, 320), (10, 20, 40, 80, 160), (1, 2, 4)),
    "wide": Size((10, 20, 40, 80, 160, 320), (10, 20, 40, 80), (1, 2, 4)),
}
QUICK = {name: Size((4, 8, 12), (4, 8), (1, 2)) for name in SIZES}


# -- what both train on --------------------------------------------------------------------------


def build(model: str) -> tuple[Any, Any]:
    """(model, processor), random."""
    from joyvl_train.checkpoint import TinyShape, build_tiny, train_tokenizer

    tokenizer = train_tokenizer(WORDS * 3, 420)
    shape = TinyShape(vocabulary=len(tokenizer), side=SIDE)
    if model == "wide":
        shape = TinyShape(
            vocabulary=151_936,
            hidden=512,
            layers=6,
            heads=8,
            kv_heads=4,
            feed_forward=1536,
            vision_hidden=256,
            vision_layers=6,
            vision_feed_forward=1024,
            side=SIDE,
        )
    return build_tiny(tokenizer, shape, 0)


class Streams:
    """Streams of the given seconds (a `collate.Source`); their pictures come from one video."""

    def __init__(self, processor: Any, lengths: Sequence[int], video: Path, cached: bool) -> None:
        from joyvl_train.rendering import Renderer

        self.renderer = Renderer(processor)
        self._lengths = lengths
        self._video = video
        self._cached = cached
        self._known: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._lengths)

    def length(self, index: int) -> int:
        if index not in self._known:
            shape = self.renderer.shape((SIDE, SIDE))
            self._known[index] = self.renderer.length("", self._turns(index, [()] * 9999), shape)
        return self._known[index]

    def render(self, index: int) -> Any:
        from joyvl_train.weights import LossWeights, token_weights

        rendered = self.renderer.render("", self._turns(index, self._pictures(index)))
        return rendered, token_weights(rendered, LossWeights())

    def _pictures(self, index: int) -> Sequence[tuple[Any, ...]]:
        from joyvl_train.decoding import Decoding, decoders
        from joyvl_train.frames import open_video
        from joyvl_train.video import probe

        seconds = self._lengths[index]
        if self._cached:
            video = open_video(self._video, 1, cache_dir=self._video.parent, size=(SIDE, SIDE))
            return [video.frames(second) for second in range(seconds)]
        source = probe(self._video)
        pictures = iter(Decoding(source, 1, decoders(source)[0]))
        found = [next(pictures) for _ in range(seconds)]
        return [(p.resize((SIDE, SIDE)),) for p in found if p is not None]

    def _turns(self, index: int, pictures: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
        from joyvl_train.actions import Response, Silence
        from joyvl_train.stream import Stream, StreamSettings

        rng = random.Random(index)
        stream = Stream(StreamSettings(chunk_seconds=1000, lead=2))
        for second in range(self._lengths[index]):
            queries = ["say what you see"] if second == 0 else []
            # For lengths a place stands for the picture.
            stream.observe(second, pictures[second] or (None,), queries)
            stream.act(Response("the red ball") if rng.random() < 0.1 else Silence())
        return stream.turns


def make_video(path: Path, seconds: int) -> None:
    """Noise that changes every frame, ten a second, 256x256."""
    import av
    import numpy as np

    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 256
        stream.pix_fmt, stream.options = "yuv420p", {"preset": "ultrafast"}
        for _ in range(10 * seconds + 10):
            coarse = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(coarse, "rgb24")))
        container.mux(stream.encode())


def pack(lengths: Mapping[int, int], row: int) -> list[list[int]]:
    """Samples into rows of `row` tokens, first fit, longest first."""
    rows: list[list[int]] = []
    for index in sorted(lengths, key=lambda i: -lengths[i]):
        for members in rows:
            if sum(lengths[i] for i in members) + lengths[index] <= row:
                members.append(index)
                break
        else:
            rows.append([index])
    return rows


# -- one arm, in a process of its own ------------------------------------------------------------


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
    from joyvl_train.trainer import RowTrainer, WeightedLoss, score
    from joyvl_train.training import arguments, freeze, parameter_groups, prepare_engine

    prepare_engine(EngineConfig())
    model, processor = build(arm["model"])
    if arm["frozen"]:
        freeze(model, ["vision", "projector"])
    source = Streams(processor, arm["lengths"], video, arm["frame_cache"])
    lengths = {index: source.length(index) for index in range(len(source))}
    row = max(lengths.values()) if arm["packing"] else 1
    rows = pack(lengths, row)
    shortest = min(lengths, key=lambda i: lengths[i])

    class AllLogits(WeightedLoss):
        """Logits of every position, held at once; those that are not scored weigh nothing."""

        def forward(self, **batch: Any) -> Any:
            scored, targets, weights = batch["scored"], batch["targets"], batch["weights"]
            count = batch["input_ids"].shape[1]
            all_targets = targets.new_zeros(count).index_copy(0, scored, targets)
            all_weights = weights.new_zeros(count).index_copy(0, scored, weights)
            hidden = self.hidden({**batch, "scored": torch.arange(count)})
            head = model.get_output_embeddings()
            loss, correct = score(head, hidden, all_targets, all_weights, rows=count)
            return {"loss": loss, "correct": correct}

    vision = FrozenVision(model, 1 << 30) if arm["reuse"] else None
    loss = (WeightedLoss if arm["scored_only"] else AllLogits)(model, vision=vision)
    base = resident()
    collator = RowCollator([Part("streams", source, 1.0)])
    if arm["kind"] == "floor":
        return floor(loss, [collator([Row(tuple(("streams", i) for i in r), {})]) for r in rows])

    # As many rows in the step that is not timed; with kept features, all of them, to keep.
    first = rows if arm["reuse"] else [[shortest]] * len(rows)

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
            optimizer=lambda module: torch.optim.AdamW(parameter_groups(module, train)),
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


def floor(loss: Any, batches: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Forward and backward of rendered rows, and nothing else."""
    import torch

    base = resident()
    taken = []
    for batch in (batches[-1], *batches):
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
        samples = [source.render(item["index"]) for item in items]
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

    # The pass that is not timed has as many batches, of the shortest stream.
    plan = [index for batch in batches for index in [order[0]] * len(batch)] + order
    timer = clock()
    with tempfile.TemporaryDirectory() as folder:
        args = SFTConfig(
            output_dir=folder,
            max_steps=2,
            per_device_train_batch_size=size,
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


def run_here(arm: Mapping[str, Any], video: Path) -> None:
    """The arm's figures, as the last line of the output."""
    import torch

    torch.set_num_threads(arm["threads"])
    found = trl_arm(arm, video) if arm["kind"] == "trl" else our_arm(arm, video)
    print("\n" + json.dumps(found))


# -- all arms ------------------------------------------------------------------------------------

OURS: dict[str, Any] = {
    "kind": "ours",
    "frozen": False,
    "packing": True,
    "scored_only": True,
    "frame_cache": True,
    "reuse": False,
    "checkpointing": False,
}


def run(arm: Mapping[str, Any], video: Path) -> dict[str, Any]:
    """The arm with its figures, or with the last line of its error."""
    command = [sys.executable, __file__, "--arm", json.dumps(arm), "--video", str(video)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arm["threads"]), "HF_HUB_OFFLINE": "1"}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "DS_ACCELERATOR": "cpu"}
    environment |= {"PYTHONPATH": str(ROOT), "TRL_EXPERIMENTAL_SILENCE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        text = "out of memory" if done.returncode == -9 else (lines or ["?"])[-1]
        return {**arm, "error": text}
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {**arm, **found, "rate": sum(arm["lengths"]) / found["seconds"]}


def row(name: str, found: Mapping[str, Any], against: float | None = None) -> str:
    if "error" in found:
        return f"| {name} | | | | | {found['error'].replace('|', '/')[:200]} |"
    ratio = "" if against is None else f"{found['rate'] / against:.2f}"
    return (
        f"| {name} | {found['rate']:.2f} | {ratio} | {found['peak'] / 2**20:.0f} "
        f"| {found['above'] / 2**20:.0f} | {found['tokens']:.0f} |"
    )


HEAD = (
    "| | supervised s/s | ratio | peak MiB | of it above the model, MiB | tokens computed |\n"
    "|---|---|---|---|---|---|"
)


def compare(model: str, size: Size, threads: int, video: Path) -> Iterator[str]:
    """The tables of one model."""
    shared = {"model": model, "threads": threads}
    ours = {**OURS, **shared}
    trl = {"kind": "trl", "frozen": False, **shared}
    yield f"\n## {model}\n"
    yield f"TRL's settings, on streams of {size.search} s:\n\n{HEAD}"
    tried = []
    for batch in size.batches:
        for checkpointing in (False, True):
            arm = {**trl, "batch": batch, "checkpointing": checkpointing, "lengths": size.search}
            tried.append(run(arm, video))
            yield row(f"batch {batch}, checkpointing {on(checkpointing)}", tried[-1])
    for refused in ("packing", "padding_free"):
        arm = {**trl, "batch": 2, "checkpointing": False, "lengths": size.search}
        yield row(refused, run({**arm, refused: True, "as_vision": True}, video))
    whole = [found for found in tried if "error" not in found]
    if not whole:
        raise SystemExit(f"no setting of TRL ran: {tried[0]['error']}")
    fastest = max(whole, key=lambda found: found["rate"])
    leanest = min(whole, key=lambda found: found["peak"])

    def again(found: Mapping[str, Any]) -> dict[str, Any]:
        known = ("batch", "checkpointing")
        return run({**trl, **{k: found[k] for k in known}, "lengths": size.lengths}, video)

    yield f"\nSide by side, on streams of {size.lengths} s; ratio to TRL's fastest:\n\n{HEAD}"
    quick = again(fastest)
    rate = quick.get("rate")
    yield row(f"TRL, fastest: {settings(fastest)}", quick, rate)
    if leanest is not fastest:
        yield row(f"TRL, leanest: {settings(leanest)}", again(leanest), rate)
    best = run({**ours, "lengths": size.lengths}, video)
    yield row("ours", best, rate)
    lean = run({**ours, "lengths": size.lengths, "checkpointing": True}, video)
    yield row("ours, checkpointing on", lean, rate)
    ground = run({**ours, "kind": "floor", "lengths": size.lengths}, video)
    yield row("floor", ground, rate)
    if "rate" in best and "rate" in ground:
        yield f"\nOurs reaches {best['rate'] / ground['rate']:.0%} of the floor."

    yield f"\nEach gain off, on streams of {size.search} s; ratio to the arm above it:\n\n{HEAD}"
    full = run({**ours, "lengths": size.search}, video)
    yield row("ours", full)
    for name, text in (
        ("packing", "a sample a row"),
        ("scored_only", "logits at all positions"),
        ("frame_cache", "frames decoded anew"),
    ):
        off = run({**ours, name: False, "lengths": size.search}, video)
        yield row(f"without {name.replace('_', ' ')}: {text}", off, full.get("rate"))
    frozen = {**ours, "frozen": True, "lengths": size.search}
    kept = run({**frozen, "reuse": True}, video)
    yield row("vision and projector frozen, features kept", kept)
    yield row("the same, features computed anew", run(frozen, video), kept.get("rate"))


def settings(found: Mapping[str, Any]) -> str:
    return f"batch {found['batch']}, checkpointing {on(found['checkpointing'])}"


def on(value: bool) -> str:
    return "on" if value else "off"


@lru_cache
def parameters(model: str) -> int:
    return sum(p.numel() for p in build(model)[0].parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="seconds of stream; nothing is kept")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--model", choices=list(SIZES), action="append")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    parser.add_argument("--video", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.arm:
        run_here(json.loads(given.arm), given.video)
        return
    sizes = QUICK if given.quick else SIZES
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("torch", "transformers", "accelerate", "trl")
    )
    names = given.model or list(SIZES)
    counts = ", ".join(f"{name} {parameters(name) / 1e6:.1f}M" for name in names)
    lines = [
        "# SFT throughput\n",
        f"`benchmarks/sft_throughput.py`, {datetime.date.today()}; {versions}; Python "
        f"{platform.python_version()}; {given.threads} CPU threads; parameters: {counts}.",
    ]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "noise.mp4"
        make_video(video, max(max(sizes[name].lengths) for name in names))
        for name in names:
            for line in compare(name, sizes[name], given.threads, video):
                print(line, flush=True)
                lines.append(line)
    if given.quick or given.model:
        return
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
