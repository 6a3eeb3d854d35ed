"""Pasts of clips: long streams' seconds and memory, and nothing in it that changes what is due."""

from __future__ import annotations

import random

import pytest

from data_pipeline.world.past import ASKED_BACK, LONGEST, OPENING_SECONDS, past
from data_pipeline.world.streams import FAMILIES, stream
from joyvl_train.stream import StreamSettings

SETTINGS = StreamSettings()


@pytest.mark.parametrize("family", FAMILIES)
def test_what_memory_tells_of_plays_no_part_in_the_clip(family: str) -> None:
    for number in range(30):
        timeline = stream(family, number, "train")
        found = past(timeline, SETTINGS, random.Random(number))
        assert found.start % 100 == 90 and 90 <= found.start < 100 * LONGEST
        if timeline.opening:
            assert found.memory_text == timeline.opening
            assert found.start >= timeline.meta.get("before", OPENING_SECONDS)
            continue
        assert found.memory_text.startswith("Earlier:\n0 to ")
        assert f"to {found.start} s: " in found.memory_text.splitlines()[-1]
        shown = {track["picture"] for track in timeline.clip.scene["tracks"]}
        for name in shown:
            assert f" {name} appeared" not in found.memory_text
            assert f" {name} left" not in found.memory_text
        if family in ASKED_BACK:
            assert "appeared" not in found.memory_text and "left" not in found.memory_text


def test_it_is_as_long_as_memory_may_be_and_no_longer() -> None:
    timeline = stream("alerting", 3, "train")
    found = [past(timeline, SETTINGS, random.Random(n)) for n in range(300)]
    starts = [each.start for each in found]
    assert min(starts) == 90 and max(starts) > 5000
    # Short pasts are as likely as long ones, by their order of size.
    assert 0.3 < sum(start < 900 for start in starts) / 300 < 0.7
    most = SETTINGS.limits.mid + SETTINGS.limits.long
    assert max(len(each.memory_text.splitlines()) for each in found) <= most + 1
    assert max(len(each.memory_text) for each in found) < 6000
    assert any("appeared" in each.memory_text for each in found)
    assert past(timeline, SETTINGS, random.Random(7)) == past(timeline, SETTINGS, random.Random(7))
