"""What the tools need and a plain installation lacks: packages, and models that are fetched."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

from data_pipeline.assets import cache_folder
from data_pipeline.packages import TOOLS
from joyvl_train.config import UserError

FETCH = "python -m data_pipeline.assets tools"


def module(name: str, tool: str) -> Any:
    """An optional package, imported when a tool is first used. `UserError` where it is absent."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"the {tool} tool needs {name}, which can't be imported ({error}): "
            "pip install -e '.[tools]'"
        ) from None


def files(tool: str) -> Path:
    """The folder with a tool's fetched files. `UserError` with the command where it is absent."""
    folder = cache_folder() / "tools" / tool
    if not (folder / "origin.json").is_file():
        raise UserError(f"the {tool} tool's model is not in {folder}: fetch it by `{FETCH}`")
    return folder


def key(tool: str, *settings: Any) -> str:
    """Name and version of a tool, "ocr@1f0c33a9", for a candidate's history: a hash of the pinned
    files that it runs and of its settings."""
    pins = [part.package.sha256 for part in TOOLS[tool].parts] if tool in TOOLS else []
    return f"{tool}@{hashlib.sha256(repr((pins, settings)).encode()).hexdigest()[:8]}"
