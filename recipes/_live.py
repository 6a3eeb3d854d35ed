"""recipe=eval command=live: cases in real time, over RTSP, beside the simulated clock."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from eval.case import Case
from eval.grades import Grade, Unscored
from eval.live import as_heard, play_live, served, shift, write_video
from eval.opening import open_system
from eval.play import play
from eval.suite import View, frames_of, slug
from eval.verdicts import by_rules
from joyvl_train.config import Config, UserError
from joyvl_train.markup import Cell
from joyvl_train.report import page, section, table
from joyvl_train.run import Run
from recipes._cases import systems


def live(config: Config, run: Run, cases: Sequence[Case], view: View) -> None:
    """Plays each case to the first system twice, simulated and live; how far they lie apart."""
    spec = systems(config, run, cases)[0]
    if not cases:
        raise UserError("there is no case to play; see to cases.suite, cases.paths and cases.only")
    run.use_threads()
    system = open_system(spec)
    rows: list[list[Cell]] = []
    same = 0
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as address:
        for case in cases:
            frames = frames_of(case, view)
            video = Path(folder) / f"{slug(case.id)}.mp4"
            write_video(video, frames)
            run.say(f"{case.id}: {frames.seconds} s in real time")
            seen = play_live(
                case,
                frames.seconds,
                system,
                f"{address}{video.name}",
                side=view.side,
                seed=config.seed,
            )
            heard = as_heard(seen)
            simulated = play(case, frames, system, config.seed).trace
            grades = [by_rules(case, simulated), by_rules(case, heard)]
            apart = shift(simulated, heard)
            same += grades[0] == grades[1]
            told = [_told(grade) for grade in grades]
            behind = max(seen.latencies, default=0.0)
            rows.append([case.id, *told, "other texts" if apart is None else apart, behind])
    heads = ["case", "simulated: quality, timing", "live", "seconds apart", "longest delay, s"]
    run.metrics({"live/cases": len(rows), "live/same_verdict": same})
    page(run.report, "Live", [section("Live beside simulated", table(heads, rows))])
    run.say(f"{same} of {len(rows)} cases with the same verdict live as simulated")


def _told(grade: Grade | Unscored) -> str:
    if isinstance(grade, Unscored):
        return f"unscored: {grade.reason}"
    return f"{grade.quality:g}, {grade.timing:g}"
