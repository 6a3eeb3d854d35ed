"""What a memory of a rendered stream's past says: what came and left, and what was said."""

from __future__ import annotations

import math
from collections.abc import Sequence

from data_pipeline.world import scene as world_scene
from data_pipeline.world.pictures import picture_set
from data_pipeline.world.words import a, capital
from joyvl_train.memory import CHARS, log_summary
from joyvl_train.stream import Turn
from joyvl_train.timeline import Timeline


def summarize(timeline: Timeline, turns: Sequence[Turn], chars: int = CHARS) -> str:
    """A summary of `turns`, exact and by the second; like `log_summary`, but it has seen, too.

    It tells nothing that happened after the last of the turns. Past `chars` the oldest
    lines go. Raises `ValueError` where the clip is no rendered scene.
    """
    if timeline.clip.scene is None:
        raise ValueError(f"clip {timeline.clip.id!r} has no scene")
    seconds = {turn.second for turn in turns}
    lines: dict[int, list[str]] = {second: [] for second in sorted(seconds)}
    articles = {p.name: p.article for name in ("drawn", "photo") for p in picture_set(name)}
    for track in world_scene.from_json(timeline.clip.scene).tracks:
        noun = f"{track.colour} {track.picture}" if track.colour else track.picture
        came, left = math.floor(track.start), math.floor(track.stop)
        if came in seconds:
            told = capital(a(noun, articles[track.picture]))
            lines[came].append(f"{came} s: {told} appeared.")
        if left in seconds:
            lines[left].append(f"{left} s: The {noun} left.")
    silent = log_summary(())
    for turn in turns:
        said = log_summary((turn,))
        if said != silent:
            lines[turn.second].append(said)
    kept = [line for of_second in lines.values() for line in of_second]
    while kept and sum(len(line) + 2 for line in kept) > chars:
        kept.pop(0)
    return "; ".join(kept) or silent
