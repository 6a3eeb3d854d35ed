"""Writes down what runs of `recipe=sft` came to on their held-out streams, from their folders.

    python benchmarks/sft_results.py RUN... [--out results/sft.md]

A section a run: what it trained and was measured on, the figures of the whole with their 95 %
intervals, and every family beside the best of the policies that look at nothing (always silent,
always speaking, every `eval.poll_seconds`) and the base model asked as often. The figures are those
of `metrics.json`; nothing is run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.result_page import of_runs, page, row, versions
from joyvl_train.report import NAMES, figure, interval

RESULTS = Path(__file__).parent / "results" / "sft.md"
WHOLE = (
    "onset_f1",
    "precision",
    "recall",
    "content_accuracy",
    "false_alarms_per_hour",
    "silence_accuracy",
    "delegation_recall",
)
BY_FAMILY = ("onset_f1", "content_accuracy", "false_alarms_per_hour")
TRIVIAL = ("always_silent", "always_speaking", "poll")
RIVAL = "base_polled"


def shown(metrics: Mapping[str, float], key: str) -> str:
    return figure(key, metrics[key]) if key in metrics else "–"


def families(metrics: Mapping[str, float], prefix: str) -> list[str]:
    """The families measured under `prefix`, in the order of their names."""
    keys = (key.split("/") for key in metrics if key.startswith(f"{prefix}/"))
    return sorted({key[1] for key in keys if len(key) == 3 and key[2] == "onset_f1"})


def best_trivial(metrics: Mapping[str, float], family: str) -> float | None:
    """The best onset F1 that a policy which looks at nothing gets of a family."""
    keys = [f"baseline/{policy}/{family}/onset_f1" for policy in TRIVIAL]
    return max((metrics[key] for key in keys if key in metrics), default=None)


def told(metrics: Mapping[str, float], config: Mapping[str, Any]) -> str:
    """What a run was, in a line."""
    data, train = config["data"], config["train"]
    minutes, hours = metrics.get("train/seconds", 0) / 60, metrics["eval/hours"]
    return (
        f"{metrics.get('train/steps', 0):.0f} steps in {minutes:.0f} minutes, learning rate "
        f"{train['learning_rate']:g}, `seed` {config['seed']}; {hours:.1f} hours of "
        f"held-out stream ({metrics['eval/clips']:.0f} clips of `data.seed` {data['seed']}, "
        f"`data={data['kind']}`), silence bias {metrics.get('eval/silence_bias', 0):g}."
    )


def section(name: str, metrics: Mapping[str, float], config: Mapping[str, Any]) -> list[str]:
    """The tables of a run."""
    lines = [f"## {name}", "", told(metrics, config), ""]
    lines += [row(["measure", "", "95 % interval"]), row(["---"] * 3)]
    for measure in WHOLE:
        key = f"eval/{measure}"
        if key in metrics:
            lines.append(row([NAMES[measure], shown(metrics, key), interval(metrics, key)]))
    head = ["family", *(NAMES[m] for m in BY_FAMILY), "best trivial F1", "base polled F1"]
    lines += ["", row(head), row(["---"] * len(head))]
    for family in families(metrics, "eval"):
        trivial = best_trivial(metrics, family)
        own = [shown(metrics, f"eval/{family}/{measure}") for measure in BY_FAMILY]
        rivals = [
            "–" if trivial is None else figure("onset_f1", trivial),
            shown(metrics, f"baseline/{RIVAL}/{family}/onset_f1"),
        ]
        lines.append(row([family, *own, *rivals]))
    for family in families(metrics, "transfer"):
        own = [shown(metrics, f"transfer/{family}/{measure}") for measure in BY_FAMILY]
        lines.append(row([f"{family} (never trained on)", *own, "", ""]))
    return [*lines, ""]


def write(runs: Mapping[str, Path]) -> str:
    """The page of these runs, each under its name. `ValueError` where one isn't measured."""
    lines: list[str] = []
    for name, folder in runs.items():
        try:
            metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ValueError(f"{error.filename} is not there; name the folder of a run") from None
        if "eval/hours" not in metrics:
            raise ValueError(f"{folder} was not measured; let recipe=sft end")
        lines += section(name, metrics, config)
    packages = versions("torch", "transformers")
    note = [
        "The best trivial policy is chosen by family after the fact, which flatters it. Minutes",
        "are by the clock, of training alone.",
    ]
    title = "Held-out streams, free-running"
    return page(title, f"sft_results.py {' '.join(runs)}", packages, lines, note)


def main(arguments: Sequence[str] | None = None) -> int:
    return of_runs("sft_results", __doc__ or "", RESULTS, write, arguments)


if __name__ == "__main__":
    sys.exit(main())
