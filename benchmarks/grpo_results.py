"""Writes down what runs of `recipe=grpo` made of the checkpoint they began with.

    python -m joyvl_train recipe=grpo checkpoint=START run.dir=RUN0 seed=0    # and others
    python benchmarks/grpo_results.py RUN0 RUN1 RUN2 [--out results/grpo.md]

Each run is one seed; the start streamed the same clips in each. The first table tells of each run,
the second of all together, beside the start, with 95 % intervals of a bootstrap over clips and
runs, paired; the third the families. Nothing is run.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.compare_runs import CompareError, Finished, differences, find
from benchmarks.result_page import of_runs, page, row, versions
from benchmarks.reward_parts import MEASURES
from joyvl_train.report import NAMES, figure
from joyvl_train.timing import Run, paired_difference

RESULTS = Path(__file__).parent / "results" / "grpo.md"
START, TUNED = "the start", "recipe=grpo"
BY_RUN = MEASURES[:3]


def read(folder: Path) -> Finished:
    """A run that was measured beside its start. `ValueError` where this is none."""
    if not (folder / "start.jsonl").exists():
        raise ValueError(f"{folder} was not measured beside its start; let recipe=grpo end")
    (run,) = find([folder])
    return run


def by_run(runs: Mapping[str, Finished]) -> list[str]:
    """A line a run: the start's figure and its own, and what was spent."""
    head = ["run", *(NAMES[m] for m in BY_RUN), "silence bias", "steps", "minutes"]
    lines = [row(head), row(["---"] * len(head))]
    for name, run in runs.items():
        told = run.metrics
        pairs = [
            f"{figure(m, told[f'baseline/start/{m}'])} → {figure(m, told[f'eval/{m}'])}"
            for m in BY_RUN
        ]
        biases = f"{told['baseline/start/silence_bias']:g} → {told['eval/silence_bias']:g}"
        spent = [f"{told['train/steps']:.0f}", f"{told['train/seconds'] / 60:.1f}"]
        lines.append(row([name, *pairs, biases, *spent]))
    return lines


def gained(tuned: Sequence[Run], start: Sequence[Run], samples: int) -> list[str]:
    """How much of the way to an F1 of 1 was gone, and how many of the false alarms are left."""
    f1 = paired_difference(tuned, start, "onset_f1", samples)
    alarms = paired_difference(tuned, start, "false_alarms_per_hour", samples)
    lines = []
    if f1.b < 1:
        closed, low, high = (100 * value / (1 - f1.b) for value in (f1.value, f1.low, f1.high))
        lines.append(
            f"- Of the gap from the start's onset F1 to 1, **{closed:.0f} %** [{low:.0f}, "
            f"{high:.0f}] is closed."
        )
    if alarms.b > 0:
        change, low, high = (
            100 * value / alarms.b for value in (alarms.value, alarms.low, alarms.high)
        )
        lines.append(f"- False alarms an hour: **{change:+.0f} %** [{low:+.0f}, {high:+.0f}].")
    return lines


def families(tuned: Sequence[Run], start: Sequence[Run], samples: int) -> list[str]:
    """Each family alone, the start's figure and the runs' own."""
    lines = [row(["family", *(NAMES[m] for m in BY_RUN)]), row(["---"] * (1 + len(BY_RUN)))]
    for family in sorted({family for family, _ in tuned[0]}):
        parts = [[_of(run, family) for run in runs] for runs in (tuned, start)]
        found = [paired_difference(*parts, m, samples) for m in BY_RUN]
        cells = [f"{figure(d.measure, d.b)} → {figure(d.measure, d.a)}" for d in found]
        lines.append(row([family, *cells]))
    return lines


def _of(run: Run, family: str) -> Run:
    return {key: counts for key, counts in run.items() if key[0] == family}


def write(runs: Mapping[str, Path], samples: int = 2000) -> str:
    """The page of these runs. `ValueError` where one isn't measured, or their clips differ."""
    try:
        found = {name: read(folder) for name, folder in runs.items()}
        tuned = [run.scores() for run in found.values()]
        start = [run.scores("start.jsonl") for run in found.values()]
    except CompareError as error:
        raise ValueError(str(error)) from None
    first = next(iter(found.values()))
    lines = [
        f"{first.metrics['eval/hours']:.1f} hours of held-out stream ({len(tuned[0])} clips of "
        f"`data.seed` {first.at('data.seed')}); seeds "
        f"{', '.join(str(run.at('seed')) for run in found.values())}.",
        "",
        *by_run(found),
        "",
        *differences(
            {START: start, TUNED: tuned}, START, MEASURES, samples, {START: {}, TUNED: {}}
        ),
        "",
        *gained(tuned, start, samples),
        "",
        *families(tuned, start, samples),
    ]
    note = [
        "Start and runs each have the silence bias that is best on validation streams. Minutes are",
        "by the clock, of training and its validation.",
    ]
    command = f"grpo_results.py {' '.join(runs)}"
    return page(
        "What GRPO makes of a checkpoint", command, versions("torch", "transformers"), lines, note
    )


def main(arguments: Sequence[str] | None = None) -> int:
    return of_runs("grpo_results", __doc__ or "", RESULTS, write, arguments)


if __name__ == "__main__":
    sys.exit(main())
