"""The fuzz of benchmarks/hostile_records.py: small, and with readers that would fail it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import hostile_records
from benchmarks.hostile_records import FORMS, Items, Lost, through
from data_pipeline.candidates import Candidate, Refused
from joyvl_train.timeline import Clip


@pytest.mark.parametrize("name", FORMS)
def test_no_record_is_lost_on_its_way(tmp_path: Path, name: str) -> None:
    found = through(name, 100, 7, tmp_path)
    assert found.used + found.refused == found.items >= 90
    assert found.refused > 5 and found.written > 0
    assert found.duplicates + found.rejected + found.written == found.candidates


def lossy(items: Items) -> Items:
    """Loses what it can't read."""
    return (one for one in items if isinstance(one, Candidate))


def twofold(items: Items) -> Items:
    """Uses an item, and refuses it as well."""
    for one in items:
        yield one
        if isinstance(one, Candidate):
            yield Refused(one.work["items"][0], "shape")


def trusting(items: Items) -> Items:
    """Takes any path."""
    for one in items:
        if isinstance(one, Candidate):
            clip = Clip("a", one.timeline.clip.duration, video="a/../../b.mp4")
            yield replace(one, timeline=replace(one.timeline, clip=clip))
        else:
            yield one


@pytest.mark.parametrize(
    ("spoils", "told"),
    [(lossy, "of 50 items"), (twofold, "both used and refused"), (trusting, "with the path")],
)
def test_a_reader_that_fails_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoils: Callable[[Items], Items], told: str
) -> None:
    def form(rng: random.Random, folder: Path, count: int) -> tuple[int, Items]:
        items, read = FORMS["video_qa"](rng, folder, count)
        return items, spoils(read)

    monkeypatch.setattr(hostile_records, "FORMS", {**FORMS, "failing": form})
    with pytest.raises(Lost, match=told):
        through("failing", 50, 0, tmp_path)
