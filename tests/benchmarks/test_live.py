"""The measures of the runtime: the slope of memory, the plots, and a short run of it all."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as Xml
from pathlib import Path

import numpy as np
import pytest

from benchmarks.live_hours import slope
from benchmarks.result_page import drawing

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("wanted", [0.0, 0.5, 3.0])
def test_the_slope_of_memory_and_its_bound(wanted: float) -> None:
    """Against a line with noise; nine times out of ten and more the bound lies above it."""
    hours = np.arange(4320) / 360
    above = 0
    for seed in range(40):
        noise = np.random.default_rng(seed).normal(0, 2, len(hours))
        found, bound = slope(300 + wanted * hours + noise, 0)
        assert found == pytest.approx(wanted, abs=0.1) and bound > found
        above += bound > wanted
    assert above >= 36


def test_too_few_quarters_tell_no_slope() -> None:
    assert np.isnan(slope(np.full(300, 1.0), 0)[0])
    assert slope(np.concatenate([np.arange(720.0), np.full(720, 5.0)]), 7200)[0] == pytest.approx(0)


def test_a_drawing_is_a_picture_of_its_own(tmp_path: Path) -> None:
    line = [(0.0, 1.0), (1.0, 3.0), (2.0, 2.0)]
    drawing(tmp_path / "a.svg", {"one <b>": {"x & y": line}, "two": {"z": line, "w": line}}, "h")
    text = (tmp_path / "a.svg").read_text()
    root = Xml.fromstring(text)
    assert root.tag.endswith("svg") and len(re.findall('class="title"', text)) == 2
    assert "one &lt;b&gt;" in text and "x &amp; y" in text


def test_an_hours_run_tells_its_memory() -> None:
    command = [sys.executable, "benchmarks/live_hours.py", "--canned", "--hours", "0.04"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "# Memory over hours" in done.stdout and "144 step" in done.stdout
    assert re.search(r"The runtime's own time a step: median \d+\.\d ms", done.stdout)
