"""Writes down what runs of `recipe=eval` came to, from their folders.

    python benchmarks/eval_results.py RUN... [--out results/eval.md]

A section a run: what was played and to whom, win, tie and loss of the model against each rival with
95 % intervals over cases, its win rate by scenario, and everybody's points. The figures are those
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

RESULTS = Path(__file__).parent / "results" / "eval.md"


def rivals(metrics: Mapping[str, float]) -> list[str]:
    """Who the model was compared with."""
    keys = (key.split("/") for key in metrics if key.endswith(".count"))
    return sorted({key[1].removesuffix(".count") for key in keys if key[0] == "win_rate"})


def scenarios(metrics: Mapping[str, float]) -> list[str]:
    """The scenarios that were played, by name."""
    keys = (key.split("/") for key in metrics)
    found = {key[2] for key in keys if len(key) == 3 and key[0] == "score"}
    return sorted({name.removesuffix(".count") for name in found})


def share(metrics: Mapping[str, float], key: str) -> str:
    return f"{metrics[key]:.1%}" if key in metrics else "–"


def told(metrics: Mapping[str, float], config: Mapping[str, Any]) -> str:
    """What a run was, in a line."""
    hours, cases = metrics["eval/hours"], metrics["cases/played"]
    return (
        f"{cases:.0f} cases (`cases={config['cases']['suite']}`), {hours:.1f} hours of stream, "
        f"seed {config['seed']}; rule judge."
    )


def section(name: str, metrics: Mapping[str, float], config: Mapping[str, Any]) -> list[str]:
    """The tables of a run."""
    lines = [f"## {name}", "", told(metrics, config), ""]
    head = ["the model against", "wins", "95 % interval", "ties", "loses"]
    lines += [row(head), row(["---"] * len(head))]
    for rival in rivals(metrics):
        key = f"win_rate/{rival}"
        span = f"{share(metrics, f'{key}.low')} to {share(metrics, f'{key}.high')}"
        rest = [share(metrics, f"{end}_rate/{rival}") for end in ("tie", "loss")]
        lines.append(row([rival, share(metrics, key), span, *rest]))
    if len(scenarios(metrics)) > 1:
        head = ["wins by scenario", *rivals(metrics)]
        lines += ["", row(head), row(["---"] * len(head))]
        for scenario in scenarios(metrics):
            cells = [share(metrics, f"win_rate/{of}/{scenario}") for of in rivals(metrics)]
            lines.append(row([scenario, *cells]))
    kinds = ("score", "quality", "timing")
    whole = [(system, "") for system in ["model", *rivals(metrics)]]
    parts = [("model", s) for s in scenarios(metrics)] if len(scenarios(metrics)) > 1 else []
    lines += ["", row(["points, 0 to 2", *kinds]), row(["---"] * 4)]
    for system, scenario in whole + parts:
        end = f"{system}/{scenario}" if scenario else system
        cells = [f"{metrics[f'{kind}/{end}']:.2f}" for kind in kinds if f"{kind}/{end}" in metrics]
        if len(cells) == len(kinds):
            lines.append(row([f"{system}, {scenario}" if scenario else system, *cells]))
    return [*lines, ""]


def write(runs: Mapping[str, Path]) -> str:
    """The page of these runs, each under its name. `ValueError` where one isn't scored."""
    lines: list[str] = []
    for name, folder in runs.items():
        try:
            metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ValueError(f"{error.filename} is not there; name the folder of a run") from None
        if "cases/played" not in metrics or not rivals(metrics):
            raise ValueError(f"{folder} compared nobody; let recipe=eval end")
        lines += section(name, metrics, config)
    packages = versions("torch", "transformers")
    note = [
        "Systems that are cut off after some seconds are the baselines as products whose session",
        "ends; the others play the whole stream.",
    ]
    return page("Cases", f"eval_results.py {' '.join(runs)}", packages, lines, note)


def main(arguments: Sequence[str] | None = None) -> int:
    return of_runs("eval_results", __doc__ or "", RESULTS, write, arguments)


if __name__ == "__main__":
    sys.exit(main())
