"""What a model still knows of its user after ten minutes.

    python benchmarks/ten_minutes.py RUN [NAME=RUN ...] --out outputs/ten [--set KEY=VALUE ...]

Twelve streams in which things come and go for ten minutes. In the first ten seconds the user tells
a name and a liking; from second 597 on each is asked for three times, across the end of a chunk. In
half of the streams all that happens is described, as the user asks at the start. They are played as
cases of one's own (`recipe=eval cases=own`); what is played already is not played again. Beside the
share of right answers stands how much is said in a minute of what is not to be described, the
answers apart.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.result_page import keep, named_runs, page, row, versions
from benchmarks.trained_arms import Start, run_all, started
from data_pipeline.world.stories.chat import liked, met
from eval.play import Played
from eval.suite import read_transcripts
from joyvl_train.actions import spoken
from joyvl_train.content import right
from joyvl_train.run import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "ten_minutes.md"
SCENE = ROOT / "eval/cases/scenarios/memory/name-and-taste-after-ten-minutes.yaml"
ASKED_FROM, APART, STOP = 597, 4, 622
USERS = (
    ("Hugo", "My name is {}.", "turtle", "Of all things I like the {}."),
    ("Grace", "I am {}.", "banana", "I really like the {}."),
    ("Felix", "People call me {}.", "star", "My favourite is the {}."),
    ("Ida", "Call me {}.", "boat", "I love the {} most."),
    ("Ben", "You can call me {}.", "kite", "Nothing beats the {}."),
    ("Emma", "This is {} speaking.", "drum", "The {} makes me happy."),
)
"""Of each: the name, how it is told, the liking, how that is told."""
QUESTIONS = (
    ("What is my name?", "What is my favourite?"),
    ("Do you remember my name?", "What do I like best?"),
    ("Who am I?", "What am I fond of?"),
)


@dataclass(frozen=True)
class Told:
    """Of some streams: how many of how many questions were answered rightly, and what was said
    besides, in a minute."""

    name: tuple[int, int]
    liking: tuple[int, int]
    besides: float


def cases(described: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """The six streams of a kind, as cases by name."""
    known = yaml.safe_load(SCENE.read_text(encoding="utf-8"))
    for number, (name, told, liking, tells) in enumerate(USERS):
        case: dict[str, Any] = copy.deepcopy({k: known[k] for k in ("scenario", "stream")})
        case["about"] = f"{name} and the {liking}, asked for after ten minutes."
        case["memory"] = 300
        things = case["stream"]["things"]
        for thing in things:
            thing["from"] = max(thing["from"], 14)
        case["stream"] |= {
            "seconds": STOP,
            "things": [thing for thing in things if thing["from"] < ASKED_FROM - 1],
        }
        user = [
            {"at": 3, "says": told.format(name)},
            {"at": 9, "says": tells.format(liking)},
            {"at": 300, "says": "How are you?"},
        ]
        due = [
            {"at": 3, "says": met(name), "facts": [name]},
            {"at": 9, "says": liked(liking), "facts": [liking]},
        ]
        if described:
            user.insert(0, {"at": 0, "says": "Describe what happens."})
        else:
            case["quiet"] = [{"from": 20, "to": 100}]
        second = ASKED_FROM
        for turn in range(len(QUESTIONS)):
            asked = QUESTIONS[(number + turn) % len(QUESTIONS)]
            answers = ((f"You are {name}.", name), (f"The {liking}.", liking))
            for text, (answer, fact) in zip(asked, answers, strict=True):
                user.append({"at": second, "says": text})
                due.append({"at": second, "says": answer, "facts": [fact]})
                second += APART
        yield (
            f"{number}-{'described' if described else 'quiet'}",
            {**case, "user": user, "due": due},
        )


def write_cases(folder: Path) -> None:
    """All twelve as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for described in (False, True):
        for name, case in cases(described):
            write_text(folder / f"{name}.yaml", yaml.safe_dump(case, sort_keys=False))


def counted(played: Mapping[str, Played], kind: str) -> Told:
    """What came of the streams of a kind."""
    names, likings, besides, seconds = [0, 0], [0, 0], 0, 0
    for case, one in played.items():
        if not case.endswith(kind):
            continue
        said = {step.second: spoken(step.action) for step in one.trace.steps}
        for onset in one.trace.onsets:
            if onset.second < ASKED_FROM or onset.rule is None:
                continue
            answer = said.get(onset.second)
            ok = answer is not None and right(onset.rule, onset.text, answer) is True
            count = names if onset.text.startswith("You are") else likings
            count[0] += ok
            count[1] += 1
        asked = {step.second for step in one.trace.steps if step.queries}
        besides += sum(text is not None and at not in asked for at, text in said.items())
        seconds += len(one.trace.steps)
    return Told((names[0], names[1]), (likings[0], likings[1]), 60 * besides / max(seconds, 1))


def table(runs: Mapping[str, Path], out: Path) -> list[str]:
    """All runs, once they are played."""
    head = ["run", "streams", "name right", "liking right", "said besides, a minute"]
    lines = [row(head), row(["---"] * len(head))]
    for name in runs:
        played = read_transcripts(out / name / "transcripts")["model"]
        ran = {case: one for case, one in played.items() if isinstance(one, Played)}
        for kind in ("quiet", "described"):
            told = counted(ran, kind)
            shares = [f"{got} of {of}" for got, of in (told.name, told.liking)]
            lines.append(row([name, kind, *shares, f"{told.besides:.1f}"]))
    return lines


def main(arguments: Sequence[str] | None = None, start: Start = started) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", help="folders of runs, or NAME=FOLDER")
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--set", nargs="*", default=[], help="further keys, of all runs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    out, runs = given.out.absolute(), named_runs(given.runs)
    write_cases(out / "cases")
    own = ["recipe=eval", "cases=own", f"cases.paths=[{out / 'cases'}]", "cases.systems=[model]"]
    due = [
        [*own, f"checkpoint={run.absolute()}", f"run.dir={out / name}", *given.set]
        for name, run in runs.items()
        if not (out / name / "finished").exists()
    ]
    if code := run_all(due, start):
        return code
    note = [f"Keys: {' '.join(given.set)}."] if given.set else []
    packages = versions("torch", "transformers")
    title = "What is still known after ten minutes"
    keep(given.results, page(title, "ten_minutes.py", packages, table(runs, out), note))
    return 0


if __name__ == "__main__":
    sys.exit(main())
