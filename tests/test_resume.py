"""A run killed at any moment, started again, ends as an unbroken one does."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from joyvl_train.saved_steps import STATE_FILE, last_step, resumed_step
from tests.tiny_training import ROOT, launch

PLAIN: dict[str, Any] = {"steps": 14, "eval_every": 4, "save_every": 2, "log_every": 3}
LORA = {
    **PLAIN,
    "accumulation": 2,
    "freeze": ["vision", "projector"],
    "lora": {"rank": 4, "dropout": 0.1},
}
CHANGING = ("train/seconds", "train/peak_memory_bytes")


def outcome(folder: Path) -> dict[str, Any]:
    """What must not depend on kills: tensors to the bit, log lines, figures."""
    figures = json.loads((folder / "figures.json").read_text())
    assert all(figures.pop(key) > 0 for key in CHANGING)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {
        "tensors": (folder / "checkpoint" / "model.safetensors").read_bytes(),
        "log": log,
        "figures": figures,
    }


def kill_when(folder: Path, due: Callable[[float], bool], options: dict[str, Any]) -> bool:
    """Starts the run, kills it (-9) as soon as `due(seconds since the first saved step)` holds.

    False where it ended before.
    """
    [process] = launch(folder, wait=False, **options)
    begun: float | None = None
    while process.poll() is None:
        if begun is None and (folder / "steps").is_dir() and any((folder / "steps").iterdir()):
            begun = time.monotonic()
        if begun is not None and due(time.monotonic() - begun):
            process.kill()
            process.wait()
            return True
        time.sleep(0.001)
    assert process.returncode == 0, process.communicate()[0]
    return False


def last_saved(steps: Path) -> int:
    """The last step whose folder is there, whole or torn; 0 where there is none."""
    found = steps.glob("checkpoint-*") if steps.is_dir() else ()
    return max((int(path.name.split("-")[1]) for path in found), default=0)


def torn(folder: Path) -> bool:
    """Whether a step is being saved just now."""
    return any(not (path / STATE_FILE).exists() for path in (folder / "steps").glob("checkpoint-*"))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    launch(folder, **PLAIN)
    return folder


def test_killed_while_saving(unbroken: Path, tmp_path: Path) -> None:
    saved: set[int] = set()

    def due(_: float) -> bool:
        saved.add(resumed_step(tmp_path / "steps"))
        return len(saved) > 2 and torn(tmp_path)

    assert kill_when(tmp_path, due, PLAIN)
    assert not (tmp_path / "figures.json").exists()
    launch(tmp_path, **PLAIN)
    assert outcome(tmp_path) == outcome(unbroken)


def test_steps_torn_by_a_kill_are_dropped(unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken, tmp_path / "run")
    steps = tmp_path / "run" / "steps"
    assert last_step(steps) == steps / "checkpoint-14"
    # As if killed in the midst of writing the last step, its optimizer cut short.
    (steps / "checkpoint-14" / STATE_FILE).unlink()
    optimizer = steps / "checkpoint-14" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:1000])
    (tmp_path / "run" / "figures.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    assert resumed_step(steps) == 12
    launch(tmp_path / "run", **PLAIN)
    assert outcome(tmp_path / "run") == outcome(unbroken)


def test_complete_run_returns_what_it_had(unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken, tmp_path / "run")
    before = json.loads((unbroken / "figures.json").read_text())
    (tmp_path / "run" / "figures.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    launch(tmp_path / "run", **PLAIN)
    assert json.loads((tmp_path / "run" / "figures.json").read_text()) == before
    assert outcome(tmp_path / "run") == outcome(unbroken)


@pytest.mark.slow
def test_ten_kills_with_dropout_and_reused_vision(tmp_path: Path) -> None:
    options = {**LORA, "steps": 40, "save_every": 3}
    launch(tmp_path / "unbroken", **options)
    rng = random.Random(0)
    kills = 0
    for _ in range(10):
        moment = rng.uniform(0.0, 0.4)
        kills += kill_when(tmp_path / "killed", lambda s, m=moment: s >= m, options)
    assert kills >= 5
    launch(tmp_path / "killed", **options)
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "unbroken")


STEPS = 48


def sft(folder: Path) -> subprocess.Popen[bytes]:
    """`recipe=sft` from the command line, a minute or two of it on one thread."""
    words = ["recipe=sft", "setting=smoke", f"run.dir={folder}", f"run.root={folder.parent}"]
    words += [f"train.steps={STEPS}", "train.eval_every=20", "train.log_every=5"]
    words += ["train.save_every=4", "data.train_streams=500", "data.test_hours=0.03"]
    words += ["run.threads=1"]
    return subprocess.Popen(
        [sys.executable, "-m", "joyvl_train", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not (ROOT / "models" / "tiny").is_dir(), reason="needs the kept base")
def test_ten_kills_of_the_recipe(tmp_path: Path) -> None:
    assert sft(tmp_path / "unbroken").wait() == 0
    killed = tmp_path / "killed"
    rng = random.Random(1)
    # At the start, after eight random steps, and while the end is scored.
    steps = [0, *sorted(rng.sample(range(1, STEPS), 8)), STEPS]
    kills = 0
    for step in steps:
        reached = killed / "checkpoint" if step == STEPS else killed / "steps"
        process = sft(killed)
        while process.poll() is None and step:
            if step == STEPS and reached.exists():
                break
            if step < STEPS and last_saved(reached) >= step - step % 4:
                break
            time.sleep(0.01)
        # The moment lies anywhere in the steps up to the next saved one.
        time.sleep(rng.uniform(0.0, 5.0))
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills >= 9
    assert sft(killed).wait() == 0

    def end(folder: Path) -> tuple[Any, ...]:
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["train/steps"] == STEPS
        for key in CHANGING:
            metrics.pop(key)
        weights = (folder / "checkpoint" / "model.safetensors").read_bytes()
        return metrics, (folder / "log.jsonl").read_text(), weights

    assert end(killed) == end(tmp_path / "unbroken")
