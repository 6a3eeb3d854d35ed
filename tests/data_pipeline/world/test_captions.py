from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.world import captions
from data_pipeline.world.captions import Caption, CaptionError

SAMPLES = {
    "en": "Exit", "es": "Peligro ñ", "fr": "Forêt", "de": "Größe", "it": "È così", "pt": "Não",
    "nl": "Één", "sv": "Smörgås", "pl": "Żółć", "cs": "Kůň", "tr": "Çıkış", "ru": "Выход",
    "uk": "Їжак ґ", "el": "Έξοδος",
}  # fmt: skip


def drawn(caption: Caption, width: int = 96, height: int = 96) -> np.ndarray:
    frame = Image.new("RGB", (width, height), (90, 120, 150))
    captions.draw(caption, frame)
    return np.asarray(frame, dtype=int)


def changed(frame: np.ndarray) -> np.ndarray:
    return np.abs(frame - [90, 120, 150]).sum(axis=2) > 60


@pytest.mark.parametrize("language", captions.LANGUAGES)
@pytest.mark.parametrize("style", ["outline", "box"])
def test_every_language_can_be_seen(language: str, style: str) -> None:
    caption = Caption(SAMPLES[language], language, 0, 1, "center", style)  # type: ignore[arg-type]
    assert changed(drawn(caption)).mean() > 0.02


def test_every_letter_of_a_sample_looks_different() -> None:
    for language, text in SAMPLES.items():
        letters = sorted(set(text) - {" "})
        looks = {drawn(Caption(letter, language, 0, 1, size=0.4)).tobytes() for letter in letters}
        assert len(looks) == len(letters), language


def test_a_letter_the_font_has_not_is_refused() -> None:
    with pytest.raises(CaptionError, match="出"):
        drawn(Caption("出口", "en", 0, 1))


def test_chinese_without_its_font(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JOYVL_CACHE", str(tmp_path))
    assert captions.languages() == captions.LANGUAGES
    captions._font.cache_clear()
    with pytest.raises(CaptionError, match=r"data_pipeline\.assets fonts"):
        drawn(Caption("出口です", "zh", 0, 1))


def test_a_romanization_needs_no_other_font() -> None:
    assert changed(drawn(Caption("deguchi", "ja-Latn", 0, 1))).any()


@pytest.mark.parametrize(("place", "rows"), [("top", (0, 40)), ("bottom", (56, 96))])
def test_places(place: str, rows: tuple[int, int]) -> None:
    seen = changed(drawn(Caption("Exit", "en", 0, 1, place)))  # type: ignore[arg-type]
    lines = np.flatnonzero(seen.any(axis=1))
    assert rows[0] <= lines.min() and lines.max() < rows[1]


@pytest.mark.parametrize("side", [64, 96, 320])
def test_eight_letters_stand_in_one_line(side: int) -> None:
    seen = changed(drawn(Caption("ENTRANCE", "en", 0, 1, "top"), side, side))
    lines = np.flatnonzero(seen.any(axis=1))
    columns = np.flatnonzero(seen.any(axis=0))
    assert side * 0.09 <= lines.max() - lines.min() + 1 <= side * 0.22
    assert side * 0.5 <= columns.max() - columns.min() < side


def test_long_texts_are_wrapped_into_the_frame() -> None:
    text = "the quick brown fox jumps over the lazy dog and goes on for a while " * 2
    seen = changed(drawn(Caption(text.strip(), "en", 0, 1), 96, 96))
    assert not seen[:40].any() and not seen[:, 0].any() and not seen[:, -1].any()


@pytest.mark.parametrize("style", ["slide", "screen"])
def test_pages_cover_the_frame_and_differ_by_text(style: str) -> None:
    looks = []
    for text in ("Sign in\nEmail\nContinue", "Basket\nPay now\nGo back"):
        caption = Caption(text, "en", 0, 1, "full", style)  # type: ignore[arg-type]
        black = Image.new("RGB", (96, 96))
        captions.draw(caption, black)
        looks.append(drawn(caption))
        assert np.array_equal(looks[-1], np.asarray(black)), "something shines through"
    assert (np.abs(looks[0] - looks[1]).sum(axis=2) > 60).mean() > 0.03


@pytest.mark.parametrize(
    "caption",
    [
        Caption("", "en", 0, 1),
        Caption("x" * 401, "en", 0, 1),
        Caption("x", "en", 2, 1),
        Caption("x", "en", float("nan"), 1),
        Caption("x", "en", 0, 1, size=3),
        Caption("x", "en", 0, 1, "left"),  # type: ignore[arg-type]
        Caption("x", "en", 0, 1, "top", "slide"),
        Caption("x", "en", 0, 1, "full", "box"),
        Caption("x", "en", 0, 1, "top", "neon"),  # type: ignore[arg-type]
    ],
)
def test_what_is_out_of_bounds_is_refused(caption: Caption) -> None:
    with pytest.raises(CaptionError):
        captions.check(caption)
