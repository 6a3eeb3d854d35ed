"""Arms of a comparison: models trained in several ways, each with several seeds, and scored on the
same held-out streams of the world."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.compare_runs import Finished, find  # noqa: E402
from benchmarks.result_page import keep, page, versions  # noqa: E402

Start = Callable[[Sequence[str]], int]
"""Runs a command line of the package; its exit code."""


@dataclass(frozen=True)
class Arms:
    """The runs of all arms, below `out`; values are overrides of command lines: of `recipe`, which
    trains, and of recipe=sft, which scores."""

    out: Path
    arms: Mapping[str, Sequence[str] | None]
    """Of training, of each arm by name. None: `start` is scored as it is."""
    seeds: Sequence[int] = (0,)
    train: Sequence[str] = ()
    """Of training, of all arms."""
    score: Sequence[str] = ()
    """Of scoring, of all arms."""
    recipe: str = "sft"
    start: str = ""
    views: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Of training and of scoring, of an arm: how it sees its streams."""

    def place(self, what: str, arm: str, seed: int | None = None) -> Path:
        folder = self.out.absolute() / what / arm.replace(" ", "-")
        return folder if seed is None else folder / str(seed)

    @property
    def root(self) -> str:
        return f"run.root={self.out.absolute() / 'runs'}"

    def commands(self) -> Iterator[list[str]]:
        """What is run, in order: all arms of a seed before the next seed."""
        for seed in self.seeds:
            for arm, own in self.arms.items():
                trained, scored = (self.place(what, arm, seed) for what in ("trained", "scored"))
                view = self.views.get(arm, ())
                if own is not None:
                    keys = [*self.train, *view, *own, f"run.dir={trained}"]
                    given = [self.root, f"seed={seed}", *keys]
                    yield [f"recipe={self.recipe}", *given, "train.eval_every=0"]
                source = self.start if own is None else trained
                from_it = ["command=evaluate", f"checkpoint={source}", f"run.dir={scored}"]
                yield ["recipe=sft", self.root, f"seed={seed}", *self.score, *view, *from_it]

    def runs(self) -> dict[str, list[Finished]]:
        """The scored runs of each arm, by seed, with the figures of their training."""
        return {arm: [self._run(arm, seed) for seed in self.seeds] for arm in self.arms}

    def _run(self, arm: str, seed: int) -> Finished:
        trained = self.place("trained", arm, seed) / "metrics.json"
        known = json.loads(trained.read_text(encoding="utf-8")) if trained.exists() else {}
        (run,) = find([self.place("scored", arm, seed)])
        return replace(run, metrics={**known, **run.metrics})


def parser_of(told: str) -> argparse.ArgumentParser:
    """The options that all comparisons have. told: the script's own text."""
    parser = argparse.ArgumentParser(description=told.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of training")
    parser.add_argument("--train", nargs="*", default=[], help="keys of training, all arms")
    parser.add_argument("--samples", type=int, default=2000, help="bootstrap samples")
    parser.add_argument("--results", type=Path, help="a page to keep the tables in")
    return parser


def keep_tables(given: argparse.Namespace, script: str, title: str, lines: Sequence[str]) -> None:
    """Keeps a comparison, with the keys that it was made with: in --results, or OUT/script.md."""
    used = {
        what: without_places(keys)
        for what in ("corpus", "train", "score")
        if (keys := getattr(given, what, None))
    }
    note = [f"Keys of {what}: {keys}." for what, keys in used.items()]
    text = page(title, f"{script}.py", versions("torch", "transformers"), lines, note)
    keep(given.results or given.out / f"{script}.md", text)


def started(arguments: Sequence[str]) -> int:
    """In a process of its own."""
    return subprocess.run([sys.executable, "-m", "joyvl_train", *arguments], cwd=ROOT).returncode


def without_places(keys: Iterable[str]) -> str:
    """Keys for a page, without those that name places."""
    places = ("data.cache_dir=", "agents.cache=", "run.dir=", "run.root=")
    return " ".join(key for key in keys if not key.startswith(places))


def run_all(commands: Iterable[Sequence[str]], start: Start) -> int:
    """One after the other; the exit code of the first that fails, or 0."""
    return next((code for command in commands if (code := start(command))), 0)
