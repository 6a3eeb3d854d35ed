"""What frames in few tokens cost and bring: models that see whole frames, and coded ones.

    python benchmarks/coded_frames.py --out outputs/coded --seeds 0 1 2 \\
        --train setting=short data.test_hours=5 [--footage]

One model each is trained, for as many steps on as many streams, that sees frames of 192 pixels
whole; coded (`data.codec=predictive`); coded at a fixed rate, every `--every`-th frame whole; and
whole frames of 96 pixels, which have about as many tokens as coded ones. Rows hold the tokens that
as many streams need. All are scored on the same held-out streams, as they see them. `--footage`:
real footage among the backgrounds of what is scored. What is done already is not done again. The
tables go to OUT/coded_frames.md: measures and their differences from whole frames, with 95 %
intervals of a bootstrap over clips and seeds, paired; tokens of a second by what they are; recall
of onsets by the size of what comes with them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.compare_runs import Finished, differences
from benchmarks.result_page import row
from benchmarks.trained_arms import ROOT, Arms, Start, keep_tables, parser_of, run_all, started
from data_pipeline.world.scene import Track, from_json
from joyvl_train.checkpoint import load_processor
from joyvl_train.cli import compose
from joyvl_train.coded_frames import coded
from joyvl_train.heldout import read_traces
from joyvl_train.rendering import Renderer
from joyvl_train.samples import chunks_of, render_chunk
from joyvl_train.timing import classify, said_right
from joyvl_train.weights import LossWeights
from recipes._data import Cases, held_out_cases
from recipes._world import settings

WHOLE, CODED, SMALL = "whole at 192", "coded at 192", "whole at 96"
MEASURES = ("onset_f1", "content_accuracy", "false_alarms_per_hour")
SIZES = (0.15, 0.25, 0.35)
"""Borders between the sizes of what comes, as shares of a frame's side."""
_ROW_TOKENS = 4096  # of the arm that sees frames of 96 pixels
_COUNTED = 60  # clips by which tokens are counted


@dataclass(frozen=True)
class Plan:
    """The runs in `out`; the rest are overrides of their command lines."""

    out: Path
    seeds: tuple[int, ...] = (0,)
    train: tuple[str, ...] = ()
    every: int = 4
    footage: bool = False

    @property
    def views(self) -> dict[str, tuple[str, ...]]:
        """How each arm sees its streams."""
        large, code = "data.size=192", "data.codec=predictive"
        never = ("codec.cut=255", "codec.drift=1e6", "codec.gap=1")
        return {
            WHOLE: (large,),
            CODED: (large, code),
            f"every {self.every}th whole at 192": (
                large,
                code,
                *never,
                f"codec.longest={self.every}",
            ),
            SMALL: ("data.size=96",),
        }

    def tokens(self, arm: str) -> dict[str, float]:
        """Tokens of a second of held-out streams as an arm sees them, by what they are."""
        return dict(_tokens((*self.train, *self.views[arm])))

    @property
    def models(self) -> Arms:
        """All arms, whose rows hold as many streams."""
        least = sum(self.tokens(SMALL).values())
        views = {}
        for arm, view in self.views.items():
            tokens = round(_ROW_TOKENS * sum(self.tokens(arm).values()) / least)
            views[arm] = (*view, f"train.row_tokens={tokens}")
        score = (*self.train, "data.footage=true") if self.footage else self.train
        arms: dict[str, Sequence[str]] = dict.fromkeys(views, ())
        return Arms(self.out, arms, self.seeds, self.train, score, views=views)


@lru_cache
def _tokens(keys: tuple[str, ...]) -> Mapping[str, float]:
    config = compose(ROOT, ["recipe=sft", *keys])
    renderer = Renderer(load_processor(ROOT / config.model.kept))
    counted = {"vision": 0, "delimiters": 0, "rest": 0}
    seconds = 0
    for timeline, frames in held_out_cases(config, "validation", _COUNTED):
        shown = coded(frames, settings(config))
        for chunk in chunks_of(timeline, shown, settings(config)):
            rendered, _ = render_chunk(chunk, shown, renderer, LossWeights(), "")
            images = [span for span in rendered.spans if span.kind == "image"]
            vision = sum(span.stop - span.start for span in images)
            between = 2 * len(images) + sum(any(turn.predicted) for turn in chunk.turns)
            counted["vision"] += vision
            counted["delimiters"] += between
            counted["rest"] += len(rendered) - vision - between
            seconds += len(chunk.turns)
    return {what: count / seconds for what, count in counted.items()}


def recalls(runs: Iterable[Finished], cases: Cases) -> list[tuple[int, int]]:
    """(onsets met, onsets) for each size of what comes with them, `SIZES`; those with which nothing
    comes are left out."""
    tracks = {timeline.clip.id: from_json(timeline.clip.scene).tracks for timeline, _ in cases}
    found = [[0, 0] for _ in range(len(SIZES) + 1)]
    for run in runs:
        for trace in read_traces(run.folder / "traces.jsonl"):
            met = {o.second for o, _ in classify(trace.onsets, trace.emissions, said_right).matches}
            for onset in trace.onsets:
                size = _comes(tracks[trace.clip], onset.second)
                if size is not None:
                    place = sum(size >= border for border in SIZES)
                    found[place][0] += onset.second in met
                    found[place][1] += 1
    return [(met, count) for met, count in found]


def _comes(tracks: Iterable[Track], second: int) -> float | None:
    """The size of the largest thing that comes into view in a second."""
    sizes = [key.size for t in tracks if int(t.start) == second and (key := t.at(t.start))]
    return max(sizes, default=None)


def compared(plan: Plan, samples: int = 2000) -> list[str]:
    """The tables, once all is run."""
    found = plan.models.runs()
    scores = {arm: [run.scores() for run in runs] for arm, runs in found.items()}
    told = {
        arm: {
            "steps": ", ".join(f"{run.metrics.get('train/steps', 0):.0f}" for run in runs),
            "minutes": ", ".join(f"{run.metrics.get('train/seconds', 0) / 60:.0f}" for run in runs),
        }
        for arm, runs in found.items()
    }
    lines = [
        f"Seeds {', '.join(map(str, plan.seeds))}; {len(scores[WHOLE][0])} clips.",
        "",
        *differences(scores, WHOLE, MEASURES, samples, told),
        "",
        "## Tokens of a second",
        "",
        row(["arm", "vision", "delimiters and marks", "all else", "vision of whole frames'"]),
        row(["---"] * 5),
    ]
    tokens = {arm: plan.tokens(arm) for arm in found}
    for arm, counts in tokens.items():
        share = counts["vision"] / tokens[WHOLE]["vision"]
        lines.append(row([arm, *(f"{n:.1f}" for n in counts.values()), f"{share:.0%}"]))
    heads = [f"below {SIZES[0]:g}", *(f"from {border:g}" for border in SIZES)]
    lines += ["", "## Recall by the size of what comes, as a share of a frame's side", ""]
    lines += [row(["arm", *heads]), row(["---"] * (1 + len(heads)))]
    for arm, runs in found.items():
        config = compose(ROOT, ["recipe=sft", *plan.models.score, *plan.views[arm]])
        cases = held_out_cases(config, "test", config.data.test_streams, config.data.test_hours)
        cells = [
            f"{met / count:.2f} ({count})" if count else "" for met, count in recalls(runs, cases)
        ]
        lines.append(row([arm, *cells]))
    return lines


def main(arguments: Sequence[str] | None = None, start: Start = started) -> int:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--every", type=int, default=4, help="frames of the fixed rate")
    parser.add_argument("--footage", action="store_true", help="score on real footage")
    given = parser.parse_args(arguments)
    plan = Plan(given.out, tuple(given.seeds), tuple(given.train), given.every, given.footage)
    if code := run_all(plan.models.commands(), start):
        return code
    title = "Whole frames, and coded ones"
    keep_tables(given, "coded_frames", title, compared(plan, given.samples))
    return 0


if __name__ == "__main__":
    sys.exit(main())
