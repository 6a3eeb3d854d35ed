"""What each family of a corpus teaches: models trained with all families, and without one each.

    python benchmarks/mixture.py --out outputs/mixture --seeds 0 1 2 \\
        --corpus source.streams=20000 --train train.steps=3000
    python benchmarks/mixture.py --out outputs/mixture --direct       # and on the world's own draw

One corpus is made of the rendered world. A model is trained on all of it, and one without each
family (`data.mix.FAMILY=0`), for as many steps of as many tokens, so that the other families are
seen the more. All are scored on the same held-out streams of all families. With `--direct` one more
is trained without a corpus, on streams drawn as training goes: what the shards cost or bring. What
is done already is not done again. The tables go to OUT/mixture.md: what is lost on a family that is
left out, and on the others by it, with 95 % intervals of a bootstrap over clips and seeds, paired.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.compare_runs import shown, tables
from benchmarks.result_page import row
from benchmarks.trained_arms import Arms, Start, keep_tables, parser_of, run_all, started
from data_pipeline.world.streams import FAMILIES
from joyvl_train.report import NAMES, figure
from joyvl_train.timing import Run, paired_difference

ALL = "all families"
DIRECT = "no corpus"
MEASURES = ("onset_f1", "content_accuracy")


def without(family: str) -> str:
    """The arm that is trained without this family."""
    return f"without {family}"


@dataclass(frozen=True)
class Plan:
    """The runs in `out`; the rest are overrides of their command lines."""

    out: Path
    families: tuple[str, ...] = FAMILIES
    seeds: tuple[int, ...] = (0,)
    corpus_keys: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    direct: bool = False

    @property
    def models(self) -> Arms:
        """All arms. What is scored comes of the world: of the corpus nothing is held out."""
        corpus = (f"data.path={self.out.absolute() / 'corpus' / 'corpus'}", "data.held_out=0")
        arms: dict[str, Sequence[str]] = {ALL: corpus}
        arms |= {without(name): (*corpus, f"data.mix.{name}=0") for name in self.families}
        if self.direct:
            arms[DIRECT] = ()
        return Arms(self.out, arms, self.seeds, self.train, self.train)

    def commands(self) -> Iterator[list[str]]:
        """What is run, in order."""
        place = [self.models.root, f"run.dir={self.out.absolute() / 'corpus'}"]
        yield ["recipe=corpus", *place, "corpus.verify=off", *self.corpus_keys]
        yield from self.models.commands()


def compared(plan: Plan, samples: int = 2000) -> list[str]:
    """The tables, once all is run."""
    found = plan.models.runs()
    scores = {arm: [run.scores() for run in runs] for arm, runs in found.items()}
    lines = [tables(found, "what they were trained on", ALL, measures=MEASURES, samples=samples)]
    lines += ["## On the family that is left out, and on the others", ""]
    heads = [f"{NAMES[m]}, {where}" for m in MEASURES for where in ("its own", "the others")]
    lines += [row(["left out", *heads]), row(["---"] * (1 + len(heads)))]
    for name in plan.families:
        cells = []
        for measure in MEASURES:
            for own in (True, False):
                a, b = (
                    [_of(run, name, own) for run in scores[arm]] for arm in (without(name), ALL)
                )
                cells.append(shown(paired_difference(a, b, measure, samples)))
        lines.append(row([name, *cells]))
    lines += ["", "## Onset F1 by family", ""]
    lines += [row(["trained on", *plan.families]), row(["---"] * (1 + len(plan.families)))]
    for arm in scores:
        cells = []
        for name in plan.families:
            a, b = ([_of(run, name, True) for run in scores[of]] for of in (arm, ALL))
            found_here = paired_difference(a, b, "onset_f1", samples)
            apart = found_here.low > 0 or found_here.high < 0
            text = figure("onset_f1", found_here.a)
            cells.append(f"**{text}**" if apart and arm != ALL else text)
        lines.append(row([arm, *cells]))
    return [*lines, "", f"Bold: its interval against *{ALL}* leaves out 0.", ""]


def _of(run: Run, family: str, own: bool) -> Run:
    """The clips of this family, or of all others."""
    return {key: score for key, score in run.items() if (key[0] == family) == own}


def main(arguments: Sequence[str] | None = None, start: Start = started) -> int:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), help="left out in turn")
    parser.add_argument("--corpus", nargs="*", default=[], help="keys of recipe=corpus")
    parser.add_argument("--direct", action="store_true", help="one arm on the world's own draw")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.families if name not in FAMILIES]:
        parser.error(f"--families {unknown[0]}: there are {', '.join(FAMILIES)}")
    lists = (given.families, given.seeds, given.corpus, given.train)
    plan = Plan(given.out, *map(tuple, lists), direct=given.direct)
    if code := run_all(plan.commands(), start):
        return code
    keep_tables(given, "mixture", "What each family teaches", compared(plan, given.samples))
    return 0


if __name__ == "__main__":
    sys.exit(main())
