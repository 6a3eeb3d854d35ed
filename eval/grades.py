"""Verdicts on a case: two axes, good, fair or poor, and who of two systems did better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GRADES = ("poor", "fair", "good")
"""By the points that they are worth."""

Outcome = Literal["win", "tie", "loss"]


@dataclass(frozen=True, slots=True)
class Grade:
    """Points for quality and for timing, 0 to 2; averages over raters and orders lie between."""

    quality: float
    timing: float

    def __post_init__(self) -> None:
        for name, value in (("quality", self.quality), ("timing", self.timing)):
            if not 0 <= value <= 2:
                raise ValueError(f"{name} is {value}; it lies from 0 (poor) to 2 (good)")

    @property
    def score(self) -> float:
        """The mean of the two axes."""
        return (self.quality + self.timing) / 2


@dataclass(frozen=True, slots=True)
class Unscored:
    """No verdict could be had; `reason` is a short fixed phrase that is counted."""

    reason: str
    detail: str = ""


def outcome(mine: Grade, other: Grade) -> Outcome:
    """What a case is between two systems: equal scores tie."""
    if abs(mine.score - other.score) < 1e-9:
        return "tie"
    return "win" if mine.score > other.score else "loss"


def mean(grades: list[Grade]) -> Grade:
    """The average of several grades of one system on one case."""
    if not grades:
        raise ValueError("no grade to average")
    count = len(grades)
    return Grade(sum(g.quality for g in grades) / count, sum(g.timing for g in grades) / count)
