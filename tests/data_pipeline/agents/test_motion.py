"""Motion on drawn frames whose every change is known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from data_pipeline.agents.motion import Motion, beginnings
from data_pipeline.assets import cache_folder
from tests.data_pipeline.agents.tools import needs_clip

NOISE = np.random.default_rng(0)


def frame(
    x: float | None = None, light: int = 0, size: tuple[int, int] = (192, 144)
) -> Image.Image:
    """A noisy grey room, with a white box of an eighth of its width at `x` of it."""
    room = Image.new("L", size, 90 + light)
    if x is not None:
        left = x * size[0]
        ImageDraw.Draw(room).rectangle((left, 48, left + size[0] / 8, 96), fill=255)
    noisy = np.asarray(room, np.float32) + NOISE.normal(0, 6, (size[1], size[0]))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert("RGB")


def test_a_still_room_does_not_move() -> None:
    assert list(Motion()([])) == []
    assert max(Motion()(frame() for _ in range(20))) < 0.001


def test_a_box_moves_as_much_as_it_is_large() -> None:
    pictures = [frame() for _ in range(6)] + [frame(0.1 * n) for n in range(6)]
    shares = list(Motion()(pictures))
    area = 1 / 8 * 1 / 3
    assert max(shares[:6]) < 0.001
    assert shares[6] == pytest.approx(area, rel=0.2)
    assert all(area * 0.8 < share < 3 * area for share in shares[7:])
    assert beginnings(shares) == [6]


def test_light_is_no_motion_and_a_cut_is_learnt() -> None:
    shares = list(Motion()([frame(), frame(), frame(light=60), frame(light=60)]))
    assert max(shares) < 0.001
    half = Image.new("RGB", (192, 144), "black")
    half.paste("white", (60, 0, 192, 144))
    shares = list(Motion()([frame(), frame(), half, half, half]))
    assert shares[2] > 0.3
    checks = Image.fromarray(np.indices((144, 192)).sum(0).astype(np.uint8) // 48 % 2 * 255)
    shares = list(Motion()([half, checks, checks, checks]))
    assert shares[1] > 0.3


def test_frames_of_another_size_start_anew() -> None:
    assert list(Motion()([frame(), frame(0.2, size=(96, 144))])) == [0.0, 0.0]


def test_beginnings_count_seconds() -> None:
    shares = [0, 0, 0, 0, 0.2, 0.1, 0.2, 0.2, 0, 0, 0, 0, 0.005, 0.004, 0.3, 0.3]
    assert beginnings(shares) == [4, 14]
    assert beginnings(shares, rate=2) == [2, 7]
    assert beginnings([0.5, 0.5]) == [] and beginnings([]) == []
    with pytest.raises(ValueError, match="rate must be at least 1, got 0"):
        beginnings([], 0)


def test_the_key_tells_settings_apart() -> None:
    assert Motion().key == Motion().key != Motion(least_change=9).key
    assert Motion().key.startswith("motion@")


@needs_clip("tree")
def test_a_hand_before_a_still_tree() -> None:
    files = sorted((cache_folder() / "footage" / "tree").glob("*.jpg"))
    shares = list(Motion()(Image.open(file) for file in files))
    assert beginnings(shares, rate=5) == [23]
