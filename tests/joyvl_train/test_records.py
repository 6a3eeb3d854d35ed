"""Rejects: what can't be used, counted by reason."""

from __future__ import annotations

from joyvl_train.records import Rejects


def test_a_reject_is_counted_once_however_often_it_is_met():
    rejects = Rejects()
    for _ in range(3):
        rejects.add("x.json item 4", "format", "...")
    rejects.add("x.json item 5", "past the end", "...")
    assert str(rejects) == "2 rejected (1 format, 1 past the end)"
