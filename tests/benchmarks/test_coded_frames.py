"""Models that see frames whole and coded, at the smallest size, by the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import coded_frames
from benchmarks.coded_frames import CODED, SMALL, WHOLE, Plan, main
from joyvl_train.cli import compose
from joyvl_train.cli import main as command_line

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("one_thread", "few_counted")


@pytest.fixture
def few_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are counted on a few clips."""
    monkeypatch.setattr(coded_frames, "_COUNTED", 12)


def test_arms_see_as_they_are_told_in_training_and_scoring(tmp_path: Path) -> None:
    plan = Plan(tmp_path, (0, 1), ("setting=smoke",))
    configs = [compose(ROOT, command) for command in plan.models.commands()]
    assert [config.command for config in configs] == ["run", "evaluate"] * 8
    for trained, scored in zip(configs[::2], configs[1::2], strict=True):
        assert scored.checkpoint == trained.run.dir
        for of in ("size", "codec"):
            assert getattr(trained.data, of) == getattr(scored.data, of)
        assert trained.codec == scored.codec
    seen = [(config.data.size, config.data.codec) for config in configs[:8:2]]
    assert seen == [(192, "off"), (192, "predictive"), (192, "predictive"), (96, "off")]
    assert configs[4].codec.longest == 4
    rows = [config.train.row_tokens for config in configs[:8:2]]
    assert rows[0] > rows[2] > rows[1] and rows[3] == 4096


def test_tokens_are_counted_as_they_are_read(tmp_path: Path) -> None:
    plan = Plan(tmp_path)
    whole, small = plan.tokens(WHOLE), plan.tokens(SMALL)
    assert whole["vision"] == 36 and small["vision"] == 9
    assert whole["delimiters"] == small["delimiters"] == 2
    assert whole["rest"] == pytest.approx(small["rest"])
    coded = plan.tokens(CODED)
    assert 4 < coded["vision"] < 18 and 2 < coded["delimiters"] < 3


@pytest.mark.slow
def test_arms_are_trained_scored_and_compared(tmp_path: Path) -> None:
    smoke = ["setting=smoke", "run.threads=1", "data.workers=0", "data.test_streams=9"]
    given = ["--out", str(tmp_path), "--samples", "20", "--train", *smoke]
    assert main(given, lambda command: command_line(list(command), ROOT)) == 0
    text = (tmp_path / "coded_frames.md").read_text()
    assert f"| {CODED} − {WHOLE} |" in text and "9 clips" in text
    assert f"| {WHOLE} | 36.0 | 2.0 |" in text and "Recall by the size" in text
