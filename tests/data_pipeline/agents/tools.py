"""Where a tool can be run for real."""

from __future__ import annotations

import importlib.util

import pytest

from data_pipeline.agents.tool_files import FETCH
from data_pipeline.assets import cache_folder

_PACKAGES = {"detector": ["cv2"], "ocr": ["cv2", "onnxruntime"], "asr": ["faster_whisper"]}


def needs(tool: str) -> pytest.MarkDecorator:
    """Skips where the tool's packages or models are absent."""
    absent = [name for name in _PACKAGES[tool] if importlib.util.find_spec(name) is None]
    fetched = (cache_folder() / "tools" / tool / "origin.json").is_file()
    reason = f"no {', '.join(absent)}" if absent else f"not fetched by `{FETCH}`"
    return pytest.mark.skipif(bool(absent) or not fetched, reason=f"{tool}: {reason}")


def needs_clip(name: str) -> pytest.MarkDecorator:
    """Skips where a clip of footage is absent."""
    there = (cache_folder() / "footage" / name / "clip.json").is_file()
    reason = f"clip {name}: not fetched by `python -m data_pipeline.assets footage`"
    return pytest.mark.skipif(not there, reason=reason)
