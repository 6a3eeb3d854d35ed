"""The code of frames through the command line: looked at, trained with, evaluated with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from joyvl_train.cli import main
from joyvl_train.engine import Engine
from tests.joyvl_train.videos import make_video

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("one_thread")


def run(folder: Path, *overrides: str, name: str = "out") -> int:
    places = [f"run.root={folder / 'outputs'}", f"run.dir={folder / name}", "run.threads=1"]
    return main([*overrides, *places], ROOT)


def look(folder: Path, *overrides: str) -> int:
    cache = f"data.cache_dir={folder / 'cache'}"
    return run(folder, "recipe=corpus", "command=codec", cache, *overrides)


def test_what_becomes_of_a_video_is_told_and_shown(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", [float(n) for n in range(12)], size=(96, 64))
    assert look(tmp_path, f"video={video}") == 0
    told = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert told["codec/frames"] == 12 and told["codec/whole_tokens"] == 6
    references = told["codec/references"]
    assert 1 <= references < 12 and told["codec/references/first"] == 1
    mean = (6 * references + 4 * (12 - references)) / 12
    assert told["codec/tokens_per_frame"] == pytest.approx(mean)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<img") == 12 + 11 + (12 - references)
    assert "little by little too far" in page


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "video is empty: name the file"),
        (["video=nowhere.mp4"], "video=nowhere.mp4: "),
        (["video={broken}"], "broken.mp4: "),
        (["video={broken}", "codec.search=30"], "codec: block=32 and search=30"),
        (["video={broken}", "codec.gap=40"], "codec: gap=40 is above longest=30"),
    ],
)
def test_what_a_user_gets_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    assert look(tmp_path, *(each.format(broken=broken) for each in overrides)) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["codec.side=40"], "codec.side=40: this model reads a picture of that size"),
        (["codec.side=96"], "in 9 tokens and a frame of data.size=96 in 9: nothing is saved"),
        (["train.marks=0.5"], "train.marks=0.5: tells of whole frames alone"),
    ],
)
def test_a_code_that_the_model_cannot_be_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    given = ["recipe=sft", "setting=smoke", "data.codec=predictive", *overrides]
    assert run(tmp_path, *given) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.slow
def test_a_checkpoint_is_trained_rolled_out_and_evaluated_on_coded_frames(tmp_path: Path) -> None:
    coded = ["data.codec=predictive", "data.size=192"]
    assert run(tmp_path, "recipe=sft", "setting=smoke", *coded, name="sft") == 0
    start = f"checkpoint={tmp_path / 'sft'}"
    small = ["data.test_hours=0.002", "eval.silence_biases=[]", "windows.mine=1", "grpo.steps=2"]
    given = ["recipe=grpo", "setting=smoke", start, *small, *coded]
    assert run(tmp_path, *given, name="grpo") == 0
    for name in ("sft", "grpo"):
        told = json.loads((tmp_path / name / "metrics.json").read_text())
        assert "eval/silence_accuracy" in told
    lines = (tmp_path / "grpo" / "log.jsonl").read_text().splitlines()
    # Rollouts and training read the same prompts: what drew and what is trained agree.
    gaps = [json.loads(line)["grpo/gap"] for line in lines if "grpo/gap" in line]
    assert gaps and max(gaps) < 0.02
    given = ["recipe=eval", "setting=smoke", f"checkpoint={tmp_path / 'grpo'}", *coded]
    assert run(tmp_path, *given, name="eval") == 0


def test_cases_are_played_on_coded_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they would be live; and a model that was not trained so is told of."""
    shown: list[bool] = []
    step = Engine.step

    def seen(self: Engine, handles: Sequence[int]) -> list[Any]:
        shown.extend(any(self.stream(handle).turns[-1].predicted) for handle in handles)
        return step(self, handles)

    monkeypatch.setattr(Engine, "step", seen)
    made = tmp_path / "made"
    shutil.copytree(ROOT / "models" / "tiny", made / "checkpoint")
    (made / "config.yaml").write_text("recipe: sft\ndata: {codec: 'off'}\n")
    given = ["recipe=eval", "setting=smoke", f"checkpoint={made}", "data.codec=predictive"]
    given += ["cases.only=[turtles-come]", "cases.systems=[model]"]
    assert run(tmp_path, *given) == 0
    assert any(shown) and not all(shown)
    told = capsys.readouterr().out
    assert "was trained with data.codec=off, this run has predictive" in told
