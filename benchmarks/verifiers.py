"""How often each verifying agent catches a damaged timeline, and how often it refuses a right one.

    python benchmarks/verifiers.py [--clips 40] [--tuning 40] [--checkpoint models/tiny]

Streams of the rendered world are right by construction; `data_pipeline.corruption` damages each in
every way it offers. Agents are run as the pipeline runs them: rules and tools in this process, the
model as `recipe=base` made it, behind its own HTTP server. The families whose evidence an agent can
see are named here, before anything is measured. Thresholds are chosen on streams of the validation
split: of those settings that refuse at most 15 % of the right ones, the one that catches most. For
"together" the agents that see the same families get theirs anew, all at once and by the same rule,
since what each refuses adds up; one that adds nothing is left out. The figures are from the test
split, with other seeds. A candidate that an agent leaves unverified is not admitted: it counts as
caught where it is damaged, as refused where it is right, and is shown apart.

"reading" are the world's on-screen words, read out as they stand (its own streams translate them).
Intervals are 95 %: Wilson's where a clip counts once, a bootstrap over clips where several damages
of one clip are taken together.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.verifier_cases import READING, RIGHT, Case, Shown, cases
from data_pipeline import verify
from data_pipeline.agents.asking import wait_for
from data_pipeline.agents.detector import Detector
from data_pipeline.agents.motion import Motion
from data_pipeline.agents.ocr import Ocr
from data_pipeline.agents.own_model import served
from data_pipeline.agents.plain import PlainAgent
from data_pipeline.claims import USUAL, Thresholds
from data_pipeline.corruption import KINDS
from data_pipeline.desk import Desk
from data_pipeline.families import Step, chained
from data_pipeline.families.targets import Tools
from data_pipeline.rates import Rate, over_clips, wilson
from data_pipeline.world import photos
from data_pipeline.world.splits import Split
from data_pipeline.world.streams import FAMILIES
from joyvl_train.llm import Client
from joyvl_train.run import write_text

RESULTS = Path(__file__).parent / "results" / "verifiers.md"

ALL = (*FAMILIES, READING)
MOST_REFUSED = 0.15
SIDE, MODEL_SIDE = 256, 96
"""Pixels of the pictures; the model sees them as small as those that it was trained on."""


@dataclass(frozen=True)
class Setting:
    """Thresholds of the tools and of the model; what an agent doesn't have plays no part."""

    tools: Thresholds = USUAL
    score: float = 0.5
    names: bool = True
    least: float = 0.6
    least_before: float = 0.6
    back: int = 1
    over: int = 1

    def __str__(self) -> str:
        told = [f"{k} {v}" for k, v in vars(self).items() if k != "tools" and v != getattr(_SET, k)]
        told += [f"{k} {v}" for k, v in _of(self.tools).items() if v != getattr(USUAL, k)]
        return ", ".join(told) or "as they come"


def _of(thresholds: Thresholds) -> dict[str, Any]:
    return {
        name: getattr(thresholds, name) for name in ("still", "unread", "read_before", "pictures")
    }


_SET = Setting()


@dataclass(frozen=True)
class Verifier:
    """name; the families whose evidence it can see; its stages under a setting; the settings that
    are tried."""

    name: str
    sees: tuple[str, ...]
    steps: Callable[[Desk, Setting], list[Step]]
    settings: tuple[Setting, ...] = (Setting(),)


@dataclass
class Outcome:
    """What became of a case."""

    case: Case
    status: str

    @property
    def admitted(self) -> bool:
        return self.status == "open"


# Agents.


@dataclass
class Once:
    """A tool that looks at each picture once, whatever the thresholds of those who ask."""

    tool: Any
    found: dict[int, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return str(self.tool.key)

    def can_read(self, text: str) -> bool:
        return bool(self.tool.can_read(text))

    def __call__(self, picture: Image.Image) -> Any:
        seen = hash(picture.tobytes())
        if seen not in self.found:
            self.found[seen] = self.tool(picture)
        return self.found[seen]


@dataclass
class Sure:
    """A detector that tells of what it is sure of alone."""

    detector: Once
    score: float

    @property
    def key(self) -> str:
        return self.detector.key

    def __call__(self, picture: Image.Image) -> list[Any]:
        return [one for one in self.detector(picture) if one.score >= self.score]


def verifiers(client: Client | None, chosen: Mapping[str, Setting]) -> list[Verifier]:
    """The agents, each with the families that it can see. The last is all of them together that
    have a chosen setting."""
    motion, detector, ocr = Motion(), Once(Detector(least_score=0.1)), Once(Ocr())

    def tools(desk: Desk, setting: Setting, **given: Any) -> list[Step]:
        look = partial(verify.by_tools, desk, Tools(**given), setting.tools, 4)
        return [("tools", desk.looking("tools", look))]

    def rules(desk: Desk, setting: Setting) -> list[Step]:
        return [("rules", desk.looking("rules", verify.by_rules))]

    def moves(desk: Desk, setting: Setting) -> list[Step]:
        return tools(desk, setting, motion=motion)

    def detects(desk: Desk, setting: Setting) -> list[Step]:
        return tools(desk, setting, detects=Sure(detector, setting.score))

    def reads(desk: Desk, setting: Setting) -> list[Step]:
        return tools(desk, setting, reads=ocr)

    def asks(desk: Desk, setting: Setting) -> list[Step]:
        assert client is not None
        agent = PlainAgent(
            "local_verifier",
            client,
            names=setting.names,
            least=setting.least,
            least_before=setting.least_before,
            back=setting.back,
            over=setting.over,
            picture_side=MODEL_SIDE,
        )
        asked = replace(desk, agents={agent.name: agent})
        return [("local", desk.asking("local", partial(verify.local, asked, 4, 0)))]

    seen, last = ("alerting", "commentary"), (1, 2)
    stills = (0.0005, 0.001, 0.002, 0.005, 0.01)
    reading = {"unread": (0.3, 0.5, 0.7, 0.9), "read_before": (0.7, 0.9, 1.1)}
    made = [
        Verifier("rules", ("qa", "delegation"), rules),
        Verifier("motion", seen, moves, _settings(last, still=stills)),
        Verifier("detector", seen, detects, _settings(last, score=(0.15, 0.3, 0.5))),
        Verifier("ocr", (READING,), reads, _settings(last, **reading)),
    ]
    if client is not None:
        asked = tuple(
            Setting(names=names, least=least, least_before=before, back=back, over=over)
            for names in (True, False)
            for least in (0.4, 0.6, 0.8)
            for before, back, over in (
                *((0.0, 1, 1), (0.4, 1, 1), (0.8, 1, 1), (0.4, 2, 1), (0.8, 2, 1)),
                *((0.5, 1, 3), (0.7, 1, 3), (0.85, 1, 3)),
            )
        )
        made.append(Verifier("model", seen, asks, asked))

    def together(desk: Desk, setting: Setting) -> list[Step]:
        used = [one for one in made if one.name in chosen]
        return [step for one in used for step in one.steps(desk, chosen[one.name])]

    return [*made, Verifier("together", seen, together)]


def _settings(pictures: Sequence[int], **grid: Sequence[float]) -> tuple[Setting, ...]:
    """All values of these thresholds with each number of pictures."""
    if "score" in grid:
        return tuple(
            Setting(Thresholds(pictures=n), score=v) for v in grid["score"] for n in pictures
        )
    each = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    return tuple(Setting(Thresholds(pictures=n, **own)) for own in each for n in pictures)


# Figures.


def outcomes(one: Verifier, setting: Setting, given: Sequence[Case], desk: Desk) -> list[Outcome]:
    """What becomes of the cases under one agent."""
    ends = list(chained(one.steps(desk, setting), (case.candidate for case in given)))
    return [Outcome(case, end.status) for case, end in zip(given, ends, strict=True)]


def refused(found: Sequence[Outcome]) -> Rate:
    """Right ones that are not admitted."""
    right = [o for o in found if o.case.kind == RIGHT]
    return wilson(sum(not o.admitted for o in right), len(right))


def caught(found: Sequence[Outcome], kind: str | None = None) -> Rate:
    """Damaged ones, of a kind or of all kinds, that are not admitted."""
    hurt = [o for o in found if (o.case.kind == kind if kind else o.case.kind != RIGHT)]
    clips: dict[str, list[bool]] = {}
    for o in hurt:
        clips.setdefault(o.case.clip, []).append(not o.admitted)
    if kind:
        return wilson(sum(map(sum, clips.values())), len(hurt))
    return over_clips([(sum(hits), len(hits)) for hits in clips.values()])


Tried = list[tuple[Setting, list[Outcome]]]
"""What became of an agent's cases under each of its settings."""


def tried(one: Verifier, given: Sequence[Case], desk: Desk) -> Tried:
    """On the cases of the families that it can see."""
    mine = [case for case in given if case.family in one.sees]
    return [(setting, outcomes(one, setting, mine, desk)) for setting in one.settings]


def choose(found: Tried) -> tuple[Setting, bool]:
    """The setting that catches most on these cases, of those that refuse few right ones; the one
    that refuses fewest where all refuse too many. And whether it refuses few."""
    ranked = []
    for number, (setting, ends) in enumerate(found):
        lost, hit = refused(ends).value, caught(ends).value
        few = not lost > MOST_REFUSED  # where nothing was to be refused, it stays
        ranked.append(((few, hit if few else -lost, -lost, -number), setting))
    best, setting = max(ranked, key=lambda entry: entry[0])
    return setting, best[0]


def choose_together(
    agents: Mapping[str, Tried], others: Sequence[Sequence[Outcome]], given: Sequence[Case]
) -> dict[str, Setting]:
    """A setting, or none, for each of the agents that were tried on `given`: those that catch most,
    of all that refuse few right ones between them and `others`, whose outcomes stand. Of equal ones
    those that refuse fewest, then the fewest agents."""
    right = np.array([case.kind == RIGHT for case in given])
    stands = np.ones(len(given), bool)
    for found in others:
        stands &= [o.admitted for o in found]
    options = [
        [(None, np.ones(len(given), bool))]
        + [(setting, np.array([o.admitted for o in ends])) for setting, ends in found]
        for found in agents.values()
    ]
    ranked = []
    for number, combination in enumerate(product(*options)):
        admitted = np.logical_and.reduce([stands, *(ends for _, ends in combination)])
        lost = float(1 - admitted[right].mean()) if right.any() else 0.0
        hit = float(1 - admitted[~right].mean()) if not right.all() else 0.0
        used = sum(setting is not None for setting, _ in combination)
        if lost <= MOST_REFUSED:
            ranked.append(((hit, -lost, -used, -number), combination))
    if not ranked:
        return {}
    _, best = max(ranked, key=lambda entry: entry[0])
    pairs = zip(agents, best, strict=True)
    return {name: setting for name, (setting, _) in pairs if setting is not None}


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def told(found: Mapping[str, list[Outcome]], made: Sequence[Verifier]) -> str:
    """The tables of all agents."""
    seen = {v.name: [o for o in found[v.name] if o.case.family in v.sees] for v in made}
    names = [v.name for v in made]
    whole = [[v.name, ", ".join(v.sees), caught(seen[v.name]), refused(seen[v.name])] for v in made]
    kinds = [[kind, *(caught(seen[name], kind) for name in names)] for kind in KINDS]
    rows = []
    for family in dict.fromkeys(o.case.family for o in found[names[0]]):
        for v in made:
            mine = [o for o in found[v.name] if o.case.family == family]
            right = [o for o in mine if o.case.kind == RIGHT]
            apart = wilson(sum(o.status == "unverified" for o in right), len(right))
            mark = "yes" if family in v.sees else ""
            rows.append([family, v.name, mark, caught(mine), refused(mine), apart])
    return "\n".join(
        [
            "## In the families that an agent can see\n",
            table(["agent", "families named before", "damaged: caught", "right: refused"], whole),
            "## Caught, by kind of damage, in the same families\n",
            table(["damage", *names], kinds),
            "## Every family\n",
            table(
                [
                    "family",
                    "agent",
                    "named",
                    "damaged: caught",
                    "right: refused",
                    "of these unverified",
                ],
                rows,
            ),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=40, help="of each family, for the figures")
    parser.add_argument("--tuning", type=int, default=40, help="of each family, for thresholds")
    parser.add_argument("--families", nargs="+", choices=ALL, default=list(ALL))
    parser.add_argument("--checkpoint", type=Path, default=Path("models/tiny"))
    parser.add_argument("--no-model", action="store_true", help="tools alone")
    parser.add_argument("--drawn", action="store_true", help="no photographic things")
    parser.add_argument("--seed", type=int, default=5, help="of the figures")
    parser.add_argument("--tuning-seed", type=int, default=6)
    parser.add_argument("--window", type=int, default=32, help="candidates in flight")
    parser.add_argument("--cache", type=Path, help="where the model's answers are kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.seed == arguments.tuning_seed:
        parser.error("--seed and --tuning-seed are the same: figures need seeds of their own")
    started = time.perf_counter()
    photo = not arguments.drawn and photos.available()

    def drawn(split: Split, seed: int, clips: int) -> list[Case]:
        return [c for f in arguments.families for c in cases(f, split, seed, clips, photo)]

    with ExitStack() as stack:
        client = None
        if not arguments.no_model:
            endpoint = stack.enter_context(served(arguments.checkpoint))
            cache = arguments.cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            client = Client(endpoint, cache=cache, concurrency=arguments.window)
            stack.callback(lambda: wait_for(client.close()))
        desk = Desk(Shown(SIDE), window=arguments.window)
        chosen, best = dict[str, Setting](), dict[str, Setting]()
        made = verifiers(client, chosen)
        tuning = drawn("validation", arguments.tuning_seed, arguments.tuning)
        whole, peers, others = made[-1], dict[str, Tried](), list[list[Outcome]]()
        seen = [case for case in tuning if case.family in whole.sees]
        for one in made[:-1]:
            found_by = tried(one, tuning, desk)
            best[one.name], few = choose(found_by)
            if one.sees == whole.sees:
                peers[one.name] = found_by
            elif few:
                chosen[one.name] = best[one.name]
                others.append(outcomes(one, best[one.name], seen, desk))
        chosen |= choose_together(peers, others, seen)
        best[whole.name] = whole.settings[0]
        figures = drawn("test", arguments.seed, arguments.clips)
        found = {one.name: outcomes(one, best[one.name], figures, desk) for one in made}
    settings = [[v.name, best[v.name], chosen.get(v.name, "left out")] for v in made[:-1]]
    asked = "none"
    if client is not None:
        asked = f"{arguments.checkpoint}, {client.usage.requests} requests"
    text = f"""# Verifying agents against damaged timelines

{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, Python \
{platform.python_version()}; {time.perf_counter() - started:.0f} s; model: {asked}; \
{arguments.clips} clips a family, {len(figures)} candidates, seed {arguments.seed}; thresholds \
from {arguments.tuning} clips a family, seed {arguments.tuning_seed}; \
{"drawn and photographic" if photo else "drawn"} things. `python benchmarks/verifiers.py` \
explains itself in its first lines.

{told(found, made)}
## Settings that were chosen

{table(["agent", "alone", "in together"], settings)}"""
    print(text)
    arguments.out.parent.mkdir(exist_ok=True)
    write_text(arguments.out, text)


if __name__ == "__main__":
    main()
