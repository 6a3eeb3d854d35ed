"""Windows and their rollouts as a report shows them: the strip of each, and what it earned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from joyvl_train.frames import Frames
from joyvl_train.markup import Cell, Html
from joyvl_train.report import paragraph, table
from joyvl_train.samples import Streams
from joyvl_train.strips import strip
from joyvl_train.video import FrameError
from rl.groups import Group
from rl.rollout import Rollout

_STRIPS = 2
"""Rollouts of a window whose strips are shown: the one that earned most, and least."""


def shown_windows(groups: Sequence[Group], clips: Streams) -> Iterator[Html]:
    """Each window: its kind, its best and worst rollouts second by second, all rewards by part."""
    for group in groups:
        if group.window.kind == "question":
            asked, answer = (event.text for event in group.rollouts[0].timeline.events)
            yield paragraph(f"question: {asked} ({answer})")
            yield _rewards(group)
            continue
        timeline, frames = clips[group.window.clip]
        pictures = partial(_pictures, frames)
        window = group.window
        order = sorted(range(len(group.rewards)), key=lambda i: -group.rewards[i].total)
        extremes = dict.fromkeys((order[0], order[-1]))
        for i in list(extremes)[:_STRIPS]:
            title = (
                f"{window.kind} [{window.first}, {window.stop}) of {timeline.clip.id}: rollout {i} "
                f"earned {group.rewards[i].total:.2f}"
            )
            yield strip(_within(group.rollouts[i]).trace, pictures, title=title)
        yield _rewards(group)


def _pictures(frames: Frames, second: int) -> Sequence[Any]:
    """Those of a second; none where they are broken, which a window's own never are."""
    try:
        return frames.frames(second)
    except FrameError:
        return ()


def _within(rollout: Rollout) -> Rollout:
    """What is due after the window is no part of it."""
    stop = rollout.window.stop
    onsets = tuple(onset for onset in rollout.trace.onsets if onset.second < stop)
    return replace(rollout, trace=replace(rollout.trace, onsets=onsets))


def _rewards(group: Group) -> Html:
    parts = list(group.rewards[0].parts)
    rows: list[list[Cell]] = []
    for number, (reward, seen) in enumerate(zip(group.rewards, group.seen, strict=True)):
        values = [reward.value(part) for part in parts]
        passed = "unscored" if seen.passed is None else "passed" if seen.passed else ""
        rows.append([f"rollout {number}", reward.total, *values, passed])
    if group.advantages is None:
        return paragraph("All rollouts earned the same: nothing is learnt from them.")
    return table(["", "reward", *parts, ""], rows)
