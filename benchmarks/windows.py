"""GRPO on windows beside GRPO on whole streams, for as long by the clock.

    python benchmarks/windows.py --checkpoint RUN --out outputs/windows [--minutes 15] [--seeds 0 1]

Both arms go on from one checkpoint on the same clips, of 160 to 200 seconds, with the same rewards,
group and learning rate, and end after as many minutes; what differs is what is rolled out: seconds
around what is due (`windows.before`, `after`), or the stream from its first second to its last. The
table tells what each came to on held-out streams, the checkpoint it began with beside it, and how
many turns it rolled out. What is done already is not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.result_page import keep, page, row, versions

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "windows.md"
CLIPS = ("data.shortest=160", "data.longest=200", "data.train_streams=400")
ARMS: Mapping[str, Sequence[str]] = {
    "windows": (),
    "whole streams": (
        "windows.before=600",
        "windows.after=600",
        "windows.mix.silence=0",
        "windows.mix.pending=0",
        "stream.chunk_seconds=1500",
        "train.row_tokens=16384",
    ),
}
MEASURES = ("onset_f1", "content_accuracy", "false_alarms_per_hour")


def command(arm: str, seed: int, given: argparse.Namespace) -> list[str]:
    """The run of an arm."""
    return [
        sys.executable,
        "-m",
        "joyvl_train",
        "recipe=grpo",
        f"checkpoint={given.checkpoint}",
        f"run.dir={folder(arm, seed, given)}",
        f"seed={seed}",
        f"train.minutes={given.minutes}",
        "grpo.steps=100000",
        "grpo.supervised=0",  # what is rolled out is all that either learns from
        *CLIPS,
        *ARMS[arm],
        *given.set,
    ]


def folder(arm: str, seed: int, given: argparse.Namespace) -> Path:
    return Path(given.out) / f"{arm.replace(' ', '_')}-{seed}"


def figures(path: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
    return found


def table(given: argparse.Namespace) -> list[str]:
    """A line a run, and the checkpoint that all began with."""
    names = ["onset F1", "content", "false alarms an hour"]
    head = ["arm", "seed", *names, "steps", "rollout turns", "minutes"]
    lines = [row(head), row(["---"] * len(head))]

    def shown(told: Mapping[str, float], prefix: str) -> list[str]:
        return [f"{told.get(f'{prefix}/{m}', float('nan')):.3f}" for m in MEASURES]

    for arm in ARMS:
        for seed in given.seeds:
            told = figures(folder(arm, seed, given))
            if len(lines) == 2:
                lines.append(row(["start", "", *shown(told, "baseline/start"), "", "", ""]))
            spent = [f"{told['train/steps']:.0f}", f"{told['train/rollout_turns']:,.0f}"]
            minutes = f"{told['train/seconds'] / 60:.1f}"
            lines.append(row([arm, str(seed), *shown(told, "eval"), *spent, minutes]))
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="run of recipe=sft, or checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", nargs="*", default=[], help="further keys, of both arms")
    parser.add_argument("--page", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    for seed in given.seeds:
        for arm in ARMS:
            if not (folder(arm, seed, given) / "finished").exists():
                subprocess.run(command(arm, seed, given), cwd=ROOT, check=True)
    note = ["Minutes are those of training, validation included; clips of 160 to 200 seconds."]
    packages = versions("torch", "transformers")
    keep(given.page, page("Windows and whole streams", "windows.py", packages, table(given), note))
    return 0


if __name__ == "__main__":
    sys.exit(main())
