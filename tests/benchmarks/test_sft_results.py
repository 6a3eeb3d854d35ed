"""The page of runs' figures: each family beside the best policy that looks at nothing."""

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.sft_results import main

METRICS = {
    "train/steps": 600.0,
    "train/seconds": 540.0,
    "eval/hours": 0.5,
    "eval/clips": 80.0,
    "eval/onset_f1": 0.8351,
    "eval/onset_f1.low": 0.80,
    "eval/onset_f1.high": 0.86,
    "eval/qa/onset_f1": 0.92,
    "eval/qa/content_accuracy": 0.587,
    "eval/qa/false_alarms_per_hour": 84.0,
    "baseline/poll/qa/onset_f1": 0.47,
    "baseline/always_speaking/qa/onset_f1": 0.37,
    "baseline/base_polled/qa/onset_f1": 0.48,
    "transfer/screens/onset_f1": 0.44,
}


def run(folder: Path, metrics: dict[str, float]) -> Path:
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(metrics))
    config = {
        "seed": 3,
        "data": {"seed": 11, "kind": "drawn"},
        "train": {"learning_rate": 1e-3},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_a_family_stands_beside_its_best_trivial_policy(tmp_path: Path) -> None:
    folder, out = run(tmp_path / "run", METRICS), tmp_path / "page.md"
    assert main([f"make demo={folder}", "--out", str(out)]) == 0
    text = out.read_text()
    assert "## make demo" in text and str(tmp_path) not in text
    assert "600 steps in 9 minutes, learning rate 0.001, `seed` 3; 0.5 hours" in text
    assert "80 clips of `data.seed` 11" in text
    assert "| Onset F1 | 0.84 | 0.80 to 0.86" in text
    assert "| qa | 0.92 | 0.59 | 84.0 | 0.47 | 0.48 |" in text
    assert "| screens (never trained on) | 0.44 | – | – |  |  |" in text


def test_a_folder_that_is_no_measured_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "page.md")]) == 2
    assert "metrics.json is not there" in capsys.readouterr().err
    folder = run(tmp_path / "trained", {"train/steps": 3.0})
    assert main([str(folder), "--out", str(tmp_path / "page.md")]) == 2
    assert "was not measured" in capsys.readouterr().err
    twice = [str(tmp_path / side / "run") for side in "ab"]
    assert main([*twice, "--out", str(tmp_path / "page.md")]) == 2
    assert "two runs of one name; give NAME=FOLDER" in capsys.readouterr().err
    assert not (tmp_path / "page.md").exists()
