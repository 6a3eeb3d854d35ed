"""Scripts: what a line says happens in a second can be seen at its end, and not a second before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.world.streams import WorldFrames
from eval.case import Case
from eval.script import Happening
from tests.eval.made_cases import made

TEXT = """\
scenario: monitoring
about: All that a script can say.
stream:
  seconds: 30
  background: {plain: white}
  noise: 0
  things:
    - {thing: fire, from: 5, to: 12, place: top left}
    - {thing: dog, from: 8, to: 16, place: bottom right, moves: true}
    - {thing: lamp, place: bottom left, states: {0: "off", 10: "on"}}
    - {thing: ball, colour: red, place: top right, bounces: [20, 24]}
  words:
    - {text: Feuer, language: de, from: 3, to: 7, place: bottom}
"""


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made(tmp_path_factory.mktemp("cases"), TEXT)


def picture(case: Case, second: int) -> np.ndarray:
    (image,) = WorldFrames(case.timeline, 96).frames(second)
    return np.asarray(image).astype(int)


def test_all_that_happens_is_listed(case: Case) -> None:
    assert case.script is not None
    assert set(case.script.happenings) == {
        Happening(5, "fire", "came"),
        Happening(12, "fire", "left"),
        Happening(8, "dog", "came"),
        Happening(16, "dog", "left"),
        Happening(0, "lamp", "came"),
        Happening(10, "lamp", "on"),
        Happening(0, "red ball", "came"),
        Happening(20, "red ball", "bounced"),
        Happening(24, "red ball", "bounced"),
        Happening(3, "Feuer", "shown"),
    }


PARTS = {
    "fire": (slice(8, 46), slice(8, 44), 5, 12),
    "dog": (slice(52, 88), slice(52, 88), 8, 16),
    "words": (slice(60, 96), slice(20, 76), 3, 7),
}


@pytest.mark.parametrize("name", ["fire", "dog"])
def test_a_thing_is_seen_from_its_second_to_its_last(case: Case, name: str) -> None:
    rows, columns, start, stop = PARTS[name]
    seen = [
        int(np.abs(picture(case, t)[rows, columns] - picture(case, 29)[rows, columns]).sum())
        for t in range(start - 1, stop + 1)
    ]
    before, during, after = seen[0], seen[1:-1], seen[-1]
    assert min(during) > 10 * max(before, after, 1000)


def test_a_state_changes_and_words_are_shown_in_their_seconds(case: Case) -> None:
    lamp = (slice(50, 90), slice(6, 46))
    off, on = picture(case, 9)[lamp], picture(case, 10)[lamp]
    assert np.abs(off - on).sum() > 5000 and (on == picture(case, 11)[lamp]).all()
    words = PARTS["words"][:2]
    assert np.abs(picture(case, 3)[words] - picture(case, 2)[words]).sum() > 5000
    assert np.abs(picture(case, 6)[words] - picture(case, 7)[words]).sum() > 5000


def test_a_bounce_touches_the_ground_in_its_second(case: Case) -> None:
    ground = (slice(80, 96), slice(52, 90))
    touched = [t for t in range(17, 29) if np.abs(picture(case, t)[ground] - 238).sum() > 20000]
    assert touched == [20, 24]


def test_the_same_text_gives_the_same_pictures(case: Case, tmp_path: Path) -> None:
    again = made(tmp_path, TEXT)
    assert again.timeline == case.timeline
    assert (picture(again, 11) == picture(case, 11)).all()
