"""Labels of a frame's cells against the pictures that were drawn."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from data_pipeline.world import stills
from data_pipeline.world.backgrounds import PLAIN, Background
from data_pipeline.world.captions import Caption, letters
from data_pipeline.world.cells import (
    COLOUR_LABELS,
    READ_ACROSS,
    READ_DOWN,
    cell_labels,
    changed_scene,
    letter_labels,
    letters_told,
    name_labels,
    sought_cells,
    state_labels,
)
from data_pipeline.world.scene import Cut, Key, Scene, Track


def scene(*tracks: Track, pictures: str = "drawn") -> Scene:
    cuts = (Cut(0.0, Background("plain", next(iter(PLAIN)))),)
    return Scene(96, 96, 10.0, 0, cuts, tracks, pictures=pictures)


def thing(name: str, x: float, y: float, size: float, colour: str = "", z: int = 0) -> Track:
    return Track(name, 0.0, 5.0, (Key(0.0, x, y, size),), colour, z)


def test_a_thing_labels_the_cells_it_covers_and_no_other():
    names = name_labels("drawn")
    labels = cell_labels(scene(thing("car", 1 / 6, 1 / 6, 1 / 3, "red")), 1.0, 3, "drawn")
    assert labels.shape == (3, 9)
    assert labels[0].tolist() == [names.index("car")] + [0] * 8
    assert labels[1].tolist() == [COLOUR_LABELS.index("red")] + [0] * 8


def test_a_thing_that_is_gone_labels_nothing():
    assert not cell_labels(scene(thing("car", 0.5, 0.5, 0.9)), 6.0, 3, "drawn").any()


def test_the_nearer_thing_wins_and_states_are_told():
    names, states = name_labels("drawn"), state_labels("drawn")
    far, near = thing("tree", 0.5, 0.5, 1.0), thing("door", 0.5, 0.5, 1 / 3, z=1)
    labels = cell_labels(scene(far, near), 1.0, 3, "drawn")
    assert labels[0, 4] == names.index("door")
    assert labels[0, 0] == names.index("tree")
    assert states[labels[2, 4]] in ("open", "closed")


def test_both_sets_share_the_labels_of_what_both_show():
    names = name_labels("both")
    assert len(set(names)) == len(names) and names[0] == ""
    assert set(names) == {*name_labels("drawn"), *name_labels("photo")}
    drawn = scene(thing("car", 0.5, 0.5, 0.9))
    photo = scene(thing("cow", 0.5, 0.5, 0.9), pictures="photo")
    for shown, name in ((drawn, "car"), (photo, "cow")):
        assert cell_labels(shown, 1.0, 3, "both")[0, 4] == names.index(name)
    assert set(state_labels("both")) == {*state_labels("drawn"), *state_labels("photo")}


def test_nearly_every_thing_of_a_still_is_labelled_and_nothing_else():
    names = name_labels("drawn")
    shown_in_all = found_in_all = 0
    for index in range(80):
        still = stills.at(index, "train", "cells", mix={"name_all": 1})
        labels = cell_labels(still.scenes[0], still.times[0], 3, "drawn")
        found = {names[i] for i in np.unique(labels[0]) if i}
        shown = {track.picture for track, _ in still.scenes[0].visible(still.times[0])}
        assert found <= shown
        shown_in_all, found_in_all = shown_in_all + len(shown), found_in_all + len(found)
    # Two small things may have their centres in one cell; only the nearer is told then.
    assert found_in_all >= 0.97 * shown_in_all


def written(caption: Caption, grid: int = 3, side: int = 96) -> list[str]:
    """The letters at each row of points, from the top; blank points as spaces."""
    cuts = (Cut(0.0, Background("plain", next(iter(PLAIN)))),)
    labels = letter_labels(Scene(side, side, 10.0, 0, cuts, (), (caption,)), 1.0, grid, side)
    assert labels.shape == (READ_DOWN * READ_ACROSS, grid * grid)
    told = letters_told()
    cells = labels.reshape(READ_DOWN, READ_ACROSS, grid, grid).transpose(2, 0, 3, 1)
    rows = cells.reshape(grid * READ_DOWN, grid * READ_ACROSS)
    return ["".join(told[i] or " " for i in row) for row in rows]


def runs(row: str) -> str:
    """Each letter once, where it stands at several points in a row."""
    return "".join(letter for letter, _ in itertools.groupby(row.strip()))


def test_letters_are_read_off_line_by_line():
    rows = written(Caption("hund", "de", 0.0, 5.0, "top", "outline", 0.2))
    assert runs(rows[0]) == "hund" and not "".join(rows[3:]).strip()
    lines = written(Caption("Guten Morgen", "de", 0.0, 5.0, "bottom", "box", 0.2))
    found = [runs(row).replace(" ", "") for row in lines if row.strip()]
    assert {"Guten", "Morgen"} <= set(found)


def test_a_page_tells_its_title_above_its_points():
    rows = written(Caption("Next\nred\nBack", "en", 0.0, 5.0, "full", "screen", 0.2))
    found = [runs(row) for row in rows if row.strip()]
    assert [word for word, _ in itertools.groupby(found)] == ["Next", "red", "Back"]


def test_a_caption_that_is_over_labels_nothing():
    assert not "".join(written(Caption("hund", "de", 2.0, 5.0, "top"))).strip()


def test_letters_stand_where_they_are_drawn():
    for text, place in (("Hello", "top"), ("mmm iii", "center"), ("Привет", "bottom")):
        caption = Caption(text, "ru", 0.0, 5.0, place, "outline", 0.2)
        cuts = (Cut(0.0, Background("plain", next(iter(PLAIN)))),)
        bare, full = (
            np.asarray(Scene(96, 96, 10.0, 0, cuts, (), captions).frame(1.0, 96, 96), dtype=int)
            for captions in ((), (caption,))
        )
        down, across = np.nonzero(np.abs(full - bare).sum(-1) > 200)
        boxes = letters(caption, 96, 96)
        assert "".join(box.text for box in boxes) == text.replace(" ", "")
        assert abs(min(b.left for b in boxes) * 96 - across.min()) <= 3
        assert abs(max(b.right for b in boxes) * 96 - across.max()) <= 3
        assert min(b.top for b in boxes) * 96 <= down.min() + 2
        assert max(b.bottom for b in boxes) * 96 >= down.max() - 2


def test_what_a_change_shows_is_what_came_moved_or_turned():
    def after(**change) -> list[str]:
        first = Key(0.0, 0.2, 0.2, 0.3)
        tracks = (
            Track("dog", 0.0, 9.0, (first,)),
            Track("door", 0.0, 9.0, (first, replace(first, time=1.0, **change))),
            Track("tree", 0.9, 9.0, (first,)),
            Track("car", 0.0, 0.9, (first,)),
            # What a track ends with and another begins with stays.
            Track("ball", 0.0, 1.0, (first,)),
            Track("ball", 1.0, 9.0, (first,)),
        )
        found = changed_scene(scene(*tracks), 0.5, 1.5)
        return [track.picture for track in found.tracks if track.at(1.5)]

    assert after() == ["tree"]
    assert after(x=0.3) == after(size=0.4) == after(angle=30.0) == ["door", "tree"]
    assert after(state="open") == ["door", "tree"]
    assert after(x=0.21) == ["tree"]


def test_what_is_sought_is_found_in_its_colour():
    shown = scene(
        thing("car", 1 / 6, 1 / 6, 1 / 3, "red"),
        thing("car", 5 / 6, 5 / 6, 1 / 3, "blue"),
        thing("tree", 5 / 6, 1 / 6, 1 / 3),
    )

    def found(*sought: tuple[str, str]) -> list[int]:
        return np.flatnonzero(sought_cells(shown, 1.0, 3, "drawn", sought)).tolist()

    assert found(("car", "")) == [0, 8]
    assert found(("car", "red")) == [0]
    assert found(("car", "blue"), ("tree", "")) == [2, 8]
    assert found(("dog", ""), ("car", "green")) == []
