"""What each tier of the memory is worth on the cases that ask about minutes ago.

    python benchmarks/memory_cases.py RUN [NAME=RUN ...] --out outputs/memory [--set KEY=VALUE ...]

The nine memory cases of `recipe=eval`, of two to thirty minutes, are played to each run with its
whole memory and with a part of it taken away, beside the base asked when it is spoken to
(`ask only`). The table tells how often the model was better, as good and worse than that, and its
points. What is played already is not played again. What hours of a stream leave is told by
`live_recall.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.eval_results import share
from benchmarks.result_page import keep, named_runs, page, row, versions
from benchmarks.trained_arms import Start, run_all, started
from recipes._made import chunk_of

RESULTS = Path(__file__).parent / "results" / "memory_cases.md"
RIVAL = "ask_only"
ARMS: Mapping[str, Sequence[str]] = {
    "three tiers": (),
    "what was said alone": ("cases.summaries=said",),
    "no long-term blocks": ("stream.long=0",),
    "the last chunk's summary alone": ("stream.long=0", "stream.mid=1"),
    "what was said in the last chunk": ("stream.long=0", "stream.mid=1", "cases.summaries=said"),
}


def folder(out: Path, name: str, arm: str) -> Path:
    return out.absolute() / name / arm.replace(" ", "-").replace("'", "")


def command(path: Path, run: Path, keys: Sequence[str], given: Sequence[str]) -> list[str]:
    """The command line that plays an arm of a run into `path`."""
    cases = ["recipe=eval", "cases.only=[memory]", f"cases.systems=[model,{RIVAL}]"]
    return [*cases, f"checkpoint={run.absolute()}", f"run.dir={path}", *given, *keys]


def line(name: str, arm: str, metrics: Mapping[str, float]) -> str:
    """An arm's row."""
    ends = [share(metrics, f"{end}_rate/{RIVAL}") for end in ("win", "tie", "loss")]
    span = [share(metrics, f"win_rate/{RIVAL}.{end}") for end in ("low", "high")]
    ends[0] += f" [{span[0]}, {span[1]}]"
    points = [f"{metrics[f'{kind}/model']:.2f}" for kind in ("score", "quality", "timing")]
    return row([name, arm, *ends, *points])


def table(runs: Mapping[str, Path], out: Path) -> list[str]:
    """All arms, once they are played."""
    head = ["run", "memory", "wins", "ties", "loses", "points", "quality", "timing"]
    lines = [row(head), row(["---"] * len(head))]
    for name in runs:
        for arm in ARMS:
            path = folder(out, name, arm) / "metrics.json"
            lines.append(line(name, arm, json.loads(path.read_text(encoding="utf-8"))))
    return lines


def main(arguments: Sequence[str] | None = None, start: Start = started) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", help="folders of runs, or NAME=FOLDER")
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--set", nargs="*", default=[], help="further keys, of all arms")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    runs = named_runs(given.runs)
    due = [
        command(path, run, keys, given.set)
        for name, run in runs.items()
        for arm, keys in ARMS.items()
        if not ((path := folder(given.out, name, arm)) / "finished").exists()
    ]
    if code := run_all(due, start):
        return code
    chunks = ", ".join(
        f"{name} {chunk_of(run / 'checkpoint') or 100} s" for name, run in runs.items()
    )
    note = [
        "Nine cases, so intervals are wide: three of two or three minutes, three of ten, three of",
        f"half an hour. Chunks are as long as the checkpoint was trained with: {chunks}.",
    ]
    packages = versions("torch", "transformers")
    title = "The memory's tiers on the memory cases"
    keep(given.results, page(title, "memory_cases.py", packages, table(runs, given.out), note))
    return 0


if __name__ == "__main__":
    sys.exit(main())
