"""Steps that training saves and goes on from: which of them are whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STATE_FILE = "rows.json"
"""Written last into each saved step: where in the plan of rows and in the log it stands."""


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Mark `folder`, a saved step, as whole."""
    temporary = folder / (STATE_FILE + ".partial")
    temporary.write_text(json.dumps(state))
    os.replace(temporary, folder / STATE_FILE)


def read_state(folder: Path) -> dict[str, Any]:
    """The state of a whole saved step."""
    state: dict[str, Any] = json.loads((folder / STATE_FILE).read_text())
    return state


def last_step(folder: Path) -> Path | None:
    """The newest whole saved step in `folder`: the one with `STATE_FILE`, written last."""
    steps = [p for p in folder.glob("checkpoint-*") if (p / STATE_FILE).is_file()]
    return max(steps, key=_step_of, default=None)


def resumed_step(folder: Path) -> int:
    """The step that training in `folder` goes on from; 0 where nothing is saved."""
    found = last_step(folder)
    return 0 if found is None else _step_of(found)


def drop_partial(folder: Path) -> None:
    """Remove the saved steps in `folder` that a kill left torn, and older ones than the newest."""
    newest = last_step(folder)
    for path in folder.glob("checkpoint-*"):
        if path != newest:
            (path / STATE_FILE).unlink(missing_ok=True)
            shutil.rmtree(path)


def _step_of(path: Path) -> int:
    return int(path.name.rpartition("-")[2])
