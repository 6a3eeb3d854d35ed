"""The detector on real footage."""

from __future__ import annotations

import pytest
from PIL import Image

from data_pipeline.agents.detector import LABELS, Detector, Found, counted
from data_pipeline.assets import cache_folder
from tests.data_pipeline.agents.tools import needs, needs_clip

pytestmark = [pytest.mark.slow, needs("detector")]


def seen(clip: str, frame: int, **settings: float) -> list[Found]:
    path = cache_folder() / "footage" / clip / f"{frame:05d}.jpg"
    return Detector(**settings)(Image.open(path))  # type: ignore[arg-type]


@needs_clip("campus")
def test_people_and_parked_cars() -> None:
    found = seen("campus", 50)
    counts = counted(found)
    assert counts["person"] >= 3 and counts["car"] >= 1 and set(counts) <= LABELS
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        left, top, right, bottom = one.box
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1 and 0.5 <= one.score <= 1
    people = [one for one in found if one.label == "person"]
    assert all(one.box[3] - one.box[1] > one.box[2] - one.box[0] for one in people)  # upright


@needs_clip("tree")
@needs_clip("motorway")
def test_what_is_there_and_what_is_not() -> None:
    assert counted(seen("motorway", 60))["car"] >= 1
    assert seen("tree", 40) == []
    assert Detector()(Image.new("L", (40, 700), 128)) == []


def test_more_is_told_below_a_lower_score() -> None:
    noise = Image.effect_noise((300, 300), 80)
    sure, unsure = Detector(least_score=0.5), Detector(least_score=0.02)
    assert len(unsure(noise)) > len(sure(noise)) and sure.key != unsure.key
