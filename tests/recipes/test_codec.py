"""The code of frames through the command line: looked at, trained with, evaluated with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from joyvl_train.cli import main
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
