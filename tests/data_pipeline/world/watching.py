"""An independent watcher of scenes, and the streams that it watches."""

from __future__ import annotations

from collections.abc import Iterator

from data_pipeline.world import scene as world_scene
from data_pipeline.world.scene import Scene, Track
from data_pipeline.world.streams import HELD_OUT, stream
from joyvl_train.timeline import Timeline


def split_of(family: str) -> str:
    return "test" if family in HELD_OUT else "train"


def told(family: str, kind: str, count: int, start: int = 0) -> Iterator[tuple[Timeline, Scene]]:
    for seed in range(start, start + count):
        timeline = stream(family, seed, split_of(family), kind=kind)
        yield timeline, world_scene.from_json(timeline.clip.scene)


def inside(track: Track, time: float) -> float:
    """The part of the thing's box that lies in the frame."""
    key = track.at(time)
    if key is None:
        return 0.0
    low, high = (
        (key.x - key.size / 2, key.y - key.size / 2),
        (key.x + key.size / 2, key.y + key.size / 2),
    )
    sides = [max(0.0, min(b, 1.0) - max(a, 0.0)) for a, b in zip(low, high, strict=True)]
    return sides[0] * sides[1] / key.size**2


def watch(scene: Scene) -> Iterator[tuple[int, list[tuple[int, Track, str]]]]:
    """What happens in each second, from the last frames up to its own only: (index, track, what),
    what being "came", "left" or the new state."""
    before: dict[int, str] = {}
    for second in range(round(scene.duration)):
        now: dict[int, str] = {}
        for i, track in enumerate(scene.tracks):
            end = second + 1 - 1e-3
            if inside(track, end) >= 0.6:
                key = track.at(end)
                assert key is not None
                now[i] = key.state
        happened = [(i, scene.tracks[i], "came") for i in now if i not in before]
        happened += [(i, scene.tracks[i], "left") for i in before if i not in now]
        happened += [
            (i, scene.tracks[i], s) for i, s in now.items() if i in before and before[i] != s
        ]
        yield second, happened
        before = now


def present(scene: Scene, second: int) -> list[str]:
    return sorted(t.picture for t in scene.tracks if inside(t, second + 1 - 1e-3) >= 0.6)


def said(timeline: Timeline) -> dict[int, str]:
    return {e.second: e.text for e in timeline.of("assistant")}


def subject(timeline: Timeline) -> str:
    """The thing of the first composition."""
    return timeline.meta["compositions"][0].split(" | ")[1]
