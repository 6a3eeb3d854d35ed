"""A family left out of training at a time, at the smallest size, by the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.mixture import ALL, DIRECT, Plan, main
from data_pipeline.world.streams import FAMILIES
from joyvl_train.cli import compose
from joyvl_train.cli import main as command_line

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("one_thread")


def test_each_arm_leaves_out_its_family_and_is_scored_on_all(tmp_path: Path) -> None:
    plan = Plan(tmp_path, ("qa", "chat"), (0, 1), direct=True)
    configs = [compose(ROOT, command) for command in plan.commands()]
    assert [config.recipe for config in configs] == ["corpus", *["sft"] * (2 * 2 * 4)]
    trained = [config for config in configs[1:] if config.command == "run"]
    mixes = [{}, {"qa": 0.0}, {"chat": 0.0}, {}]
    assert [config.data.mix for config in trained] == mixes * 2
    assert [config.seed for config in trained] == [0] * 4 + [1] * 4
    shards = f"{configs[0].run.dir}/corpus"
    assert [config.data.path for config in trained] == [shards, shards, shards, ""] * 2
    scored = [config for config in configs if config.command == "evaluate"]
    assert [config.checkpoint for config in scored] == [config.run.dir for config in trained]
    assert {(config.data.kind, str(config.data.mix)) for config in scored} == {("drawn", "{}")}


def test_a_run_that_fails_ends_it(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path)], lambda command: 2) == 2
    assert not list(tmp_path.iterdir())


def test_an_unknown_family_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--out", "y", "--families", "beauty"], lambda command: 2)
    assert f"beauty: there are {FAMILIES[0]}, {FAMILIES[1]}" in capsys.readouterr().err


@pytest.mark.slow
def test_arms_are_trained_scored_and_compared(tmp_path: Path) -> None:
    smoke = ["setting=smoke", f"data.cache_dir={tmp_path / 'cache'}"]
    given = ["--out", str(tmp_path), "--samples", "20", "--families", "qa", "--direct"]
    given += ["--corpus", *smoke, "source.streams=20", "data.families=[qa,delegation]"]
    given += ["--train", *smoke, "run.threads=1", "data.workers=0", "data.test_streams=18"]
    assert main(given, lambda command: command_line(list(command), ROOT)) == 0
    text = (tmp_path / "mixture.md").read_text()
    assert f"| without qa − {ALL} |" in text and f"| {DIRECT} − {ALL} |" in text
    assert "2 steps; 18 clips" in text
    assert "| qa | " in text and "source.streams=20" in text
