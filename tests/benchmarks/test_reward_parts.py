"""GRPO with a part of its reward left out at a time, at the smallest size."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.reward_parts import ALL, BEGUN, Plan, main
from joyvl_train.cli import compose
from joyvl_train.cli import main as command_line

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("one_thread")


def test_each_arm_leaves_out_its_part_and_all_are_scored_alike(tmp_path: Path) -> None:
    plan = Plan(tmp_path, "start", ("timing", "talk"), (0, 1), ("grpo.steps=7",), ("eval.early=1",))
    configs = [compose(ROOT, command) for command in plan.models.commands()]
    trained = [config for config in configs if config.recipe == "grpo"]
    assert [(c.reward.timing, c.reward.talk) for c in trained] == [(1, 0.5), (0, 0.5), (1, 0)] * 2
    assert {(c.checkpoint, c.grpo.steps, c.train.eval_every) for c in trained} == {("start", 7, 0)}
    scored = [config for config in configs if config.recipe == "sft"]
    assert {(c.command, c.eval.early) for c in scored} == {("evaluate", 1)}
    places = [config.run.dir for config in trained]
    assert [c.checkpoint for c in scored] == ["start", *places[:3], "start", *places[3:]]


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--start", "x", "--out", "y", "--parts", "beauty"])
    assert "beauty: there are format, timing" in capsys.readouterr().err


@pytest.mark.slow
def test_arms_are_trained_scored_and_compared(tmp_path: Path) -> None:
    smoke = ["setting=smoke", f"data.cache_dir={tmp_path / 'cache'}", "run.threads=1"]
    begun = ["recipe=sft", *smoke, f"run.dir={tmp_path / 'sft'}", f"run.root={tmp_path}"]
    assert command_line(begun, ROOT) == 0
    given = ["--start", str(tmp_path / "sft"), "--out", str(tmp_path / "parts"), "--samples", "20"]
    given += ["--parts", "timing", "--train", *smoke, "--score", *smoke, "data.test_streams=9"]
    assert main(given, lambda command: command_line(list(command), ROOT)) == 0
    text = (tmp_path / "parts" / "reward_parts.md").read_text()
    for line in (f"| {BEGUN} − {ALL} |", f"| without timing − {ALL} |", "Seeds 0; 9 clips."):
        assert line in text
