"""Our trainer and TRL's `SFTTrainer`, side by side on the same streams and the same random models.

    python benchmarks/sft_throughput.py [--quick] [--threads N] [--model tiny|wide]

The streams last 10 to 320 seconds, one 64x64 frame a second, nine silent seconds to each that
speaks. Both trainers get the same tokens from the same rendering, train all weights in bf16
autocast with AdamW, and make one optimizer step of one pass over the streams. Each arm runs in a
process of its own, one after another: a first step, over the longest stream and the shortest, is
not timed, then one whole pass is. Figures of an arm: supervised seconds (turns that are scored) a
second; the peak of resident memory, and how much of it lies above what the process held with its
model loaded; the tokens computed, padding included. The system hands out huge pages to who asks
for them: `python -m joyvl_train` has torch ask, and so do our arms.

TRL gets what our renderer makes of the streams, padded, so that its own image processing is not
counted against it, with streams ordered by length, so that it pads least; it knows no token
weights. Its settings are searched: batch size and gradient checkpointing; its head is the fused
one, which scores supervised positions only; its fastest setting runs once more with huge pages. It
refuses packing and padding-free batches for vision data; its words are in the table. Then each of
our gains is switched off in turn, each against the same arm with it on, on streams short enough for
both. The floor is forward and backward of our packed rows alone: rendered before, no optimizer.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.sft_streams import build, make_video
from joyvl_train.run import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "sft_throughput.md"
ARM = Path(__file__).with_name("sft_arm.py")


@dataclass(frozen=True)
class Size:
    """What is run of one model."""

    lengths: tuple[int, ...]  # the comparison
    gains: tuple[int, ...]  # the gains switched off
    batches: tuple[int, ...]  # TRL's


SIZES = {
    "tiny": Size((10, 20, 40, 80, 160, 320), (10, 20, 40, 80, 160), (1, 2, 4)),
    "wide": Size((10, 20, 40, 80, 160, 320), (10, 20, 40, 80), (1, 2)),
}
QUICK = {name: Size((4, 8, 12), (4, 8), (1, 2)) for name in SIZES}

OURS: dict[str, Any] = {
    "kind": "ours",
    "frozen": False,
    "packing": True,
    "scored_only": True,
    "frame_cache": True,
    "reuse": False,
    "checkpointing": False,
    "huge_pages": True,
}


def run(arm: Mapping[str, Any], video: Path) -> dict[str, Any]:
    """The arm with its figures, or with the last line of its error."""
    command = [sys.executable, str(ARM), "--arm", json.dumps(arm), "--video", str(video)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arm["threads"]), "HF_HUB_OFFLINE": "1"}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "DS_ACCELERATOR": "cpu"}
    environment |= {"PYTHONPATH": str(ROOT), "TRL_EXPERIMENTAL_SILENCE": "1"}
    environment["THP_MEM_ALLOC_ENABLE"] = str(int(arm["huge_pages"]))
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
    trl = {"kind": "trl", "frozen": False, "huge_pages": False, **shared}
    yield f"\n## {model}\n"
    yield f"Side by side, on streams of {size.lengths} s; ratio to TRL's fastest:\n\n{HEAD}"
    tried = {}
    for batch in size.batches:
        for checkpointing in (False, True):
            arm = {**trl, "batch": batch, "checkpointing": checkpointing, "lengths": size.lengths}
            tried[f"TRL, batch {batch}, checkpointing {on(checkpointing)}"] = run(arm, video)
    ran = {name: found for name, found in tried.items() if "error" not in found}
    if not ran:
        raise SystemExit(f"no setting of TRL ran: {next(iter(tried.values()))['error']}")
    fastest = max(ran, key=lambda name: ran[name]["rate"])
    tried[f"{fastest}, huge pages"] = run({**ran[fastest], "huge_pages": True}, video)
    rate = max(found["rate"] for found in tried.values() if "error" not in found)
    for name, found in tried.items():
        yield row(name, found, rate)
    for refused in ("packing", "padding_free"):
        arm = {**trl, "batch": 2, "checkpointing": False, "lengths": size.gains}
        yield row(f"TRL, {refused}", run({**arm, refused: True, "as_vision": True}, video))
    best = run({**ours, "lengths": size.lengths}, video)
    yield row("ours", best, rate)
    lean = run({**ours, "lengths": size.lengths, "checkpointing": True}, video)
    yield row("ours, checkpointing on", lean, rate)
    ground = run({**ours, "kind": "floor", "lengths": size.lengths}, video)
    yield row("floor", ground, rate)
    if "rate" in best and "rate" in ground:
        yield f"\nOurs reaches {best['rate'] / ground['rate']:.0%} of the floor."

    yield f"\nEach gain off, on streams of {size.gains} s; ratio to the arm above it:\n\n{HEAD}"
    full = run({**ours, "lengths": size.gains}, video)
    yield row("ours", full)
    for name, text in (
        ("packing", "a sample a row"),
        ("scored_only", "logits at all positions"),
        ("frame_cache", "frames decoded anew"),
        ("huge_pages", "memory in pages of 4 KiB"),
    ):
        off = run({**ours, name: False, "lengths": size.gains}, video)
        yield row(f"without {name.replace('_', ' ')}: {text}", off, full.get("rate"))
    frozen = {**ours, "frozen": True, "lengths": size.gains}
    kept = run({**frozen, "reuse": True}, video)
    yield row("vision and projector frozen, features kept", kept)
    yield row("the same, features computed anew", run(frozen, video), kept.get("rate"))


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
    given = parser.parse_args()
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
    write_text(RESULTS, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
