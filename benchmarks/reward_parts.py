"""What GRPO brings a checkpoint, and what each part of its reward does: one part left out a time.

    python benchmarks/reward_parts.py --start RUN --out outputs/parts --seeds 0 1 2 \\
        --train train.minutes=15 grpo.steps=100000 --score data.test_hours=10 [--parts timing talk]

From one checkpoint models are trained with all parts of the reward, and without each of `--parts`
(`reward.PART=0`), with the same settings and as many seeds. All are scored on the same held-out
streams, the checkpoint they began with beside them. What is done already is not done again. The
tables go to OUT/reward_parts.md: the measures of each arm, and their differences from the arm with
all parts, with 95 % intervals of a bootstrap over clips and seeds, paired; delegation's precision
and recall beside them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.compare_runs import differences
from benchmarks.trained_arms import Arms, Start, keep_tables, parser_of, run_all, started
from rl.rewards import PARTS

ALL, BEGUN = "all parts", "the start"
MEASURES = (
    "onset_f1",
    "content_accuracy",
    "false_alarms_per_hour",
    "delegation_precision",
    "delegation_recall",
)


@dataclass(frozen=True)
class Plan:
    """The runs in `out`; the rest are overrides of their command lines."""

    out: Path
    start: str
    parts: tuple[str, ...] = tuple(PARTS)
    seeds: tuple[int, ...] = (0,)
    train: tuple[str, ...] = ()
    score: tuple[str, ...] = ()

    @property
    def models(self) -> Arms:
        arms: dict[str, Sequence[str] | None] = {BEGUN: None, ALL: ()}
        arms |= {f"without {part}": (f"reward.{part}=0",) for part in self.parts}
        train = (f"checkpoint={self.start}", *self.train)
        return Arms(self.out, arms, self.seeds, train, self.score, "grpo", self.start)


def compared(plan: Plan, samples: int = 2000) -> list[str]:
    """The tables, once all is run."""
    runs = plan.models.runs()
    scores = {arm: [run.scores() for run in found] for arm, found in runs.items()}
    told = {
        arm: {
            "steps": ", ".join(f"{run.metrics.get('train/steps', 0):.0f}" for run in found),
            "minutes": ", ".join(
                f"{run.metrics.get('train/seconds', 0) / 60:.0f}" for run in found
            ),
        }
        for arm, found in runs.items()
    }
    clips = len(scores[ALL][0])
    return [
        f"Seeds {', '.join(map(str, plan.seeds))}; {clips} clips.",
        "",
        *differences(scores, ALL, MEASURES, samples, told),
    ]


def main(arguments: Sequence[str] | None = None, start: Start = started) -> int:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--start", required=True, help="run or checkpoint that all go on from")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), help="left out in turn")
    parser.add_argument("--score", nargs="*", default=[], help="keys of the scoring, all arms")
    given = parser.parse_args(arguments)
    if unknown := [part for part in given.parts if part not in PARTS]:
        parser.error(f"--parts {unknown[0]}: there are {', '.join(PARTS)}")
    lists = (given.parts, given.seeds, given.train, given.score)
    plan = Plan(given.out, str(Path(given.start).absolute()), *map(tuple, lists))
    if code := run_all(plan.models.commands(), start):
        return code
    keep_tables(
        given, "reward_parts", "What the parts of the reward do", compared(plan, given.samples)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
