"""Pictures and footage that are fetched, never kept in the repository."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where fetched things lie: `$JOYVL_CACHE`, else `.cache/joyvl` in the checkout."""
    named = os.environ.get("JOYVL_CACHE")
    return Path(named) if named else Path(__file__).resolve().parents[1] / ".cache" / "joyvl"
