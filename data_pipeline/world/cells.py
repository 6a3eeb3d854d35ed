"""What each part of a frame shows, as dense labels: the densest supervision a scene can give."""

from __future__ import annotations

import numpy as np

from data_pipeline.world.pictures import COLOURS, picture_set
from data_pipeline.world.scene import Scene

NOTHING = 0
"""The label of a cell in which no thing stands, and of a thing that has no named colour."""

COLOUR_LABELS = ("", *COLOURS)


def name_labels(pictures: str) -> tuple[str, ...]:
    """The names that labels stand for; the first is of cells that show nothing."""
    return ("", *(picture.name for picture in picture_set(pictures)))


def state_labels(pictures: str) -> tuple[str, ...]:
    """The states that labels stand for; the first is of things that have none."""
    found = dict.fromkeys(state for p in picture_set(pictures) for state in p.states)
    return ("", *found)


def cell_labels(scene: Scene, time: float, grid: int, pictures: str) -> np.ndarray:
    """Labels [3, grid * grid] of names, colours and states, row by row.

    A cell shows the nearest thing whose box covers at least a quarter of it, or whose centre lies
    in it.
    """
    names, states = name_labels(pictures), state_labels(pictures)
    out = np.zeros((3, grid, grid), dtype=np.int64)
    edges = np.arange(grid + 1) / grid
    aspect = scene.height / scene.width
    for track, key in sorted(scene.visible(time), key=lambda pair: pair[0].z):
        half_x, half_y = key.size * aspect / 2, key.size / 2
        across = _overlap(edges, key.x - half_x, key.x + half_x)
        down = _overlap(edges, key.y - half_y, key.y + half_y)
        covered = np.outer(down, across) * grid * grid >= 0.25
        row, column = (min(max(int(at * grid), 0), grid - 1) for at in (key.y, key.x))
        covered[row, column] = True
        picture = next(p for p in picture_set(pictures) if p.name == track.picture)
        state = key.state or (picture.states[0] if picture.states else "")
        out[0][covered] = names.index(track.picture)
        out[1][covered] = COLOUR_LABELS.index(track.colour)
        out[2][covered] = states.index(state)
    return out.reshape(3, -1)


def _overlap(edges: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None)
