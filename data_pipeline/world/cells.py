"""What each part of a frame shows, as dense labels: the densest supervision a scene can give."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from data_pipeline.world import languages
from data_pipeline.world.captions import letters
from data_pipeline.world.pictures import COLOURS, PictureSets, picture_set, sets_of
from data_pipeline.world.scene import Key, Scene

CELL = 32
"""The side of a cell in pixels: what one image token of a Qwen3-VL model shows."""

NOTHING = 0
"""The label of a cell in which no thing stands, and of a thing that has no named colour."""

COLOUR_LABELS = ("", *COLOURS)


@lru_cache(maxsize=8)
def name_labels(pictures: PictureSets) -> tuple[str, ...]:
    """The names that labels stand for; the first is of cells that show nothing."""
    every = [p.name for name in sets_of(pictures) for p in picture_set(name)]
    return ("", *dict.fromkeys(every))


@lru_cache(maxsize=8)
def state_labels(pictures: PictureSets) -> tuple[str, ...]:
    """The states that labels stand for; the first is of things that have none."""
    every = [s for name in sets_of(pictures) for p in picture_set(name) for s in p.states]
    return ("", *dict.fromkeys(every))


def cell_labels(scene: Scene, time: float, grid: int, pictures: PictureSets) -> np.ndarray:
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
        picture = next(p for p in picture_set(scene.pictures) if p.name == track.picture)
        state = key.state or (picture.states[0] if picture.states else "")
        out[0][covered] = names.index(track.picture)
        out[1][covered] = COLOUR_LABELS.index(track.colour)
        out[2][covered] = states.index(state)
    return out.reshape(3, -1)


def changed_scene(scene: Scene, before: float, now: float) -> Scene:
    """The scene with those things alone that are new at `now`, or have moved, turned or changed
    their state since `before`; and the writing that is new.

    What one track ends with and another begins with has stayed."""
    then = [(t.picture, t.colour, key) for t, key in scene.visible(before)]
    tracks = tuple(
        track
        for track, key in scene.visible(now)
        if not any(
            (picture, colour) == (track.picture, track.colour) and not _apart(old, key)
            for picture, colour, old in then
        )
    )
    captions = tuple(c for c in scene.captions if not c.start <= before < c.stop)
    return replace(scene, tracks=tracks, captions=captions)


def _apart(one: Key, other: Key) -> bool:
    moved = abs(one.x - other.x) + abs(one.y - other.y) + abs(one.size - other.size)
    return moved > 0.02 or abs(one.angle - other.angle) > 5 or one.state != other.state


def sought_cells(
    scene: Scene, time: float, grid: int, pictures: PictureSets, sought: Sequence[tuple[str, str]]
) -> np.ndarray:
    """1 for each of the grid * grid cells that shows one of `sought`, else 0.

    sought: names of pictures, each with a colour or "" for any.
    """
    names, colours, _ = cell_labels(scene, time, grid, pictures)
    out = np.zeros(grid * grid, dtype=np.int64)
    for name, colour in sought:
        found = names == name_labels(pictures).index(name)
        out |= found & ((colours == COLOUR_LABELS.index(colour)) | (not colour))
    return out


READ_ACROSS, READ_DOWN = 6, 3
"""A cell's letters are asked for at so many points: a letter of a caption is mostly under one."""


@lru_cache(maxsize=1)
def letters_told() -> tuple[str, ...]:
    """The letters that labels stand for; the first is of points with no letter, or another one."""
    texts = [text for table in _WRITTEN for _, text in table]
    return ("", *sorted({*"".join(texts), *_KEYS} - {" "}))


_WRITTEN = (languages.WORDS, languages.LINES, languages.ROMANIZED)
_KEYS = string.ascii_letters + string.digits + ":.,!?'-"


def letter_labels(scene: Scene, time: float, grid: int, side: int) -> np.ndarray:
    """Labels [READ_DOWN * READ_ACROSS, grid * grid]: the letter at each point of each cell.

    Row i * READ_ACROSS + j holds the points that lie in row i and column j of their cells; `side`
    is that of the square frame, in pixels, by which text is laid out.
    """
    number = {letter: i for i, letter in enumerate(letters_told())}
    out = np.zeros((grid * READ_DOWN, grid * READ_ACROSS), dtype=np.int64)
    down, across = ((np.arange(n) + 0.5) / n for n in out.shape)
    for caption in scene.captions:
        if not caption.start <= time < caption.stop:
            continue
        for letter in letters(caption, side, side):
            rows = (letter.top <= down) & (down < letter.bottom)
            columns = (letter.left <= across) & (across < letter.right)
            out[np.ix_(rows, columns)] = number.get(letter.text, 0)
    cells = out.reshape(grid, READ_DOWN, grid, READ_ACROSS).transpose(1, 3, 0, 2)
    return cells.reshape(READ_DOWN * READ_ACROSS, -1)


def _overlap(edges: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None)
