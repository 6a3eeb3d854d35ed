"""The three arms of the ablation of verification, at the smallest size, by the command line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from benchmarks.verification import Plan, main
from joyvl_train.cli import compose
from joyvl_train.cli import main as command_line

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_commands_can_be_printed_and_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--out", str(tmp_path), "--seeds", "0", "1", "--verify", "corpus.tools=[motion]"]
    assert main([*given, "--print"]) == 0
    lines = [shlex.split(line)[3:] for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 3 * (1 + 2 * 2) and not list(tmp_path.iterdir())
    configs = [compose(ROOT, line) for line in lines]
    corpora = [config for config in configs if config.recipe == "corpus"]
    assert [config.source.corrupt for config in corpora] == [0, 0.2, 0.2]
    assert [config.corpus.verify for config in corpora] == ["off", "off", "auto"]
    assert [config.corpus.tools for config in corpora] == [["auto"], ["auto"], ["motion"]]
    trained = [c for c in configs if c.recipe == "sft" and c.command == "run"]
    assert {c.data.path for c in trained} == {f"{c.run.dir}/corpus" for c in corpora}
    assert {c.seed for c in trained} == {0, 1}
    scored = [c for c in configs if c.command == "evaluate"]
    assert [c.checkpoint for c in scored] == [c.run.dir for c in trained]
    assert {c.data.kind for c in scored} == {"drawn"}


def test_a_run_that_fails_ends_it(tmp_path: Path) -> None:
    seen = []

    def failing(command: object) -> int:
        seen.append(command)
        return 2

    assert main(["--out", str(tmp_path)], failing) == 2 and len(seen) == 1


@pytest.mark.slow
def test_three_arms_are_trained_scored_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    smoke = [
        "setting=smoke",
        "data.families=[qa,delegation]",
        f"data.cache_dir={tmp_path / 'cache'}",
    ]
    given = ["--out", str(tmp_path), "--samples", "20", "--share", "1"]
    given += ["--corpus", *smoke, "source.streams=20"]
    given += ["--train", *smoke, "run.threads=1", "data.workers=0", "data.test_streams=4"]

    def run(command: object) -> int:
        return command_line(list(command), ROOT)  # type: ignore[call-overload]

    assert main(given, run) == 0
    plan = Plan(tmp_path)
    figures = {
        arm: json.loads((plan.corpus(arm) / "metrics.json").read_text()) for arm in plan.arms
    }
    assert figures["clean"]["corpus/admitted"] == 20 and "corpus/damaged" not in figures["clean"]
    assert figures["unverified"]["corpus/damaged/admitted"] == 20
    left = figures["verified"]["corpus/damaged/admitted"]
    assert left < 20 and figures["verified"]["corpus/rejected"] == 20 - left
    text = (tmp_path / "verification.md").read_text()
    assert text.strip() in capsys.readouterr().out
    assert f"| verified | {left} | 20 | {left} | {20 - left} | 0 |" in text
    assert "2 steps; 4 clips" in text and "| verified − unverified |" in text
    assert "| unverified − clean |" in text and "Onset F1" in text
    assert main(given, run) == 0  # all is there: nothing is trained again
    assert "is finished already" in capsys.readouterr().out
