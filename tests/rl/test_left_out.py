"""What a step can't roll out, judge or train on: dropped and counted, or the end of the run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joyvl_train.config import UserError
from joyvl_train.video import FrameError
from rl.fit import fit_policy
from rl.plan import Plan
from rl.rewards import Examined
from rl.rollout import Rollout
from rl.settings import Settings
from rl.windows import Sizes, windows_of
from tests.rl import tiny_grpo
from tests.rl.tiny_grpo import Clips, trainer

pytestmark = pytest.mark.usefixtures("one_thread")


class Torn(Clips):
    """Clips that end in pictures which can't be read, from a second on."""

    def __init__(self, *families: str, since: int) -> None:
        super().__init__(*families)
        self._since = since

    def __getitem__(self, index: int) -> Any:
        timeline, frames = super().__getitem__(index)
        return timeline, TornFrames(frames, self._since)


class TornFrames:
    def __init__(self, frames: Any, since: int) -> None:
        self._frames, self._since = frames, since

    def __getattr__(self, name: str) -> Any:
        return getattr(self._frames, name)

    def frames(self, second: int) -> Any:
        if second >= self._since:
            raise FrameError("damaged", f"second {second}")
        return self._frames.frames(second)


@pytest.mark.parametrize("gold", [False, True])
def test_a_window_with_a_broken_picture_is_dropped_and_named(tmp_path: Path, gold: bool) -> None:
    """It opens, for the picture is of its own seconds; the other windows are rolled out."""
    clips = Torn("alerting", "delegation", "qa", since=20)
    windows = {w.key: w for n in range(3) for w in windows_of(n, clips[n][0], Sizes(3, 2, 4, 5))}
    met: list[tuple[int, str]] = []
    grpo = trainer(
        tmp_path,
        settings=Settings(**{**tiny_grpo.SMALL, "windows": 12, "group": 2}, gold=gold),
        clips=clips,
        reject=lambda clip, error: met.append((clip, error.reason)),
    )
    groups, _ = grpo.groups(0)
    assert groups and all(group.window.stop <= 20 for group in groups)
    assert any(w.first <= 20 < w.stop for w in windows.values())
    assert grpo.left_out["damaged"] == len(met) == 12 - len(groups) > 0
    assert {reason for _, reason in met} == {"damaged"} and {clip for clip, _ in met} <= {0, 1, 2}


def test_where_there_is_nothing_to_learn_from_the_run_ends(tmp_path: Path) -> None:
    clips = Clips("alerting", "alerting")
    grpo = trainer(tmp_path, clips=clips, mix={"pending": 1.0}, shown=1)
    with pytest.raises(UserError, match=r"windows.mix: step 0 finds no window .*no pending window"):
        grpo.update(0)
    grpo = trainer(tmp_path, clips=Torn("alerting", since=0), shown=1)
    with pytest.raises(UserError, match=r"none of \d+ windows of step 0 .*\d+ damaged"):
        grpo.update(0)


def test_where_all_windows_rest_a_step_goes_by(tmp_path: Path) -> None:
    clips = Clips("alerting")
    grpo = trainer(tmp_path, clips=clips, mix={"answer": 1.0})
    for window in windows_of(0, clips[0][0], Sizes(3, 2, 4, 5)):
        grpo._plan.note(0, window.key, 1.0)
    figures = grpo.update(1)
    assert figures["grpo/rollouts"] == figures["grpo/updates"] == 0
    assert grpo.collapsed(figures) == "" and grpo.left_out_of_all()


def test_a_clip_that_is_shorter_than_its_record_says(tmp_path: Path) -> None:
    """A window loses the seconds that are not there, or is dropped with what it was made for."""
    clips = Clips("alerting", "alerting")
    plan = Plan(
        clips,
        Sizes(3, 2, 4, 5),
        {"silence": 1.0},
        lures=lambda timeline: (12, 15),
        timeline=lambda n: replace(
            clips[n][0], clip=replace(clips[n][0].clip, duration=clips[n][0].clip.seconds + 3.0)
        ),
    )
    grpo = trainer(tmp_path, settings=Settings(**{**tiny_grpo.SMALL, "windows": 12}))
    grpo._plan = plan
    groups, _ = grpo.groups(0)
    ends = [clips[group.window.clip][0].clip.seconds for group in groups]
    cut = [g for g, end in zip(groups, ends, strict=True) if g.window.stop > end]
    assert cut and grpo.left_out["past the end"]
    for group in cut:
        end = clips[group.window.clip][0].clip.seconds
        assert {r.window.stop for r in group.rollouts} == {end} and group.window.focus < end
    # What is known of a window is known by the name that it is drawn by.
    assert {group.window.key for group in groups} == set(plan.pass_rates)


def test_windows_that_nobody_judges_are_not_noted(tmp_path: Path, monkeypatch) -> None:
    grpo = trainer(tmp_path)
    monkeypatch.setattr(Examined, "passed", None)
    assert grpo.groups(0)[0] and not grpo._plan.pass_rates
    monkeypatch.setattr(Examined, "passed", False)
    assert grpo.groups(0)[0] and set(grpo._plan.pass_rates.values()) == {0.0}


def test_texts_without_a_verdict_are_counted_over_a_resume(tmp_path: Path) -> None:
    class Down:
        def look(self, rollouts: list[Rollout]) -> Counter[str]:
            return Counter({"no answer": len(rollouts)})

        def right(self, timeline: Any) -> Any:
            return lambda onset, said: None

    grpo = trainer(tmp_path)
    grpo._judge = Down()
    one = replace(grpo.train, steps=1)
    told = fit_policy(grpo, one, log=lambda line: None)
    assert told["train/left_out/judge/no_answer"] == 9
    told = fit_policy(trainer(tmp_path), one, log=lambda line: None)  # there is no step left
    assert told["train/left_out/judge/no_answer"] == 9


def test_one_broken_draw_is_drawn_again(tmp_path: Path) -> None:
    settings = Settings(windows=1, group=2, rounds=1, max_new_tokens=6)
    clips = Torn("alerting", "delegation", "qa", since=20)
    grpo = trainer(tmp_path, settings=settings, clips=clips)
    assert all(grpo.groups(step)[0] for step in range(12)) and grpo.left_out["damaged"]


def test_a_window_longer_than_a_row_is_counted(tmp_path: Path) -> None:
    grpo = trainer(tmp_path, row_tokens=64)
    with pytest.raises(UserError, match="train.row_tokens=64: no rollout of step 0 fits a row"):
        grpo.update(0)
    assert grpo.left_out["longer than a row"] >= 1
