"""The small picture of what has changed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from joyvl_train.checkpoint import Processor
from joyvl_train.predicted import predicted
from tests.tiny_training import tiny


def scene(*things: tuple[int, int, str], noise: int = 0) -> Image.Image:
    image = Image.new("RGB", (192, 192), (90, 120, 90))
    for x, y, colour in things:
        ImageDraw.Draw(image).rectangle((x, y, x + 47, y + 47), fill=colour)
    levels = np.asarray(image, np.int16)
    rng = np.random.default_rng(noise)
    return Image.fromarray(
        np.clip(levels + rng.integers(-noise, noise + 1, levels.shape), 0, 255).astype(np.uint8)
    )


def test_what_is_as_it_was_is_grey_and_what_came_is_in_its_place() -> None:
    before, now = scene((96, 96, "blue")), scene((96, 96, "blue"), (0, 48, "red"))
    shown = np.asarray(predicted(now, before, 64))
    assert shown.shape == (64, 64, 3)
    assert (shown[16:32, 0:16] == (255, 0, 0)).all()
    rest = shown.copy()
    rest[16:32, 0:16] = 128
    assert (rest == 128).all()
    # Where it leaves, what is there instead.
    assert (np.asarray(predicted(before, now, 64))[16:32, 0:16] == (90, 120, 90)).all()


def test_noise_is_no_change() -> None:
    assert (np.asarray(predicted(scene(noise=7), scene(noise=8), 64)) == 128).all()


def test_another_size_is_a_reference() -> None:
    with pytest.raises(ValueError, match="is a reference"):
        predicted(scene(), scene().resize((96, 96)), 64)


def test_it_has_the_tokens_that_its_size_says() -> None:
    processor: Processor = tiny()[1]
    grid = processor.images([predicted(scene(), scene(), 64)])["image_grid_thw"]
    whole = processor.images([scene()])["image_grid_thw"]
    assert int(grid.prod()) * 9 == int(whole.prod())
