"""Families left out of training, of the world and of a corpus, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.compare_runs import compare, find
from joyvl_train.cli import compose, expand, main
from joyvl_train.config import UserError
from recipes._data import left_out

ROOT = Path(__file__).parents[2]
SMOKE = ["setting=smoke", "data.families=[qa,alerting]"]
TRAIN = ["recipe=sft", "run.threads=1", "data.workers=0", "data.test_streams=4"]

pytestmark = pytest.mark.usefixtures("one_thread")


def test_weights_of_a_corpus_are_all_or_nothing() -> None:
    path = ["recipe=sft", "data.path=somewhere"]
    assert left_out(compose(ROOT, [*path, "data.mix={qa:0,chat:1}"])) == ["qa"]
    with pytest.raises(UserError, match=r"data.mix.qa=2: .* 0 leaves a family out of training"):
        left_out(compose(ROOT, [*path, "data.mix.qa=2"]))


@pytest.mark.slow
def test_a_corpus_is_trained_on_without_a_family(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = [f"run.root={tmp_path / 'outputs'}", f"data.cache_dir={tmp_path / 'cache'}"]
    made = ["recipe=corpus", *SMOKE, "source.streams=12", f"run.dir={tmp_path / 'made'}"]
    assert main([*made, *root], ROOT) == 0
    counts = json.loads((tmp_path / "made" / "metrics.json").read_text())
    given = [*TRAIN, "setting=smoke", *root, f"data.path={tmp_path / 'made' / 'corpus'}"]
    given += ["data.held_out=0"]
    assert main([*given, f"run.dir={tmp_path / 'run'}", "data.mix={qa:0}"], ROOT) == 0
    lines = (tmp_path / "run" / "rejects.jsonl").read_text().splitlines()
    left = [json.loads(line) for line in lines]
    assert {line["reason"] for line in left} == {"family left out"}
    assert len(left) == counts["corpus/family/qa"] > 0
    capsys.readouterr()
    assert main([*given, f"run.dir={tmp_path / 'wrong'}", "data.mix={chat:0}"], ROOT) == 2
    assert "data.mix.chat=0" in capsys.readouterr().err


@pytest.mark.slow
def test_the_arms_of_the_worlds_mixture_are_compared(tmp_path: Path) -> None:
    """As docs/train.md has it; all arms are scored on all families."""
    sweep = [*TRAIN, *SMOKE, f"run.root={tmp_path / 'outputs'}", "data.mix={},{qa:0}"]
    for number, job in enumerate(expand(sweep)):
        assert main([*job.overrides, f"run.dir={tmp_path / 'arms' / str(number)}"], ROOT) == 0
    base = "data.mix as it comes"
    table = compare(find([tmp_path / "arms"]), "data.mix", base, samples=20)
    assert f"| qa=0.0 − {base} |" in table and "4 clips" in table
    for number in "01":
        found = json.loads((tmp_path / "arms" / number / "metrics.json").read_text())
        assert {"eval/qa/onset_f1", "eval/alerting/onset_f1"} <= set(found)
