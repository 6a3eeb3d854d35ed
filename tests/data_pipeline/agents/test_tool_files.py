"""Without the extra or the models: a line that says how to get them, and light imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipeline.agents.asr import Asr, voices
from data_pipeline.agents.detector import Detector
from data_pipeline.agents.motion import Motion
from data_pipeline.agents.ocr import Ocr
from joyvl_train.config import UserError

ROOT = Path(__file__).resolve().parents[3]
PICTURE, SOUND = Image.new("RGB", (32, 32)), np.zeros(16000, np.float32)
USES: dict[str, Callable[[], Any]] = {
    "detector": lambda: Detector()(PICTURE),
    "ocr": lambda: Ocr()(PICTURE),
    "asr": lambda: Asr()(SOUND),
}


@pytest.mark.parametrize("tool", USES)
def test_a_missing_package_is_named_with_the_extra(
    tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cv2", "onnxruntime", "faster_whisper", "faster_whisper.vad"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        UserError, match=rf"^the {tool} tool needs .*: pip install -e '\.\[tools\]'$"
    ):
        USES[tool]()
    with pytest.raises(UserError, match=r"needs faster_whisper\.vad"):
        voices(SOUND)


@pytest.mark.parametrize("tool", USES)
def test_missing_models_are_named_with_the_command(
    tool: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JOYVL_CACHE", str(tmp_path))
    for name in ("cv2", "onnxruntime", "faster_whisper"):
        pytest.importorskip(name)
    wanted = rf"^the {tool} tool's model is not in {tmp_path}/tools/{tool}: fetch it by `python -m"
    with pytest.raises(UserError, match=wanted):
        USES[tool]()


def test_a_tool_is_made_in_no_time_and_named_without_its_model() -> None:
    keys = {tool.key for tool in (Detector(), Ocr(), Asr(), Motion())}
    assert sorted(key.partition("@")[0] for key in keys) == ["asr", "detector", "motion", "ocr"]
    assert all(len(key.partition("@")[2]) == 8 for key in keys)


def test_imports_stay_light() -> None:
    script = (
        "import data_pipeline.agents.agent, data_pipeline.agents.asking, "
        "data_pipeline.agents.asr, data_pipeline.agents.detector, data_pipeline.agents.motion, "
        "data_pipeline.agents.ocr, sys; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"cv2", "onnxruntime", "faster_whisper", "ctranslate2", "torch"}
