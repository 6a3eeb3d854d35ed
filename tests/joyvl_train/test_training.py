"""A whole training run: schedule, groups, limits, logs, ranks, DeepSpeed."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from joyvl_train.config import EngineConfig, TrainConfig, UserError
from joyvl_train.saved_steps import resumed_step
from joyvl_train.training import fit, freeze, parameter_groups, part_of, schedule
from tests.tiny_training import ROOT, launch, parts, tiny

pytestmark = pytest.mark.usefixtures("one_thread")


def short(**changes: Any) -> TrainConfig:
    known = {"steps": 4, "row_tokens": 320, "precision": "fp32", "save_every": 2, "log_every": 2}
    return TrainConfig(**{**known, **changes})


def run(
    folder: Path, train: TrainConfig, model: Any = None, **options: Any
) -> tuple[dict[str, float], list[dict[str, Any]], Any]:
    """(figures, log lines, the trained model)."""
    model, processor = (model, tiny()[1]) if model is not None else tiny()
    lines: list[Any] = []
    figures = fit(
        model,
        parts(processor),
        train,
        EngineConfig(),
        folder,
        seed=3,
        **{"log": lines.append, **options},
    )
    return figures, lines, model


def test_schedule() -> None:
    constant = schedule(TrainConfig(steps=100, warmup=10, schedule="constant"))
    assert [constant(step) for step in (0, 4, 9, 10, 99)] == [0.1, 0.5, 1.0, 1.0, 1.0]
    linear = schedule(TrainConfig(steps=100, warmup=0, schedule="linear"))
    assert [round(linear(step), 6) for step in (0, 50, 100)] == [1.0, 0.51, 0.02]
    cosine = schedule(TrainConfig(steps=100, warmup=0, schedule="cosine"))
    assert cosine(50) == pytest.approx(0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert cosine(100) == pytest.approx(0.02)
    timed = schedule(TrainConfig(steps=100, warmup=0, schedule="linear"), lambda: 0.5)
    assert [round(timed(step), 6) for step in (0, 50, 75)] == [0.51, 0.51, 0.265]
    over = schedule(TrainConfig(steps=100, warmup=0, schedule="linear"), lambda: 1.3)
    assert over(3) == pytest.approx(0.02)


def test_parts_and_groups() -> None:
    model, _ = tiny()
    groups = parameter_groups(
        model,
        TrainConfig(learning_rate=1e-3, vision_learning_rate=1e-4, projector_learning_rate=1e-5),
    )
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    wanted = {"text": 1e-3, "vision": 1e-4, "projector": 1e-5}
    for name, parameter in model.named_parameters():
        decay = 0.01 if parameter.ndim > 1 else 0.0
        assert rates[id(parameter)] == (wanted[part_of(name)], decay), name
    assert {part_of(name) for name, _ in model.named_parameters()} == set(wanted)
    freeze(model, ["vision", "text"])
    groups = parameter_groups(model, TrainConfig(projector_learning_rate=1e-5))
    assert {group["lr"] for group in groups} == {1e-5}


def test_figures_and_lines(tmp_path: Path) -> None:
    figures, lines, model = run(
        tmp_path, short(eval_every=3), validate=lambda step: {"validation/step": step}
    )
    assert figures["train/steps"] == 4
    assert figures["train/tokens"] > 4 * 200
    assert figures["train/peak_memory_bytes"] > 2**24
    # Steps 2 and 4 are logged, 3 and the last one validated.
    assert sorted(line["step"] for line in lines) == [2, 3, 4, 4]
    assert {"step": 3, "validation/step": 3} in lines
    assert {"step": 4, "validation/step": 4} in lines
    assert set(lines[0]) == {"step", "train/loss", "train/grad_norm", "train/learning_rate"}
    assert resumed_step(tmp_path) == 4
    again, nothing, other = run(tmp_path, short())
    assert (again, nothing) == (figures, [])
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize(("save_every", "seen_at"), [(0, 2), (1, 1)])
def test_training_that_diverges_ends_with_a_line(
    tmp_path: Path, save_every: int, seen_at: int
) -> None:
    model, _ = tiny()
    with torch.no_grad():
        model.model.language_model.norm.weight.fill_(float("inf"))
    lines: list[Any] = []
    says = f"train/loss is nan at step {seen_at}: .* train.learning_rate"
    with pytest.raises(UserError, match=says):
        run(tmp_path, short(save_every=save_every), model, log=lines.append)
    assert not math.isfinite(lines[0]["train/loss"])
    assert resumed_step(tmp_path) == 0  # not even between two logged steps


def test_training_lowers_the_loss_and_bf16_agrees(tmp_path: Path) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        train = short(
            steps=30, warmup=0, learning_rate=3e-3, log_every=1, precision=precision, save_every=0
        )
        _, lines, model = run(tmp_path / precision, train)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        losses[precision] = [line["train/loss"] for line in lines]
    assert losses["fp32"][-1] < losses["fp32"][0] / 2
    assert losses["bf16"][0] == pytest.approx(losses["fp32"][0], rel=0.01)
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"][-1] < losses["bf16"][0] / 2
    assert resumed_step(tmp_path / "fp32") == 0


def test_time_limit_ends_the_run_for_good(tmp_path: Path) -> None:
    train = short(steps=1000, minutes=1e-6, eval_every=500)
    figures, lines, _ = run(tmp_path, train, validate=lambda step: {"validation/step": step})
    assert figures["train/steps"] == 1
    assert lines[0] == {"step": 1, "validation/step": 1}
    assert lines[-1]["step"] == 1 and "train/loss" in lines[-1]
    assert run(tmp_path, train)[0] == figures


class Clock:
    """Tells the seconds that it was given."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds

    def step(self, step: int) -> dict[str, float]:
        self.seconds += 6
        return {"validation/step": step}


def test_the_schedule_runs_through_by_the_time_limit(tmp_path: Path) -> None:
    """Ten steps of six seconds make the minute, of a thousand that there might be."""
    train = short(steps=1000, minutes=1.0, warmup=1, eval_every=1, log_every=1, save_every=4)
    clock = Clock()
    figures, lines, model = run(tmp_path / "whole", train, validate=clock.step, clock=clock)
    rates = [line["train/learning_rate"] for line in lines if "train/loss" in line]
    assert figures["train/steps"] == len(rates) == 10
    assert figures["train/seconds"] == 60
    # A step's rate follows from the time that was over when it began.
    wanted = [0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * n / 10)) for n in range(9)]
    assert rates[1:] == pytest.approx([1e-3 * factor for factor in wanted])
    assert rates[-1] < 0.12 * rates[1]

    # Stopped after six steps, two past the last saved one, and begun again much later.
    class Stopped(Exception):
        pass

    def stop(step: int) -> dict[str, float]:
        if step == 7:
            raise Stopped
        return clock.step(step)

    clock = Clock()
    with pytest.raises(Stopped):
        run(tmp_path / "resumed", train, validate=stop, clock=clock)
    clock = Clock()
    clock.seconds = 9000
    _, lines, again = run(tmp_path / "resumed", train, validate=clock.step, clock=clock)
    rest = [line["train/learning_rate"] for line in lines if "train/loss" in line]
    assert rest == rates[4:]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_frozen_vision_is_reused_by_itself(tmp_path: Path) -> None:
    found = []
    for reuse in (None, False):
        model, _ = tiny()
        freeze(model, ["vision", "projector"])
        _, lines, _ = run(tmp_path / str(reuse), short(log_every=1), model, reuse_vision=reuse)
        found.append([line["train/loss"] for line in lines])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    with pytest.raises(UserError, match="not trained"):
        run(tmp_path / "trained", short(), reuse_vision=True)


def test_quiet_but_for_the_bar(tmp_path: Path) -> None:
    [process] = launch(tmp_path, steps=4)
    lines = [line for line in re.split(r"[\r\n]+", process.text) if line.strip()]
    assert lines
    assert all(line.startswith("training:") for line in lines), process.text
    assert re.search(r"4/4 \[.*step/s, loss \d", lines[-1])


def test_wandb_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    command = [sys.executable, str(ROOT / "tests" / "tiny_training.py"), str(tmp_path)]
    command.append(json.dumps({"steps": 2, "fit": {"wandb": "offline"}}))
    environment = {**os.environ, "WANDB_MODE": "offline", "PYTHONPATH": str(ROOT)}
    environment |= {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


# -- ranks ---------------------------------------------------------------------------------------


def outcome(folder: Path) -> tuple[list[Any], dict[str, torch.Tensor]]:
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    keys = ("step", "train/loss", "train/grad_norm", "train/learning_rate")
    lines = [[line[key] for key in keys] for line in log if "train/loss" in line]
    return lines, load_file(folder / "checkpoint" / "model.safetensors")


def marked(folder: Path) -> list[dict[str, float]]:
    """What each logged step tells of marks."""
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    told = [{k: v for k, v in line.items() if k.startswith("marks/")} for line in log]
    return [each for each in told if each]


def assert_close(found: Path, wanted: Path) -> None:
    (lines, weights), (wanted_lines, wanted_weights) = outcome(found), outcome(wanted)
    assert len(lines) == len(wanted_lines)
    for line, other in zip(lines, wanted_lines, strict=True):
        assert line == pytest.approx(other, rel=1e-5)
    assert set(weights) == set(wanted_weights)
    for name, tensor in wanted_weights.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=2e-5, msg=name)


RANKED: dict[str, Any] = {"steps": 4, "log_every": 1, "save_every": 2, "eval_every": 1, "warmup": 2}


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows a step on one rank."""
    folder = tmp_path_factory.mktemp("single")
    launch(folder, accumulation=2, **RANKED)
    return folder


def engine(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / f"configs/engine/{name}.yaml").read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "zero2", "zero3"])
def test_two_ranks_train_resume_and_save_as_one(name: str, single: Path, tmp_path: Path) -> None:
    if name != "ddp":
        pytest.importorskip("deepspeed")
    launch(tmp_path / "whole", ranks=2, engine=engine(name), **RANKED)
    assert_close(tmp_path / "whole", single)
    # Stopped after the second step: the plan and the rates are those of four.
    folder = tmp_path / "resumed"
    launch(folder, ranks=2, engine=engine(name), stop=2, **RANKED)
    assert resumed_step(folder / "steps") == 2
    launch(folder, ranks=2, engine=engine(name), **RANKED)
    assert_close(folder, single)
    model = AutoModelForImageTextToText.from_pretrained(folder / "checkpoint")
    assert set(model.state_dict()) == set(tiny()[0].state_dict())


@pytest.mark.slow
def test_ranks_call_the_head_equally_often(single: Path, tmp_path: Path) -> None:
    """Of weights that ranks hold parts of, one that scores more positions would wait for ever."""
    pytest.importorskip("deepspeed")
    launch(tmp_path, ranks=2, engine=engine("zero3"), head_rows=5, **RANKED)
    assert_close(tmp_path, single)


@pytest.mark.slow
def test_a_run_of_two_ranks_goes_on_alone(single: Path, tmp_path: Path) -> None:
    folder = tmp_path / "resumed"
    launch(folder, ranks=2, engine=engine("ddp"), stop=2, **RANKED)
    launch(folder, accumulation=2, **RANKED)
    assert_close(folder, single)
    figures = [json.loads((path / "figures.json").read_text()) for path in (folder, single)]
    tokens = [each["train/tokens"] for each in figures]
    assert tokens[0] == tokens[1] > 0


@pytest.mark.slow
def test_two_ranks_share_features_and_stop_together(tmp_path: Path) -> None:
    options = {**RANKED, "steps": 1000, "minutes": 1e-6, "freeze": ["vision", "projector"]}
    options["vision_cache"] = str(tmp_path / "features")
    launch(tmp_path / "ranks", ranks=2, engine=engine("ddp"), **options)
    launch(tmp_path / "single", accumulation=2, **options)
    assert_close(tmp_path / "ranks", tmp_path / "single")
    assert resumed_step(tmp_path / "ranks" / "steps") == 1
    kept = [path.suffix for path in (tmp_path / "features").rglob("*") if path.is_file()]
    assert len(kept) > 3 and set(kept) == {""}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_weights_loaded_in_bf16_under_deepspeed(name: str, tmp_path: Path) -> None:
    """DeepSpeed keeps float32 copies: small updates add up, over a restart too."""
    pytest.importorskip("deepspeed")
    options = {**RANKED, "precision": "bf16", "dtype": "bfloat16", "schedule": "constant"}
    options |= {"warmup": 0, "steps": 40, "eval_every": 20, "save_every": 20, "learning_rate": 4e-6}
    launch(tmp_path, engine=engine(name), stop=20, **options)
    launch(tmp_path, engine=engine(name), **options)
    before = tiny()[0].to(torch.bfloat16).state_dict()
    _, after = outcome(tmp_path)
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    moved = after[name].float() - before[name].float()
    # Forty updates, each below half of what bf16 tells apart of most weights.
    assert (moved != 0).float().mean() > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "zero2", "zero3"])
def test_marks_on_two_ranks(name: str, tmp_path: Path) -> None:
    """Under LoRA, too, and where a rank's row has none."""
    if name != "ddp":
        pytest.importorskip("deepspeed")
    options = {"lora": {"rank": 4, "alpha": 8.0}, "fit": {"marks": 1.0}, **RANKED}
    launch(tmp_path / "single", accumulation=2, **options)
    launch(tmp_path / "ranks", ranks=2, engine=engine(name), stop=2, **options)
    launch(tmp_path / "ranks", ranks=2, engine=engine(name), **options)
    assert_close(tmp_path / "ranks", tmp_path / "single")
    told, wanted = (marked(tmp_path / folder) for folder in ("ranks", "single"))
    assert len(told) == len(wanted) == 4
    for line, other in zip(told, wanted, strict=True):
        assert line == pytest.approx(other, abs=0.05)  # a logit at the border may fall either way
    unmarked = options | {"fit": {}}
    launch(tmp_path / "unmarked", accumulation=2, **unmarked)
    with pytest.raises(AssertionError):
        assert_close(tmp_path / "unmarked", tmp_path / "single")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_lora_under_deepspeed(name: str, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    options = {"lora": {"rank": 4, "alpha": 8.0}, "tokens": [8, 9, 10], **RANKED}
    launch(tmp_path / "single", accumulation=2, **options)
    launch(tmp_path / "ranks", ranks=2, engine=engine(name), stop=2, **options)
    launch(tmp_path / "ranks", ranks=2, engine=engine(name), **options)
    assert_close(tmp_path / "ranks", tmp_path / "single")
