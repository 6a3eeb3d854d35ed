"""The vision tower learns from labels of its tokens, and goes on where it stopped."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from joyvl_train.dense import Item, taught_steps, teach_tower

from .conftest import Speaker, build

TONES = ((10, 10, 10), (250, 20, 20), (20, 20, 250))
BATCH, STEPS = 8, 60


def tiles(number: int) -> Item:
    """Four tiles, each black, red or blue; the labels: which of them, and whether it is blue."""
    rng = random.Random(number)
    kinds = [rng.randrange(3) for _ in range(4)]
    frame = Image.new("RGB", (64, 64))
    for i, kind in enumerate(kinds):
        frame.paste(Image.new("RGB", (32, 32), TONES[kind]), (32 * (i % 2), 32 * (i // 2)))
    return frame, torch.tensor([kinds, [int(kind == 2) for kind in kinds]])


def teach(
    speaker: Speaker, folder: Path, item: Callable[[int], Item] = tiles
) -> list[tuple[int, dict[str, float]]]:
    logged: list[tuple[int, dict[str, float]]] = []
    teach_tower(
        speaker.model,
        speaker.processor,
        item,
        [3, 2],
        folder,
        shares=[1.0, 0.5],
        steps=STEPS,
        batch=BATCH,
        learning_rate=3e-3,
        seed=0,
        save_every=20,
        log=lambda step, values: logged.append((step, values)),
    )
    return logged


def weights(speaker: Speaker) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in speaker.model.state_dict().items()}


def test_tokens_are_learnt_and_the_text_model_is_left_alone(tmp_path: Path) -> None:
    speaker = build("qwen3_vl")
    before = weights(speaker)
    logged = teach(speaker, tmp_path)
    assert [step for step, _ in logged] == [50, STEPS]
    assert logged[-1][1]["dense/accuracy"] > 0.9
    assert logged[-1][1]["dense/accuracy_rest"] > 0.9
    assert taught_steps(tmp_path) == STEPS
    for name, value in weights(speaker).items():
        assert torch.equal(value, before[name]) is ("visual" not in name), name


def test_no_steps_teach_nothing(tmp_path: Path) -> None:
    speaker = build("qwen3_vl")
    teach_tower(
        speaker.model,
        speaker.processor,
        tiles,
        [3, 2],
        tmp_path,
        steps=0,
        batch=BATCH,
        learning_rate=3e-3,
        seed=0,
    )
    assert taught_steps(tmp_path) == 0


def test_a_broken_run_ends_with_the_tensors_of_an_unbroken_one(tmp_path: Path) -> None:
    whole = build("qwen3_vl")
    teach(whole, tmp_path / "whole")

    def breaking(number: int) -> Item:
        if number == 33 * BATCH:
            raise KeyboardInterrupt
        return tiles(number)

    with pytest.raises(KeyboardInterrupt):
        teach(build("qwen3_vl"), tmp_path / "broken", breaking)
    assert taught_steps(tmp_path / "broken") == 20
    again = build("qwen3_vl")
    teach(again, tmp_path / "broken")
    wanted = weights(whole)
    for name, value in weights(again).items():
        assert torch.equal(value, wanted[name]), name
