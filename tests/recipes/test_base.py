"""The base that is kept in the repository: it sees and names, and knows nothing of when."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from data_pipeline.world.corpus import held_out
from data_pipeline.world.streams import FAMILIES
from joyvl_train.checkpoint import load
from joyvl_train.cli import compose
from joyvl_train.config import Config
from joyvl_train.dense import UNTOLD
from joyvl_train.engine import Engine
from joyvl_train.heldout import free_run, metrics
from joyvl_train.rendering import Renderer
from recipes.base import accuracy, labelled

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "models" / "tiny"


@pytest.fixture(scope="module")
def kept():
    torch.set_num_threads(1)
    model, processor = load(KEPT)
    return model, Renderer(processor)


def test_it_is_small():
    files = [path for path in KEPT.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16 * 2**20


def test_it_answers_when_asked(kept):
    model, renderer = kept
    found = accuracy(model, renderer, Config(), "test", 600)
    assert found["all"][0] >= 0.7
    # What is named in a question is found in the frame.
    for kind, least in {"name": 0.9, "is_there": 0.85, "checklist": 0.75, "where": 0.75}.items():
        assert found[kind][0] >= least, kind


def test_it_knows_nothing_of_when(kept):
    model, renderer = kept
    cases = held_out("test", 5, count=9, families=FAMILIES, pictures="drawn", side=96)
    model.eval()
    traces = free_run(Engine(model, renderer, max_new_tokens=24), cases, progress=False)
    found = metrics(traces, samples=10)
    # It answers every turn as it would a question: silence was never taught.
    assert found["eval/silence_accuracy"] <= 0.05


def test_with_a_codec_the_tower_learns_what_changes_show():
    """The picture of a change shows what came, where its labels say, and nothing of what stayed."""
    config = compose(ROOT, ["recipe=base", "data.codec=predictive", "data.size=192"])
    item, came, grey = labelled(config), 0, 0
    assert item(0)[0].size == (192, 192) and item(0)[1].shape == (21, 36)
    for number in range(192, 288):
        picture, labels = item(number)
        assert picture.size == (64, 64) and labels.shape == (21, 4)
        assert (labels[3:] == UNTOLD).all()
        cells = np.abs(np.asarray(picture, int) - 128).max(axis=2).reshape(2, 32, 2, 32)
        shown = cells.max(axis=(1, 3)).reshape(-1) > 40
        assert shown[labels[0] > 0].all()
        came += int((labels[0] > 0).sum())
        grey += not shown.any()
    assert came > 60 and 0 < grey < 48


@pytest.mark.slow
def test_the_command_of_its_card_begins_as_it_did(tmp_path):
    """The first 50 steps of the kept log, again; processors differ in the last digits."""
    wanted = json.loads((KEPT / "log.jsonl").read_text().splitlines()[0])
    log, told = tmp_path / "run" / "log.jsonl", tmp_path / "told.txt"
    words = ["recipe=base", f"run.dir={tmp_path / 'run'}", f"run.root={tmp_path}"]
    with told.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "joyvl_train", *words],
            cwd=KEPT.parents[1],
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(3000):
            if process.poll() is not None or (log.exists() and log.read_text().endswith("\n")):
                break
            time.sleep(0.2)
    finally:
        process.kill()
        process.wait()
    assert log.exists(), told.read_text()
    found = json.loads(log.read_text().splitlines()[0])
    assert found["step"] == wanted["step"]
    assert found["dense/loss"] == pytest.approx(wanted["dense/loss"], rel=0.03)
