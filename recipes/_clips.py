"""What recipe=grpo draws its windows from: clips, questions, and seconds that tempt to speak."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from functools import partial
from typing import Any

from data_pipeline.world import stills
from data_pipeline.world.corpus import WorldStreams, family_weights
from data_pipeline.world.summaries import summarize
from joyvl_train.config import Config, UserError
from joyvl_train.corpus_samples import CorpusClips
from joyvl_train.frames import Frames
from joyvl_train.memory import log_summary
from joyvl_train.ranks import of_all, wait_for_all
from joyvl_train.records import Rejects
from joyvl_train.rendering import Renderer
from joyvl_train.run import Run, write_text
from joyvl_train.samples import Streams
from joyvl_train.timeline import Timeline, TimelineError
from joyvl_train.timing import classify
from recipes._data import left_out, side_of
from recipes._speaking import stream_model
from recipes._world import check_assets, rate
from rl.plan import Plan, Reject
from rl.questions import Question
from rl.windows import Sizes

_QUESTIONS = 10**6
APART = 1 << 20
"""Seeds of training streams that SFT never drew."""


def question(number: int, config: Config) -> Question:
    """A turn-based question of the world."""
    pool = stills.pool("late")
    return stills.at(
        number,
        split="train",
        seed=f"grpo/{config.seed}",
        mix=pool.mix,
        pictures=config.data.kind,  # type: ignore[arg-type]
        backgrounds=pool.backgrounds,
    )


def told(timeline: Timeline, turns: Any, chars: int) -> str:
    """What memory says of turns left behind: of the world what was seen, too."""
    tell = log_summary if timeline.clip.scene is None else partial(summarize, timeline)
    return tell(turns, chars)


def training_clips(config: Config, run: Run) -> Streams:
    """The clips that windows are drawn from: the world's, of other seeds than SFT trained on, or
    the training side of a corpus."""
    data = config.data
    if data.kind == "path":
        rejects = Rejects(run.dir / "rejects.jsonl")
        clips = CorpusClips(side_of(config, "train", rejects, left_out(config)))
        if not len(clips):
            raise UserError(f"data.path={data.path}: holds no stream to train on")
        return clips
    check_assets(config)
    families = family_weights(data.families, data.mix, data.hard)
    if not any(families.values()):
        raise UserError(f"data.mix={data.mix}: every family has the weight 0; raise one of them")
    return WorldStreams(
        "train",
        APART + config.seed,
        data.train_streams,
        families,
        data.kind,  # type: ignore[arg-type]
        data.size,
        rate(config),
        data.footage,
        data.longest,
        data.shortest,
    )


def lures(timeline: Timeline) -> Iterable[int]:
    """Seconds in which something comes or goes, of a rendered clip."""
    tracks = (timeline.clip.scene or {}).get("tracks", ())
    return sorted({math.floor(track[key]) for track in tracks for key in ("start", "stop")})


def rejecting(run: Run, clips: Streams) -> Reject:
    """What writes down clips that can't be used, in the run's rejects."""
    if isinstance(clips, CorpusClips):
        return clips.reject
    rejects = Rejects(run.dir / "rejects.jsonl")
    return lambda clip, error: rejects.add(f"training clip {clip}", error.reason, error.detail)


def plan_of(config: Config, run: Run, clips: Streams, alarms: dict[int, list[int]]) -> Plan:
    """The windows of these clips."""
    windows = config.windows
    return Plan(
        clips,
        Sizes(windows.before, windows.after, windows.silence, windows.pending),
        windows.mix,
        questions=0 if config.data.kind == "path" else _QUESTIONS,
        seed=config.seed,
        lures=lures,
        alarms=alarms,
        remeasure=windows.remeasure,
        most=config.stream.chunk - 2 * config.stream.lead,
        early=config.eval.early,
        late=config.eval.late,
        reject=rejecting(run, clips),
        timeline=clips.timeline if isinstance(clips, CorpusClips) else None,
    )


def mined(
    config: Config, run: Run, model: Any, renderer: Renderer, clips: Streams
) -> dict[int, list[int]]:
    """Clip -> the seconds in which the starting model spoke though nothing was due. Every rank
    looks at its share of the clips."""
    note = run.dir / "alarms.json"
    wait_for_all()
    if not note.exists():
        count = min(config.windows.mine, len(clips))
        rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        run.say(f"the starting model's own false alarms are looked for on {count} streams")
        cases: list[tuple[Timeline, Frames]] = []
        kept: list[int] = []
        broken = 0
        reject = rejecting(run, clips)
        for number in range(rank, count, ranks):
            try:
                timeline, frames = clips[number]
                if config.data.kind == "path":  # all advance together: a broken picture ends all
                    for second in range(frames.seconds):
                        frames.frames(second)
            except TimelineError as error:
                reject(number, error)
                broken += 1
                continue
            cases.append((timeline, frames))
            kept.append(number)
        traces = stream_model(model, renderer, config, cases) if cases else []
        found = {
            number: [said.second for said in classify(t.onsets, t.emissions).false_alarms]
            for number, t in zip(kept, traces, strict=True)
        }
        lost = 0
        for part, without in of_all((found, broken)):
            found |= part
            lost += without
        if lost:
            run.say(
                f"{lost} of these streams can't be used: {run.dir / 'rejects.jsonl'} names each"
            )
        if run.is_main:
            write_text(note, json.dumps({n: found[n] for n in sorted(found) if found[n]}))
        wait_for_all()
    told = json.loads(note.read_text(encoding="utf-8"))
    run.say(
        f"{sum(map(len, told.values()))} false alarms of the starting model are in silence windows"
    )
    return {int(number): seconds for number, seconds in told.items()}
