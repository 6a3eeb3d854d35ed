"""The code of a stream's frames: what is still, moves, is cut, or is nothing but noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from joyvl_train.codec import (
    CodecSettings,
    Coded,
    Encoder,
    coherent,
    compensated,
    roughness,
    search,
)

SMALL = CodecSettings(block=16, search=32)


def texture(seed: int, width: int = 192, height: int = 128) -> np.ndarray:
    """A picture in which each place looks like no other, smooth enough to be found again."""
    rng = np.random.default_rng(seed)
    cells = Image.fromarray(rng.integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8))
    return np.asarray(cells.resize((width, height), Image.Resampling.BICUBIC))


def coded(frames: Iterable[np.ndarray], given: CodecSettings = SMALL) -> list[Coded]:
    encoder = Encoder(given)
    return [encoder.push(Image.fromarray(frame)) for frame in frames]


def same(one: Coded, other: Coded) -> bool:
    pairs = [(one.motion, other.motion), (one.residual, other.residual), (one.costs, other.costs)]
    arrays = all(
        (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))
        for a, b in pairs
    )
    return arrays and (one.why, one.cost, one.gathered) == (other.why, other.cost, other.gathered)


def test_a_still_video_is_one_reference_and_nothing_else() -> None:
    found = coded([texture(1)] * 29)
    assert [each.why for each in found] == ["first"] + [""] * 28
    for each in found[1:]:
        assert each.cost == each.gathered == 0
        assert not each.motion.any() and not each.residual.any()
    assert coded([texture(1)] * 61)[30].why == coded([texture(1)] * 61)[60].why == "length"


def test_a_cut_is_a_reference_and_so_is_another_size() -> None:
    frames = [texture(1)] * 4 + [texture(2)] * 4 + [texture(2, 160)] * 2
    found = [each.why for each in coded(frames)]
    assert found == ["first", "", "", "", "cut", "", "", "", "size", ""]


@pytest.mark.parametrize(("down", "right"), [(0, 6), (8, -14), (-12, 20), (2, 0)])
def test_what_moves_as_a_whole_is_found_again(down: int, right: int) -> None:
    before, now = texture(3), np.roll(texture(3), (down, right), (0, 1))
    grey = [Image.fromarray(each).convert("L") for each in (before, now)]
    motion = search(*grey, 16, 32)
    inner = motion[2:-2, 2:-2].reshape(-1, 2)
    assert (np.abs(inner + (down, right)) <= 2).all(axis=1).mean() > 0.8
    predicted = compensated(np.asarray(grey[0], np.int16), motion, 16)
    apart = np.abs(np.asarray(grey[1], np.int16) - predicted)[32:-32, 32:-32]
    still = np.abs(np.asarray(grey[1], np.int16) - np.asarray(grey[0]))[32:-32, 32:-32]
    assert apart.mean() < 0.6 * still.mean()


FLAT = np.full((128, 192, 3), 120, np.uint8)


@pytest.mark.parametrize(
    ("plain", "strength", "most"),
    [(texture(4), 2, 3), (texture(4), 8, 3), (texture(4), 20, 4), (FLAT, 2, 3), (FLAT, 8, 3),
     (FLAT, 20, 5)],
)  # fmt: skip
def test_noise_does_not_take_the_budget(plain: np.ndarray, strength: int, most: int) -> None:
    rng = np.random.default_rng(0)
    noisy = [plain + rng.normal(0, strength, plain.shape) for _ in range(60)]
    found = coded([np.clip(each, 0, 255).astype(np.uint8) for each in noisy])
    assert sum(each.reference for each in found) <= most


BLACK = np.zeros((128, 192, 3), np.uint8)


@pytest.mark.parametrize(
    ("shown", "cuts"),
    [
        ([BLACK, texture(1), texture(1)], [1]),
        ([texture(1)] * 3 + [BLACK] + [texture(2)] * 3, [3, 4]),
        ([texture(1), texture(2), texture(3)], [1, 2]),
        ([np.full_like(BLACK, level) for level in (255, 76, 29, 150)], [1, 2, 3]),
    ],
)
def test_a_cut_is_a_reference_wherever_it_comes(shown: list[np.ndarray], cuts: list[int]) -> None:
    found = coded(shown)
    assert [place for place, each in enumerate(found) if each.why == "cut"] == cuts


def page_of_text(seed: int) -> np.ndarray:
    """Dark words, by rectangles, on white."""
    rng = np.random.default_rng(seed)
    shown = np.full((192, 192, 3), 255, np.uint8)
    for line in range(12, 180, 14):
        at = 10
        while at < 170:
            long = int(rng.integers(8, 30))
            shown[line : line + 8, at : at + long] = 20
            at += long + int(rng.integers(4, 9))
    return shown


def test_another_page_of_text_is_a_cut() -> None:
    found = coded([page_of_text(1)] * 3 + [page_of_text(2)] * 2, CodecSettings())
    assert [each.why for each in found] == ["first", "", "", "cut", ""]


def faded(one: np.ndarray, other: np.ndarray, frames: int) -> list[np.ndarray]:
    """From one picture to the other, evenly."""
    return [
        (one + (other.astype(float) - one) * n / (frames - 1)).astype(np.uint8)
        for n in range(frames)
    ]


@pytest.mark.parametrize("other", [texture(2), BLACK], ids=["crossfade", "to black"])
def test_what_changes_steadily_comes_to_a_reference(other: np.ndarray) -> None:
    found = coded(faded(texture(1), other, 26))
    assert [each.why for each in found].count("drift") >= 1


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_video_keeps_the_bounds_and_is_coded_alike_from_a_copy(data: st.DataObject) -> None:
    shown = data.draw(st.lists(st.tuples(st.integers(0, 4), st.integers(-9, 9)), max_size=24))
    frames = [np.roll(texture(seed, 64, 48), by, 1) for seed, by in shown]
    given = CodecSettings(block=16, search=16, gap=3, longest=7)
    whole, encoder, found = coded(frames, given), Encoder(given), []
    for place, frame in enumerate(frames):
        if place == len(frames) // 2:
            encoder, left = encoder.copy(), encoder
            # What becomes of the first is nothing to the other.
            left.push(Image.fromarray(texture(9, 64, 48)))
        found.append(encoder.push(Image.fromarray(frame)))
    assert all(same(one, other) for one, other in zip(whole, found, strict=True))
    since = 0
    for each in whole:
        since = 0 if each.reference else since + 1
        assert since < given.longest
        if each.why == "drift":
            assert each.gathered > given.drift
    references = [place for place, each in enumerate(whole) if each.reference]
    for one, other in zip(references, references[1:], strict=False):
        assert other - one >= given.gap or whole[other].why == "cut"


def test_costs_come_of_whole_numbers() -> None:
    """However many blocks there are: no sum is rounded."""
    rng = np.random.default_rng(1)
    frames = [rng.integers(0, 255, (509, 701, 3), dtype=np.uint8) for _ in range(4)]
    encoder = Encoder(replace(SMALL, cut=1e9, drift=1e9))
    for each in [encoder.push(Image.fromarray(frame)) for frame in frames][1:]:
        total = 0
        for top in range(0, each.residual.shape[0], 16):
            for left in range(0, each.residual.shape[1], 16):
                block = each.residual[top : top + 16, left : left + 16].astype(int)
                boxes = sum(
                    abs(int(block[y : y + 8, x : x + 8].sum())) for y in (0, 8) for x in (0, 8)
                )
                total += max(0, 8 * boxes - int(np.abs(block).sum()))
        assert each.cost == total / (7 * each.residual.size) + 0.4 * roughness(each.motion)
        assert np.isclose(each.costs.mean(), total / (7 * each.residual.size))


def test_what_a_residual_has_in_common_costs_all_of_it_and_noise_nothing() -> None:
    even = np.full((32, 32), -30, np.int16)
    assert coherent(even, 16)[1] == 30
    stripes = np.where(np.arange(32) % 2, 40, -40).astype(np.int16)[None].repeat(32, axis=0)
    assert coherent(stripes, 16)[1] == 0
    noise = np.random.default_rng(0).normal(0, 20, (320, 320)).round().astype(np.int16)
    assert coherent(noise, 16)[1] < 0.5
    even[:16, :16] = 0
    by_block, mean = coherent(even, 16)
    assert by_block.tolist() == [[0, 30], [30, 30]] and mean == 22.5


def test_the_future_changes_nothing() -> None:
    frames = [np.roll(texture(6), 3 * n, 1) for n in range(8)]
    assert all(
        same(one, other)
        for one, other in zip(coded(frames[:5]), coded([*frames[:5], texture(7)]), strict=False)
    )


@pytest.mark.parametrize("size", [(1, 1), (15, 33), (97, 31)])
def test_odd_sizes_are_coded_too(size: tuple[int, int]) -> None:
    frame = np.asarray(Image.fromarray(texture(8)).resize(size))
    assert [each.why for each in coded([frame] * 3)] == ["first", "", ""]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"block": 12}, "a block has 8, 16, 32 or 64 pixels"),
        ({"search": 0}, "search is 0"),
        ({"block": 8, "search": 512}, "search=512 is too wide for block=8; at most 62"),
        ({"gap": 9, "longest": 8}, "gap=9 is above longest=8"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CodecSettings(**given)
