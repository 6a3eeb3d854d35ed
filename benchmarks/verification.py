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

import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.compare_runs import tables
from benchmarks.trained_arms import Arms, Start, keep_tables, parser_of, run_all, started
from data_pipeline.agents.own_model import served

MEASURES = ("onset_f1", "content_accuracy", "false_alarms_per_hour")
_COUNTS = ("admitted", "damaged", "damaged/admitted", "rejected", "unverified")


@dataclass(frozen=True)
class Plan:
    """The runs of the three arms in `out`; the rest are overrides of their command lines."""

    out: Path
    share: float = 0.2
    seeds: tuple[int, ...] = (0,)
    corpus_keys: tuple[str, ...] = ()
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

    def corpus(self, arm: str) -> Path:
        return self.out.absolute() / "corpus" / arm

    @property
    def models(self) -> Arms:
        """What is trained on each corpus, all of it: what it would hold out is damaged, too."""
        paths = {arm: f"data.path={self.corpus(arm) / 'corpus'}" for arm in self.arms}
        given = {arm: (path, "data.held_out=0") for arm, path in paths.items()}
        return Arms(self.out, given, self.seeds, self.train, self.train)

    def commands(self) -> Iterator[list[str]]:
        """What is run, in order."""
        for arm, own in self.arms.items():
            place = [self.models.root, f"run.dir={self.corpus(arm)}"]
            yield ["recipe=corpus", *place, *self.corpus_keys, *own]
        yield from self.models.commands()


def compared(plan: Plan, samples: int = 2000) -> str:
    """The tables, once all is run."""
    runs, told = plan.models.runs(), "the corpus they were trained on"
    looked = plan.agents or " ".join(plan.verify) or "rules alone"
    lines = [
        f"{plan.share:.0%} of the streams are damaged; verified with: {looked}.",
        "",
        f"| corpus | {' | '.join(_COUNTS)} |",
        "|---" * (1 + len(_COUNTS)) + "|",
    ]
    for arm in plan.arms:
        path = plan.corpus(arm) / "metrics.json"
        figures = json.loads(path.read_text(encoding="utf-8"))
        counts = (str(int(figures.get(f"corpus/{name}", 0))) for name in _COUNTS)
        lines.append(f"| {arm} | {' | '.join(counts)} |")
    against_clean = tables(runs, told, "clean", measures=MEASURES, samples=samples)
    damaged = {arm: found for arm, found in runs.items() if arm != "clean"}
    against_damaged = tables(damaged, told, "unverified", measures=MEASURES, samples=samples)
    return "\n".join([*lines, "", against_clean, against_damaged])


def main(arguments: Sequence[str] | None = None, start: Start = started) -> int:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--share", type=float, default=0.2, help="share of streams damaged")
    parser.add_argument("--corpus", nargs="*", default=[], help="keys of recipe=corpus, all arms")
    parser.add_argument("--verify", nargs="*", default=[], help="keys of it that verify")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint that verifies")
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
        if code := run_all(plan.commands(), start):
            return code
    try:
        tables_of = compared(plan, given.samples)
    except ValueError as error:
        print(f"verification: {error}", file=sys.stderr)
        return 2
    keep_tables(given, "verification", "What verification buys", [tables_of])
    return 0


if __name__ == "__main__":
    sys.exit(main())
