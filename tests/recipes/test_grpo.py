"""recipe=grpo through the command line, on the kept base: trained, measured, gone on with."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from joyvl_train.cli import compose, main
from joyvl_train.config import UserError
from joyvl_train.heldout import Trace
from joyvl_train.run import Run
from joyvl_train.video import FrameError
from recipes import _clips
from recipes import grpo as recipe
from recipes._clips import lures
from recipes._grpo_check import check
from rl.grpo import Grpo
from rl.rewards import PARTS
from tests.rl.policies import world

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("one_thread")


def run(folder: Path, name: str, *overrides: str) -> int:
    places = [f"run.root={folder / 'outputs'}", f"run.dir={folder / name}", "run.threads=1"]
    small = ["data.test_hours=0.002", "eval.silence_biases=[]", "windows.mine=1"]
    start = f"checkpoint={ROOT / 'models' / 'tiny'}"
    given = ["recipe=grpo", "setting=smoke", *places, *small, start]
    return main([*given, *overrides], ROOT)


def test_lures_are_what_comes_and_goes() -> None:
    timeline, _ = world("alerting", 3)
    tracks = timeline.clip.scene["tracks"]
    assert set(lures(timeline)) >= {int(track["start"]) for track in tracks}


def test_streams_with_broken_pictures_are_not_mined_but_named(tmp_path: Path, monkeypatch) -> None:
    class Frames:
        seconds = 12

        def __init__(self, broken: int) -> None:
            self.broken = broken

        def frames(self, second: int) -> tuple[int, ...]:
            if second == self.broken:
                raise FrameError("damaged", f"second {second}")
            return (second,)

    clips = [(world("alerting", n)[0], Frames(11 if n == 1 else 99)) for n in range(3)]
    asked: list[Any] = []

    def streamed(model, renderer, config, cases):
        asked.extend(cases)
        return [Trace(t.clip.id, t.family, "test", "model", (), ()) for t, _ in cases]

    monkeypatch.setattr(_clips, "stream_model", streamed)
    corpus = tmp_path / "corpus.json"
    corpus.write_text("[]")
    given = [f"run.dir={tmp_path / 'run'}", "data.kind=path", f"data.path={corpus}"]
    with Run(compose(ROOT, ["recipe=grpo", *given]), ROOT) as run:
        assert _clips.mined(run.config, run, None, None, clips) == {}
    assert [timeline.clip.id for timeline, _ in asked] == [clips[n][0].clip.id for n in (0, 2)]
    (line,) = (tmp_path / "run" / "rejects.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "item": "training clip 1",
        "reason": "damaged",
        "detail": "second 11",
    }


def test_windows_longer_than_a_chunk_are_refused(tmp_path: Path) -> None:
    long = ["recipe=grpo", "windows.pending=90"]
    with pytest.raises(UserError, match="the longest has 90 s"):
        compose(ROOT, [*long, "stream.chunk_seconds=100"])
    # Where a checkpoint may bring a chunk that holds it, once that is known.
    config = compose(ROOT, [*long, f"checkpoint={ROOT / 'models' / 'tiny'}", f"run.dir={tmp_path}"])
    with Run(config, ROOT) as run, pytest.raises(UserError, match="the longest has 90 s"):
        recipe.main(config, run)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["command=play"], "recipe=grpo has run and windows"),
        (
            ["windows.mix.answer=0", "windows.mix.silence=0", "windows.mix.pending=0"],
            "no kind of window has a weight",
        ),
        (["+windows.mix.late=1"], "windows.mix.late: there are answer, silence, pending"),
        (["reward.judge=true"], "agents.url is empty"),
        (["reward.timing=-1"], "takes number, 0 to 100"),
        ([f"reward.{part}=0" for part in PARTS], "reward: every part has the weight 0"),
        (["reward.judge=true", "agents.url=http://127.0.0.1:1/v1"], "agents.model is empty"),
        (["train.marks=0.5"], "train.marks=0.5: marks are read by recipe=sft"),
        (["train.vision_cache=kept"], "train.vision_cache=kept: recipe=grpo keeps"),
        (["model.lora.rank=4", "model.lora.dropout=0.2"], "model.lora.dropout=0.2: ratios"),
        (["grpo.level=word"], "takes token or sequence"),
    ],
)
def test_what_a_user_gets_wrong(tmp_path: Path, capsys, overrides, message) -> None:
    assert run(tmp_path, "wrong", "windows.mine=0", *overrides) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and error.startswith("error: ")
    # Refused before anything was done: the run is bound to nothing.
    assert not (tmp_path / "wrong").exists()


def test_rows_that_ranks_cannot_share_and_a_wandb_that_is_not_there(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = compose(ROOT, ["recipe=grpo", "grpo.supervised=3", "run.wandb=offline"])
    with pytest.raises(UserError, match="grpo.supervised=3: is dealt to 2 ranks"):
        check(config)
    config.grpo.supervised = 4
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="run.wandb needs wandb"):
        check(config)


@pytest.mark.parametrize("setting", ["smoke", "short", "full"])
def test_every_setting_is_one_that_it_can_do(setting: str) -> None:
    check(compose(ROOT, ["recipe=grpo", f"setting={setting}"]))


def test_nothing_to_start_from(tmp_path: Path, capsys) -> None:
    assert run(tmp_path, "none", "checkpoint=''") == 2
    assert "nothing to start from: there is not the latest run of recipe=sft" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
def test_a_run_that_is_broken_off_goes_on_with_its_best_step_and_its_alarms(
    tmp_path: Path, monkeypatch
) -> None:
    class Killed(Exception):
        pass

    scores = iter([0.1, 0.4, 0.3, 0.2])  # before training, of step 1, 2 and 3
    begun: list[Any] = []
    fit, save = recipe.fit_policy, Grpo.save

    def fitted(*arguments, **options):
        begun.append(options["best"])
        validated = lambda step: {"validation/onset_f1": next(scores)}  # noqa: E731
        return fit(*arguments, **{**options, "validate": validated})

    def killed(grpo: Grpo, state) -> None:
        save(grpo, state)
        if grpo.step == 1:
            raise Killed

    @contextmanager
    def lines(mode: str, folder: Path):
        yield lambda line: told_of.append((mode, folder.name, line["step"]))

    told_of: list[tuple[str, str, int]] = []
    monkeypatch.setattr(recipe, "wandb_lines", lines)
    monkeypatch.setattr(recipe, "fit_policy", fitted)
    monkeypatch.setattr(recipe, "evaluate", lambda *arguments, **options: None)
    given = ["grpo.steps=3", "train.eval_every=1", "train.save_every=1", "eval.max_new_tokens=8"]
    monkeypatch.setattr(Grpo, "save", killed)
    with pytest.raises(Killed):
        run(tmp_path, "torn", *given)
    monkeypatch.setattr(Grpo, "save", save)
    folder = tmp_path / "torn"
    assert json.loads((folder / "best.json").read_text()) == [0.4, 1]
    best = (folder / "best" / "model.safetensors").read_bytes()
    (folder / "alarms.json").write_text(json.dumps({"3": [2]}))

    def plan(config, run, clips, alarms):
        begun.append(alarms)
        return planned(config, run, clips, alarms)

    planned = recipe.plan_of
    monkeypatch.setattr(recipe, "plan_of", plan)
    monkeypatch.setattr(_clips, "stream_model", None)  # nothing is mined anew
    assert run(tmp_path, "torn", *given) == 0
    assert begun == [None, {3: [2]}, (0.4, 1)]
    assert (folder / "checkpoint" / "model.safetensors").read_bytes() == best
    told = json.loads((folder / "metrics.json").read_text())
    assert (told["train/best_step"], told["train/best_score"]) == (1, 0.4)
    assert told["train/steps"] == 3
    # What is logged goes to Weights & Biases, too: rollouts and validations.
    logged = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert told_of == [("off", "steps", step) for step in logged] and len(logged) == 7


@pytest.mark.slow
def test_trained_measured_and_shown(tmp_path: Path) -> None:
    assert run(tmp_path, "one", "grpo.steps=2", "train.eval_every=1", "eval.max_new_tokens=8") == 0
    folder = tmp_path / "one"
    told = json.loads((folder / "metrics.json").read_text())
    assert told["train/steps"] == 2 and told["train/collapsed"] == 0
    assert "eval/silence_accuracy" in told and "baseline/start/silence_accuracy" in told
    assert (folder / "start.jsonl").exists()
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "grpo/reward" in line] == [1, 2]
    assert [line["step"] for line in lines if "validation/silence_accuracy" in line] == [0, 1, 2]
    assert (folder / "checkpoint" / "config.json").exists() and not (folder / "steps").exists()
    assert "Parts of the reward" in (folder / "report.html").read_text()
    assert (tmp_path / "outputs" / "latest" / "grpo").exists()
    # Its checkpoint is what evaluation takes first.
    assert run(tmp_path, "windows", "command=windows", "windows.shown=2") == 0
    shown = tmp_path / "windows"
    assert "earned" in (shown / "report.html").read_text()
    assert "windows/rolled" in (shown / "metrics.json").read_text()
