"""Make a corpus: videos and annotations become verified timelines, second by second, in shards."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from data_pipeline import chunk_summaries, verify
from data_pipeline.alone import Alone
from data_pipeline.candidates import CORRUPTION, Candidate
from data_pipeline.card import Checks, card
from data_pipeline.corpus_report import converted, report
from data_pipeline.costs import spent_in
from data_pipeline.desk import Desk
from data_pipeline.families import (
    Step,
    alerting,
    chat,
    commentary,
    counting,
    delegation,
    qa,
    share_out,
)
from data_pipeline.families.targets import Tools
from data_pipeline.find_record import history_of
from data_pipeline.funnel import Funnel, Spent, Tally
from data_pipeline.parts import run_parts
from data_pipeline.plan import make_plan
from data_pipeline.settle import settle
from data_pipeline.sources.convert import SOURCES, write
from data_pipeline.work import StageWork, Workshop
from data_pipeline.write import finish, writing
from joyvl_train.config import Config, UserError
from joyvl_train.run import Run, write_text
from recipes import _corpus as own
from recipes._codec import look as look_at_code
from recipes._export import export
from recipes._world import settings

LOOKS = ("inspect",)
"""Commands that look into a run and write nothing (`look`)."""


def main(config: Config, run: Run) -> None:
    """Source -> plan -> stages -> one look at all -> shards, card and report."""
    if config.command not in ("run", "convert", "export", "codec"):
        raise UserError(
            f"command={config.command}: recipe=corpus has run, convert, export, codec and inspect"
        )
    if config.command == "export":
        export(config, run)
        return
    if config.command == "codec":
        look_at_code(config, run)
        return
    if config.command == "convert":
        annotations_alone(config, run)
        return
    own.check(config)
    executor = own.executor_of(config)
    told = checks(config)
    if told.left_out:
        run.say(
            f"agents.url is empty: {', '.join(told.left_out)} left out for lack of agents; "
            "all that needs no model is done"
        )
    clock = _Clock(run)

    # Workers may run on other machines, in other folders.
    place, there = run.dir.absolute(), own.for_workers(config)

    # 1. One pass over the source; duplicates go, the rest is cut into parts.
    near, per_part = config.corpus.near_text, config.corpus.per_part
    made_from, root = own.source_signature(config), own.root(config)
    plan = make_plan(
        own.read(config, place), place / "plan", per_part, made_from, root=root, near_text=near
    )
    clock.tell("plan")

    # 2. The stages, part by part.
    work = StageWork(
        plan,
        place / "work",
        partial(workshop, there, place),
        own.stage_signature(config),
        root,
    )
    run_parts(plan.sizes, work, executor, place / "work", name="work")
    clock.tell("work")

    # 3. One look at all that is left: near-same clips, benchmarks' footage, the balance.
    settled = settle(work, place / "chosen", own.targets(config), own.apart(config))
    clock.tell("settle")

    # 4. What stays becomes shards, what doesn't is kept apart with its reason.
    corpus, rejects = place / "corpus", place / "rejects"
    pictures, quality = partial(own.clip_frames, there), config.corpus.quality
    signature = own.picture_signature(config)
    admission = writing(settled, corpus, rejects, pictures, signature, quality=quality)
    run_parts(plan.sizes, admission, executor, rejects, name="write")
    finish(admission)
    clock.tell("write")

    # 5. What came of it.
    funnel, spent, outcomes = admission.funnel(), work.spent(), settled.index["targets"]
    run.metrics(metrics(plan.read, funnel, spent))
    write_text(corpus / "README.md", card(config.source.kind, funnel, told, spent, outcomes))
    frames, shown = own.clip_frames(config), config.corpus.shown
    report(run.report, admission, funnel, told, spent, outcomes, frames, shown)
    run.say(summary(plan.read, funnel))
    if not funnel.status["open"]:
        run.say(f"nothing was admitted; {run.report} shows why")
    run.finish(latest=True)


def steps(config: Config, desk: Desk, tools: Tools) -> list[Step]:
    """All stages, in order; each works on the candidates that are its own."""
    corpus, families = config.corpus, own.families_of(config)
    made: list[Step] = [share_out(families)] if config.source.kind == "folder" else []
    if "alerting" in families:
        made += alerting.stages(desk, tools=tools, negatives=corpus.negatives)
    if "qa" in families:
        made += qa.stages(desk)
    if "commentary" in families:
        made += commentary.stages(desk)
    if "chat" in families:
        made += chat.stages(desk)
    if "counting" in families:
        made += counting.stages(desk, woven=corpus.woven)
    if "delegation" in families:
        made += delegation.stages(desk, text=corpus.problems, questions=corpus.handed_over)
    if isinstance(desk, Alone):
        made = [step for step in made if step[0] in own.WITHOUT_AGENTS]
    if corpus.verify != "off":
        made += verify.stages(desk, tools=tools, own=trained_on)
    return [*made, *chunk_summaries.stages(desk, settings(config))]


def trained_on(candidate: Candidate) -> bool:
    """A benchmark's records are as they are; all others are verified."""
    return candidate.use == "train"


def workshop(config: Config, folder: Path) -> Workshop:
    """What works on parts in one process."""
    agents = own.agents_of(config, _spent_before(folder))
    frames = own.clip_frames(config)
    desk: Desk
    if agents:
        desk = Desk(frames, agents, config.agents.window, config.seed)
    else:
        desk = Alone(frames, window=config.agents.window, seed=config.seed)
    stages = steps(config, desk, own.tools(own.tool_names(config)))

    def spent() -> Spent:
        counts = {name: agent.counts() for name, agent in agents.items()}
        return {name: counted for name, counted in counts.items() if counted["asked"]}

    def watch(note: Callable[[], None]) -> None:
        for agent in agents.values():
            agent.after = note

    return Workshop([stage for _, stage in stages], frames, spent, watch)


def _spent_before(folder: Path) -> dict[str, float]:
    """What was spent so far, which a cap on the whole run counts."""
    spent = spent_in(folder / "work" / "costs").values()
    return {name: sum(counts[name] for counts in spent) for name in ("cost", "tokens")}


def checks(config: Config) -> Checks:
    """Who looks at the clips of this run, and what is left out for lack of agents."""
    agents = own.agents_of(config, {})
    return Checks(
        config.corpus.verify,
        config.agents.model if agents else "",
        {name: agent.key for name, agent in agents.items()},
        own.tool_names(config),
        own.left_out(config),
        config.source.kind == "world",
        config.source.corrupt,
    )


def metrics(read: int, funnel: Funnel, spent: Spent) -> dict[str, float | int | None]:
    """The flat figures of a corpus.

    corpus/read counts the source's items, corpus/candidates what they were made into:
    candidates = refused + rejected + unverified + admitted.
    """
    found: dict[str, float | int | None] = {
        "corpus/read": read,
        "corpus/candidates": funnel.read,
        "corpus/refused": funnel.status["refused"],
        "corpus/rejected": funnel.status["rejected"],
        "corpus/unverified": funnel.status["unverified"],
        "corpus/admitted": funnel.status["open"],
        "corpus/hours": funnel.whole.seconds / 3600,
        "corpus/events": funnel.whole.events,
        "corpus/silence_share": funnel.whole.silence,
    }
    families: dict[str, Tally] = {}
    for family, tally in funnel.by["family"].items():
        families.setdefault(_name(family), Tally()).merge(tally)
    for family, tally in families.items():
        found[f"corpus/family/{family}"] = tally.clips
        found[f"corpus/family/{family}/hours"] = tally.seconds / 3600
        found[f"corpus/family/{family}/silence_share"] = tally.silence
    if CORRUPTION in funnel.stages:
        hurt, left = funnel.damaged()
        found |= {"corpus/damaged": hurt, "corpus/damaged/admitted": left}
    for reason, count in funnel.refused.items():
        found[f"corpus/refused/{_name(reason)}"] = count
    for name, stage in funnel.stages.items():
        for reason, count in (stage.rejected + stage.unverified).items():
            found[f"corpus/left/{_name(name)}/{_name(reason)}"] = count
    for agent, counts in spent.items():
        for what in ("asked", "calls", "cached", "tokens", "cost"):
            found[f"agents/{agent}/{what}"] = counts[what]
    for what in ("calls", "tokens", "cost"):
        found[f"agents/{what}"] = sum(counts[what] for counts in spent.values())
    return found


def _name(text: str) -> str:
    return text.replace(" ", "_").replace("/", "_")


def summary(read: int, funnel: Funnel) -> str:
    """The run in a line."""
    status, whole = funnel.status, funnel.whole
    silence = "" if whole.silence is None else f", {whole.silence:.1%} of seconds silent"
    return (
        f"{read} items read, {status['open']} clips admitted ({whole.seconds / 3600:.2f} h, "
        f"{whole.events} events{silence}), {status['rejected']} rejected, "
        f"{status['unverified']} unverified, {status['refused']} refused"
    )


class _Clock:
    """Logs how long each phase took by the clock, and how long processors worked on it: those of
    this process and of its workers on this machine. One that was done before takes no time."""

    def __init__(self, run: Run) -> None:
        self._run, self._phases = run, 0
        self._since, self._worked = time.monotonic(), _worked()

    def tell(self, phase: str) -> None:
        now, worked = time.monotonic(), _worked()
        took = {"seconds": now - self._since, "processor_seconds": worked - self._worked}
        rounded = {name: round(value, 3) for name, value in took.items()}
        self._run.log(self._phases, {"phase": phase, **rounded})
        self._since, self._worked, self._phases = now, worked, self._phases + 1


def _worked() -> float:
    """Seconds that processors have worked for this process and for its children that ended."""
    return sum(os.times()[:4])


# Side commands


def annotations_alone(config: Config, run: Run) -> None:
    """Annotations become timelines without a look at any video: frames may come later."""
    source = config.source
    if source.kind not in SOURCES:
        raise UserError(
            f"source={source.kind}: has no annotations to convert; take one of {', '.join(SOURCES)}"
        )
    videos = own.videos(config).root if source.videos else None
    counts = write(own.converted(config, videos, run.dir), run.dir)
    run.metrics(counts)
    converted(run.report, source.kind, counts, run.dir)
    run.say(
        f"{counts['convert/read']} items read, {counts['convert/written']} written to "
        f"{run.dir / 'timelines.jsonl'}, {counts['convert/rejected']} rejected"
    )
    run.finish(latest=False)


def look(config: Config, home: Path) -> None:
    """Prints the whole history of the record `id` of a run: of run.dir, else of the latest."""
    folder = Path(config.run.dir or Path(config.run.root) / "latest" / "corpus")
    if not config.id:
        raise UserError("id is empty: name a record, id=..., as the report and the rejects do")
    if not (folder / "plan").is_dir():
        raise UserError(f"{folder}: is no run of recipe=corpus; name one, run.dir=DIR")
    print(history_of(config.id, folder), end="")
