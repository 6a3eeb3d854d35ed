"""What verification buys: trained on clean clips, on damaged ones, and on damaged ones verified.

    python benchmarks/verification.py --out outputs/verification --seeds 0 1 2 \\
        --corpus source.streams=20000 executor.workers=2 --train train.steps=3000 \\
        --verify agents.url=http://localhost:8000/v1 agents.model=NAME
    python benchmarks/verification.py --out outputs/verification --checkpoint models/tiny
    python benchmarks/verification.py --out outputs/verification --print     # the commands alone

Three corpora are made of the same streams of the rendered world: `clean`; `unverified`, of which a
share is damaged (source.corrupt) and nobody looks; `verified`, damaged alike, with what `--verify`
asks for (rules alone, where it asks for nothing); with `--checkpoint` a checkpoint of this
repository looks, plainly asked over an endpoint that lives as long as this script. A model is
trained on all of each, for as many steps, and scored on held-out streams of the world, which are
right and the same for all. What is done already is not done again. The tables go to
OUT/verification.md: what each corpus holds, onset F1 and content accuracy of each arm, and their
differences from `clean` and from `unverified`, with 95 % intervals of a bootstrap over clips and
seeds, paired.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.compare_runs import Finished, find, tables  # noqa: E402
from data_pipeline.agents.own_model import served  # noqa: E402
from joyvl_train.run import write_text  # noqa: E402

MEASURES = ("onset_f1", "content_accuracy", "false_alarms_per_hour")
_COUNTS = ("admitted", "damaged", "damaged/admitted", "rejected", "unverified")

Start = Callable[[Sequence[str]], int]
"""Runs a command line of the package; its exit code."""


@dataclass(frozen=True)
class Plan:
    """The runs of the three arms in `out`; the rest are overrides of their command lines."""

    out: Path
    share: float = 0.2
    seeds: tuple[int, ...] = (0,)
    corpus: tuple[str, ...] = ()
    verify: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    agents: str = ""
    """Who looks, in the words of the table."""

    @property
    def arms(self) -> dict[str, tuple[str, ...]]:
        """What the corpus of each arm is made with."""
        hurt = f"source.corrupt={self.share:g}"
        return {
            "clean": ("corpus.verify=off",),
            "unverified": (hurt, "corpus.verify=off"),
            "verified": (hurt, *self.verify),
        }

    def place(self, what: str, arm: str, seed: int | None = None) -> Path:
        folder = self.out.absolute() / what / arm
        return folder if seed is None else folder / str(seed)

    def commands(self) -> Iterator[list[str]]:
        """What is run, in order."""
        root = f"run.root={self.out.absolute() / 'runs'}"
        for arm, own in self.arms.items():
            corpus = self.place("corpus", arm)
            yield ["recipe=corpus", root, f"run.dir={corpus}", *self.corpus, *own]
            for seed in self.seeds:
                trained, scored = (self.place(what, arm, seed) for what in ("trained", "scored"))
                mine = [root, f"seed={seed}", *self.train]
                # Nothing of a corpus is held out: what it would be scored on is damaged, too.
                given = [f"data.path={corpus / 'corpus'}", "data.held_out=0", "train.eval_every=0"]
                yield ["recipe=sft", *mine, *given, f"run.dir={trained}"]
                from_it = ["command=evaluate", f"checkpoint={trained}"]
                yield ["recipe=sft", *mine, *from_it, f"run.dir={scored}"]

    def runs(self) -> dict[str, list[Finished]]:
        """The scored runs of each arm, with the figures of their training."""
        found: dict[str, list[Finished]] = {}
        for arm in self.arms:
            found[arm] = []
            for run in find(self.place("scored", arm, seed) for seed in self.seeds):
                trained = self.place("trained", arm, int(run.at("seed"))) / "metrics.json"
                known = json.loads(trained.read_text(encoding="utf-8"))
                found[arm].append(replace(run, metrics={**known, **run.metrics}))
        return found


def compared(plan: Plan, samples: int = 2000) -> str:
    """The tables, once all is run."""
    runs, told = plan.runs(), "the corpus they were trained on"
    looked = plan.agents or " ".join(plan.verify) or "rules alone"
    lines = [
        "# What verification buys",
        "",
        f"{plan.share:.0%} of the streams are damaged; verified with: {looked}.",
        "",
        f"| corpus | {' | '.join(_COUNTS)} |",
        "|---" * (1 + len(_COUNTS)) + "|",
    ]
    for arm in plan.arms:
        path = plan.place("corpus", arm) / "metrics.json"
        figures = json.loads(path.read_text(encoding="utf-8"))
        counts = (str(int(figures.get(f"corpus/{name}", 0))) for name in _COUNTS)
        lines.append(f"| {arm} | {' | '.join(counts)} |")
    against_clean = tables(runs, told, "clean", measures=MEASURES, samples=samples)
    damaged = {arm: found for arm, found in runs.items() if arm != "clean"}
    against_damaged = tables(damaged, told, "unverified", measures=MEASURES, samples=samples)
    return "\n".join([*lines, "", against_clean, against_damaged])


def started(arguments: Sequence[str]) -> int:
    """In a process of its own."""
    return subprocess.run([sys.executable, "-m", "joyvl_train", *arguments], cwd=ROOT).returncode


def main(arguments: Sequence[str] | None = None, start: Start = started) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--share", type=float, default=0.2, help="share of streams damaged")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of training")
    parser.add_argument("--corpus", nargs="*", default=[], help="keys of recipe=corpus, all arms")
    parser.add_argument("--verify", nargs="*", default=[], help="keys of it that verify")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint that verifies")
    parser.add_argument("--train", nargs="*", default=[], help="keys of recipe=sft, all arms")
    parser.add_argument("--samples", type=int, default=2000, help="bootstrap samples")
    parser.add_argument("--print", action="store_true", help="print the commands and stop")
    given = parser.parse_args(arguments)
    lists = (given.seeds, given.corpus, given.verify, given.train)
    plan = Plan(given.out, given.share, *map(tuple, lists))
    if given.print:
        if given.checkpoint:
            parser.error("--print: the endpoint of --checkpoint lives as long as this script")
        for command in plan.commands():
            print(shlex.join(["python", "-m", "joyvl_train", *command]))
        return 0
    with ExitStack() as lives:
        if given.checkpoint:
            point = lives.enter_context(served(given.checkpoint))
            asked = (f"agents.url={point.url}", f"agents.model={point.model}", "agents.plain=true")
            who = f"{given.checkpoint}, plainly asked"
            plan = replace(plan, verify=(*plan.verify, *asked), agents=who)
        for command in plan.commands():
            if code := start(command):
                return code
    try:
        text = compared(plan, given.samples)
    except ValueError as error:
        print(f"verification: {error}", file=sys.stderr)
        return 2
    print(text)
    write_text(given.out / "verification.md", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
