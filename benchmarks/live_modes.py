"""What each response mode costs: false alarms and misses on held-out streams.

    python benchmarks/live_modes.py RUN [--hours 2] [--seed N] [--results]

A mode adds to the logit of silence, beside the bias that the run chose (`serve.modes`). The streams
are drawn anew from a seed that nothing was trained or chosen on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.result_page import chosen_bias, finish, page, row, versions
from joyvl_train.cli import compose
from joyvl_train.heldout import metrics
from recipes._data import held_out_cases
from recipes._speaking import speaker, stream_model

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "live_modes.md"
FIGURES = ("recall", "onset_f1", "content_accuracy")


def told(found: Mapping[str, float], key: str) -> str:
    """A figure with its interval."""
    value, low, high = (found[f"m/{key}{part}"] for part in ("", ".low", ".high"))
    return f"{value:.3g} ({low:.3g} to {high:.3g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a finished run of recipe=sft")
    parser.add_argument("--hours", type=float, default=2.0, help="of held-out stream")
    parser.add_argument("--seed", type=int, required=True, help="data.seed of the streams")
    parser.add_argument("--results", action="store_true", help=f"write {RESULTS.name}")
    given = parser.parse_args()
    config = compose(ROOT, ["recipe=serve", f"data.seed={given.seed}"])
    chosen = chosen_bias(given.run)
    cases = held_out_cases(config, "test", 0, given.hours)
    model, renderer = speaker(config, str(given.run / "checkpoint"))
    heads = ["mode", "bias", "false alarms an hour", "said of what was due", "onset F1", "content"]
    rows = [row(heads), row(["---"] * len(heads))]
    for name, added in config.serve.modes.items():
        traces = stream_model(model, renderer, config, cases, chosen + added)
        found = metrics(traces, "m", samples=300)
        figures = [told(found, key) for key in ("false_alarms_per_hour", *FIGURES)]
        rows.append(row([name, f"{chosen + added:g}", *figures]))
        print(rows[-1], flush=True)
    note = [
        f"{len(cases)} streams, {given.hours:g} hours, data.seed={given.seed}; the run chose a "
        f"bias of {chosen:g}. Brackets hold 95 % intervals over clips."
    ]
    command = f"live_modes.py RUN --hours {given.hours:g} --seed {given.seed}"
    packages = versions("torch", "transformers")
    text = page("Response modes", command, packages, rows, note)
    finish(RESULTS, text, given.results)


if __name__ == "__main__":
    main()
