"""Which compositions belong to training, and which are kept for validation and test.

A composition is (event, object, wording): what is reported, of which thing (or which number, or
which sum), asked for in which words. Each of the three occurs in training, the held-out triples
never do. A stable hash of the triple decides, so that the answer is the same in every process and
needs no list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

TEST_PERCENT = 10
VALIDATION_PERCENT = 5


def composition(event: str, thing: str, wording: str) -> str:
    """The key of a composition, as the meta of a timeline records it."""
    return f"{event} | {thing} | {wording}"


def group(key: str) -> Split:
    """The split that alone may hold this composition as its own; "train" for most.

    >>> {group(f"appear | dog | {i}") for i in range(100)} == {"train", "validation", "test"}
    True
    """
    percent = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "big") % 100
    if percent < TEST_PERCENT:
        return "test"
    if percent < TEST_PERCENT + VALIDATION_PERCENT:
        return "validation"
    return "train"


def allowed(key: str, split: Split) -> bool:
    """Whether a stream of `split` may hold this composition at all.

    Training holds its own only. A held-out stream has at least one composition of its own
    (`own_pairs`); what else happens in it may have been seen in training.
    """
    return group(key) in (split, "train")


def own_pairs(
    event: str, things: Iterable[str], wordings: Sequence[str], split: Split
) -> list[tuple[str, str]]:
    """The (thing, wording) pairs of `event` that belong to `split`, in a fixed order."""
    return [
        (thing, wording)
        for thing in things
        for wording in wordings
        if group(composition(event, thing, wording)) == split
    ]


def check_split(split: str) -> None:
    """Raise `ValueError` where `split` is none."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}")
