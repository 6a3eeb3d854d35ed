"""Labels of a frame's cells against the pictures that were drawn."""

from __future__ import annotations

import numpy as np

from data_pipeline.world import stills
from data_pipeline.world.backgrounds import PLAIN, Background
from data_pipeline.world.cells import COLOUR_LABELS, cell_labels, name_labels, state_labels
from data_pipeline.world.scene import Cut, Key, Scene, Track


def scene(*tracks: Track) -> Scene:
    cuts = (Cut(0.0, Background("plain", next(iter(PLAIN)))),)
    return Scene(96, 96, 10.0, 0, cuts, tracks)


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
