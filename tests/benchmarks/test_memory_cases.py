"""The memory cases with a tier taken away at a time: what is run, and the table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.memory_cases import ARMS, main
from joyvl_train.cli import compose

ROOT = Path(__file__).parents[2]


def test_each_arm_has_its_memory_and_is_played_once(tmp_path: Path) -> None:
    played = []

    def start(command: Sequence[str]) -> int:
        config = compose(ROOT, list(command))
        played.append(config)
        told = {f"{kind}/model": 1.0 + len(played) / 10 for kind in ("score", "quality", "timing")}
        told |= {
            "win_rate/ask_only": 5 / 9,
            "tie_rate/ask_only": 3 / 9,
            "loss_rate/ask_only": 1 / 9,
        }
        told |= {"win_rate/ask_only.low": 2 / 9, "win_rate/ask_only.high": 8 / 9}
        folder = Path(config.run.dir)
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(told))
        (folder / "finished").touch()
        return 0

    given = [f"full={tmp_path / 'run'}", "--out", str(tmp_path / "out"), "--set", "eval.batch=3"]
    given += ["--results", str(tmp_path / "page.md")]
    assert main(given, start) == 0
    assert [(c.stream.mid, c.stream.long, c.cases.summaries) for c in played] == [
        (5, 15, "model"),
        (5, 15, "said"),
        (5, 0, "model"),
        (1, 0, "model"),
        (1, 0, "said"),
    ]
    assert {(c.checkpoint, c.eval.batch) for c in played} == {(str(tmp_path / "run"), 3)}
    assert main(given, start) == 0 and len(played) == len(ARMS)
    text = (tmp_path / "page.md").read_text()
    row = "| full | three tiers | 55.6% [22.2%, 88.9%] | 33.3% | 11.1% | 1.10 | 1.10 | 1.10 |"
    assert row in text


def test_what_fails_is_told(tmp_path: Path) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "out")], lambda command: 2) == 2
