"""How a key of the config is declared: its default, its bounds and a one-line meaning."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import field
from typing import Any


def key(
    default: Any,
    meaning: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[str] = (),
) -> Any:
    """A dataclass field. `low`, `high` bound its numbers, `choices` its texts; items too."""
    metadata = {"meaning": meaning, "low": low, "high": high, "choices": tuple(choices)}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)
