"""Compare the arms of a sweep on the same held-out clips, with paired intervals.

    python -m joyvl_train -m recipe=sft loss=weighted,plain seed=0,1,2 \\
        train.learning_rate=3e-4,1e-3,3e-3 train.eval_every=1000
    python benchmarks/compare_runs.py outputs/sft/* --arm loss

A run folder holds `config.yaml`, `metrics.json` and `traces.jsonl` (a `heldout.Trace` a line). Runs
that agree in the `--arm` key of their config form an arm; each arm takes the learning rate with the
best mean of `--choose`, which is measured on the validation clips, never on those that are
compared. The rate is chosen over the seeds that all rates were run with, and compared is what was
run at it: the other rates can do with fewer seeds. All arms must have the same rates, steps and
clips, and the same seeds to choose by and to compare.
Prints Markdown, or keeps it in a page (`--out`): the arms, then each arm minus the first (or
`--base`), with 95 % intervals of a bootstrap over clips and seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.result_page import keep, page, row, versions
from joyvl_train.heldout import read_traces
from joyvl_train.report import NAMES, figure
from joyvl_train.timing import Difference, Run, paired_difference

MEASURES = ("onset_f1", "content_accuracy", "false_alarms_per_hour", "silence_accuracy")


class CompareError(ValueError):
    """Runs that can't be compared; the message says why."""


@dataclass(frozen=True)
class Finished:
    """One run folder."""

    folder: Path
    config: Mapping[str, Any]
    metrics: Mapping[str, float]

    def at(self, key: str) -> Any:
        """The value of a dotted config key; `CompareError` where there is none."""
        value: Any = self.config
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                raise CompareError(f"{self.folder / 'config.yaml'} has no key {key!r}")
            value = value[part]
        return value

    def figure(self, name: str) -> float:
        """The figure of this name: of metrics.json, or else the last in log.jsonl."""
        if name in self.metrics:
            return self.metrics[name]
        log = self.folder / "log.jsonl"
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        found = [row[name] for row in map(json.loads, lines) if name in row]
        if not found:
            raise CompareError(
                f"{self.folder} has no {name!r} in metrics.json or log.jsonl; train with "
                "train.eval_every above 0, or choose the rate by another figure (--choose)"
            )
        return float(found[-1])

    def scores(self, name: str = "traces.jsonl") -> Run:
        """(family, clip) -> counts, from the stored traces."""
        traces = read_traces(self.folder / name)
        scores = {(trace.family, trace.clip): trace.score() for trace in traces}
        if len(scores) != len(traces):
            raise CompareError(f"{self.folder / name} holds a clip twice")
        return scores


def find(folders: Iterable[Path]) -> list[Finished]:
    """The finished runs in or below these folders."""
    runs = []
    for folder in folders:
        found = sorted(folder.rglob("traces.jsonl"))
        if not found:
            raise CompareError(f"no finished run (traces.jsonl) in {folder}")
        for path in found:
            config = yaml.safe_load((path.parent / "config.yaml").read_text(encoding="utf-8"))
            metrics = json.loads((path.parent / "metrics.json").read_text(encoding="utf-8"))
            runs.append(Finished(path.parent, config, metrics))
    return runs


def names(runs: Sequence[Finished], key: str) -> list[str]:
    """The arm of each run: the value at `key`; of a group of keys, those that differ."""
    values = [run.at(key) for run in runs]
    if not all(isinstance(value, dict) for value in values):
        return [str(value) for value in values]
    flat = [{k: str(v) for k, v in value.items()} for value in values]
    known = dict.fromkeys(k for item in flat for k in item)
    differ = [k for k in known if len({item.get(k) for item in flat}) > 1]
    if not differ:
        return [f"the same {key}"] * len(flat)
    told = [[f"{k}={item[k]}" for k in differ if k in item] for item in flat]
    return [", ".join(each) or f"{key} as it comes" for each in told]


@dataclass(frozen=True)
class Arm:
    """The runs of an arm: those at its best learning rate, and the seeds that it was chosen by."""

    runs: Sequence[Finished]
    chosen_by: Sequence[int]
    seeds: Sequence[int]


def best(runs: Sequence[Finished], rate: str, seed: str, choose: str) -> Arm:
    """The runs of the learning rate with the best mean of `choose`, by seed."""
    by_rate: dict[float, dict[int, Finished]] = {}
    for run in runs:
        seeds = by_rate.setdefault(float(run.at(rate)), {})
        number = int(run.at(seed))
        if number in seeds:
            both = f"{seeds[number].folder} and {run.folder}"
            raise CompareError(f"{both} are the same arm, rate and seed")
        seeds[number] = run
    shared = sorted(set.intersection(*(set(found) for found in by_rate.values())))
    if not shared:
        seeds_of = {value: sorted(found) for value, found in by_rate.items()}
        raise CompareError(f"learning rates have no seed in common: {seeds_of}")

    def mean(value: float) -> float:
        return statistics.fmean(by_rate[value][number].figure(choose) for number in shared)

    # Of a single rate nothing is to be chosen.
    chosen = by_rate[max(sorted(by_rate), key=mean) if len(by_rate) > 1 else next(iter(by_rate))]
    return Arm([chosen[number] for number in sorted(chosen)], shared, sorted(chosen))


def compare(
    runs: Sequence[Finished],
    arm: str,
    base: str | None = None,
    rate: str = "train.learning_rate",
    seed: str = "seed",
    choose: str = "validation/onset_f1",
    measures: Sequence[str] = MEASURES,
    samples: int = 2000,
) -> str:
    """The tables in Markdown. Raises `CompareError` where the arms aren't alike."""
    by_arm: dict[str, list[Finished]] = {}
    for run, name in zip(runs, names(runs, arm), strict=True):
        by_arm.setdefault(name, []).append(run)
    if len(by_arm) < 2:
        raise CompareError(f"all {len(runs)} runs have the same {arm}: {', '.join(by_arm)}")
    return tables(by_arm, f"`{arm}`", base, rate, seed, choose, measures, samples)


def tables(
    by_arm: Mapping[str, Sequence[Finished]],
    told: str,
    base: str | None = None,
    rate: str = "train.learning_rate",
    seed: str = "seed",
    choose: str = "validation/onset_f1",
    measures: Sequence[str] = MEASURES,
    samples: int = 2000,
) -> str:
    """`compare` of arms that are known by name; `told`: what tells them apart."""
    base = base or next(iter(by_arm))
    if base not in by_arm:
        raise CompareError(f"no arm {base!r}; there are {'; '.join(by_arm)}")
    alike: dict[str, Callable[[Finished], float]] = {
        "learning rates": lambda run: float(run.at(rate)),
        "steps": lambda run: run.metrics.get("train/steps", 0),
    }
    for what, of in alike.items():
        _same(what, {name: sorted(set(map(of, found))) for name, found in by_arm.items()})
    arms = {name: best(found, rate, seed, choose) for name, found in by_arm.items()}
    _same("seeds", {name: arm.seeds for name, arm in arms.items()})
    _same("seeds that the rate is chosen by", {name: arm.chosen_by for name, arm in arms.items()})
    chosen = {name: arm.runs for name, arm in arms.items()}
    scores = {name: [run.scores() for run in found] for name, found in chosen.items()}
    rates = sorted({float(run.at(rate)) for found in by_arm.values() for run in found})
    first = chosen[base][0]
    which = (
        f"each at its best of the learning rates {', '.join(f'{r:g}' for r in rates)} (by {choose}"
        f" of seed {_listed(arms[base].chosen_by)})"
    )
    lines = [
        f"Arms by {told}, {which if len(rates) > 1 else f'learning rate {rates[0]:g}'}; "
        f"seeds {_listed(arms[base].seeds)}; "
        f"{first.metrics.get('train/steps', 0):.0f} steps; {len(scores[base][0])} clips.",
        "",
    ]
    told_of = {name: {"learning rate": f"{float(f[0].at(rate)):g}"} for name, f in chosen.items()}
    return "\n".join([*lines, *differences(scores, base, measures, samples, told_of)]) + "\n"


def differences(
    scores: Mapping[str, Sequence[Run]],
    base: str,
    measures: Sequence[str],
    samples: int,
    told: Mapping[str, Mapping[str, str]],
) -> list[str]:
    """The measures of each arm, and each arm minus `base`, as tables. told: further columns of the
    first, by arm."""
    found = {
        name: [paired_difference(runs, scores[base], m, samples) for m in measures]
        for name, runs in scores.items()
    }
    more = list(told[base])
    lines = [
        row(["arm", *more, *(NAMES[m] for m in measures)]),
        row(["---"] * (1 + len(more) + len(measures))),
    ]
    for name, values in found.items():
        own = [told[name][column] for column in more]
        lines.append(row([name, *own, *(figure(d.measure, d.a) for d in values)]))
    lines += [
        "",
        row(["difference", *(NAMES[m] for m in measures)]),
        row(["---"] * (1 + len(measures))),
    ]
    for name, values in found.items():
        if name != base:
            lines.append(row([f"{name} − {base}", *map(shown, values)]))
    return lines


def _same(what: str, each: Mapping[str, Sequence[float]]) -> None:
    """`CompareError` where the arms aren't alike in this."""
    first = next(iter(each.values()))
    if any(value != first for value in each.values()):
        raise CompareError(f"the arms differ in {what}: {dict(each)}")


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def shown(d: Difference) -> str:
    """A difference with its interval, for a table."""
    low, high = figure(d.measure, d.low), figure(d.measure, d.high)
    return f"{'+' if d.value > 0 else ''}{figure(d.measure, d.value)} [{low}, {high}]"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, help="run folders, or folders of them")
    parser.add_argument("--arm", required=True, help="config key, or group, that tells arms apart")
    parser.add_argument("--base", help="arm that the others are compared with (the first)")
    parser.add_argument("--rate", default="train.learning_rate", help="config key of the rate")
    parser.add_argument("--seed", default="seed", help="config key of the seed")
    parser.add_argument(
        "--choose", default="validation/onset_f1", help="figure that picks the rate"
    )
    parser.add_argument("--measures", nargs="+", default=MEASURES, choices=sorted(NAMES))
    parser.add_argument("--samples", type=int, default=2000, help="bootstrap samples")
    parser.add_argument("--out", type=Path, help="a page to keep the tables in, Markdown")
    given = parser.parse_args(arguments)
    try:
        text = compare(
            find(given.folders),
            given.arm,
            given.base,
            given.rate,
            given.seed,
            given.choose,
            given.measures,
            given.samples,
        )
        if given.out is None:
            print(text)
        else:
            command = f"compare_runs.py RUNS --arm {given.arm}"
            packages = versions("torch", "transformers")
            keep(given.out, page(f"Arms by `{given.arm}`", command, packages, [text], []))
    except (OSError, ValueError) as error:
        print(f"compare_runs: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
