"""The page of scored cases: each rival with its interval, each scenario, everybody's points."""

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.eval_results import main

METRICS = {
    "eval/hours": 2.9,
    "cases/played": 58.0,
    "win_rate/poller": 0.69,
    "win_rate/poller.low": 0.569,
    "win_rate/poller.high": 0.81,
    "win_rate/poller.count": 58.0,
    "tie_rate/poller": 0.276,
    "loss_rate/poller": 0.034,
    "win_rate/poller/time": 0.5,
    "win_rate/poller/time.count": 10.0,
    "win_rate/poller/memory": 0.333,
    "win_rate/poller/memory.count": 9.0,
    **{f"{kind}/model": 1.02 for kind in ("score", "quality", "timing")},
    **{f"{kind}/model/time": 0.7 for kind in ("score", "quality", "timing")},
    "score/model/time.count": 10.0,
    "score/model/memory": 0.5,
}


def run(folder: Path, metrics: dict[str, float]) -> Path:
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(metrics))
    config = {"seed": 3, "cases": {"suite": "scenarios"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_each_rival_has_its_interval_and_each_scenario_its_line(tmp_path: Path) -> None:
    folder, out = run(tmp_path / "run", METRICS), tmp_path / "page.md"
    assert main([f"ours={folder}", "--out", str(out)]) == 0
    text = out.read_text()
    assert "## ours" in text and str(tmp_path) not in text
    assert "58 cases (`cases=scenarios`), 2.9 hours of stream, seed 3" in text
    assert "| poller | 69.0% | 56.9% to 81.0% | 27.6% | 3.4% |" in text
    assert "| memory | 33.3% |\n| time | 50.0% |" in text
    assert "| model | 1.02 | 1.02 | 1.02 |" in text
    assert "| model, time | 0.70 | 0.70 | 0.70 |" in text and "| model, memory" not in text


def test_a_folder_that_is_no_scored_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "page.md")]) == 2
    assert "metrics.json is not there" in capsys.readouterr().err
    folder = run(tmp_path / "alone", {"cases/played": 3.0})
    assert main([str(folder), "--out", str(tmp_path / "page.md")]) == 2
    assert "compared nobody" in capsys.readouterr().err
    assert main([f"a={folder}", f"a={folder}", "--out", str(tmp_path / "page.md")]) == 2
    assert "two runs of one name" in capsys.readouterr().err
