"""On-screen text: subtitles, signs, slides and app screens, in several languages.

The font is the DejaVu Sans that matplotlib carries: Latin, Cyrillic and Greek with no download.
Chinese, Japanese and Korean need the font that `python -m data_pipeline.assets fonts` fetches.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from data_pipeline.assets import cache_folder
from data_pipeline.world.keeping import kept

LANGUAGES = ("en", "es", "fr", "de", "it", "pt", "nl", "sv", "pl", "cs", "tr", "ru", "uk", "el")
"""What can be written with no download; "-Latn" after any code stands for its romanization."""
CJK = ("zh", "ja", "ko")
PLACES = ("top", "center", "bottom", "full")
STYLES = ("outline", "box", "slide", "screen")
MAX_TEXT = 400


class CaptionError(ValueError):
    """A text that can't be drawn."""


@dataclass(frozen=True, slots=True)
class Caption:
    """Text seen in [start, stop). `size` is the letters' height relative to the frame's.

    Styles "outline" and "box" lie over the picture; "slide" and "screen" (place "full") cover it:
    the first line is the title, the others are points of the slide or buttons of the app. A text
    that is too wide is wrapped, and then made smaller until it fits.
    """

    text: str
    language: str
    start: float
    stop: float
    place: Literal["top", "center", "bottom", "full"] = "bottom"
    style: Literal["outline", "box", "slide", "screen"] = "outline"
    size: float = 0.15


def check(caption: Caption, where: str = "caption") -> None:
    """Raise `CaptionError` where a value is out of bounds."""
    if not caption.text.strip() or len(caption.text) > MAX_TEXT:
        raise CaptionError(f"{where}: {len(caption.text)} characters, wanted 1 to {MAX_TEXT}")
    if caption.place not in PLACES:
        raise CaptionError(f"{where}: place {caption.place!r} is none of {PLACES}")
    if caption.style not in STYLES:
        raise CaptionError(f"{where}: style {caption.style!r} is none of {STYLES}")
    if (caption.place == "full") != (caption.style in ("slide", "screen")):
        raise CaptionError(f"{where}: style {caption.style!r} at place {caption.place!r}")
    if not caption.language.endswith("-Latn") and caption.language not in LANGUAGES + CJK:
        raise CaptionError(f"{where}: language {caption.language!r} is none of {LANGUAGES + CJK}")
    for name, value in (("start", caption.start), ("stop", caption.stop), ("size", caption.size)):
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise CaptionError(f"{where}: {name} {value!r} is no number")
    if caption.stop < caption.start:
        raise CaptionError(f"{where}: {caption.start} to {caption.stop} s")
    if not 0.02 <= caption.size <= 1:
        raise CaptionError(f"{where}: size {caption.size} is outside [0.02, 1]")


def languages() -> tuple[str, ...]:
    """The languages that can be written on this machine."""
    return LANGUAGES + (CJK if _cjk_file().is_file() else ())


def _cjk_file() -> Path:
    return cache_folder() / "fonts" / "cjk.otf"


def _font_file(language: str) -> Path:
    if language in CJK:
        if not _cjk_file().is_file():
            raise CaptionError(
                f"no font for {language!r} in {cache_folder()}: run "
                "`python -m data_pipeline.assets fonts`, or choose another language"
            )
        return _cjk_file()
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise CaptionError("the font for on-screen text is missing: install matplotlib")
    return Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans-Bold.ttf"


@lru_cache(maxsize=128)
def _font(language: str, pixels: int) -> ImageFont.FreeTypeFont:
    # The basic layout is the same in every build of Pillow.
    return ImageFont.truetype(_font_file(language), pixels, layout_engine=ImageFont.Layout.BASIC)


def _check_letters(text: str, language: str) -> None:
    """Raise `CaptionError` for a letter that the font has not, instead of drawing an empty box."""
    font = _font(language, 24)
    missing = bytes(font.getmask("\U0010ffff"))
    for letter in sorted(set(text)):
        if not letter.isspace() and bytes(font.getmask(letter)) == missing:
            raise CaptionError(f"the font for {language!r} has no {letter!r} (in {text[:60]!r})")


def draw(caption: Caption, frame: Image.Image) -> None:
    """Draw the text into the RGB frame."""
    layer = _layer(
        caption.text, caption.language, caption.place, caption.style, caption.size, *frame.size
    )
    frame.paste(layer, (0, 0), layer)


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter as it is drawn, with its box in shares of the frame's width and height."""

    text: str
    left: float
    top: float
    right: float
    bottom: float


def letters(caption: Caption, width: int, height: int) -> list[Letter]:
    """Where each letter of the text stands in a frame of this size; blanks are left out."""
    found = []
    placed = _placed(
        caption.text, caption.language, caption.place, caption.style, caption.size, width, height
    )
    for line in placed:
        left, half = line.x - line.font.getlength(line.text) / 2, line.font.size * 0.6
        for i, letter in enumerate(line.text):
            start, stop = (left + line.font.getlength(line.text[:n]) for n in (i, i + 1))
            if not letter.isspace():
                top, bottom = (line.y - half) / height, (line.y + half) / height
                found.append(Letter(letter, start / width, top, stop / width, bottom))
    return found


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of text with its middle, in pixels."""

    text: str
    font: ImageFont.FreeTypeFont
    x: float
    y: float


def _placed(
    text: str, language: str, place: str, style: str, size: float, width: int, height: int
) -> list[_Line]:
    """The lines of a caption, from the top."""
    pixels = max(7, round(size * height))
    if place == "full":
        title, *points = _paragraphs(text)
        bar, row = _rows(len(points), height)
        found = _stacked(title, language, pixels, width, width * 0.9, bar / 2, bar * 0.95)
        for i in range(len(points)):
            middle, small = bar * 1.12 + row * (i + 0.5), max(7, round(size * height * 0.85))
            found += _stacked(points[i], language, small, width, width * 0.84, middle, row * 0.9)
        return found
    lines, font = _fitted(text, language, pixels, width * 0.94, height * 0.45)
    spacing = round(font.size * 1.2)
    top = {
        "top": round(height * 0.04),
        "center": (height - spacing * len(lines)) // 2,
        "bottom": round(height * 0.96) - spacing * len(lines),
    }[place]
    return [_Line(line, font, width / 2, top + spacing * (i + 0.5)) for i, line in enumerate(lines)]


def _paragraphs(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _rows(points: int, height: int) -> tuple[int, float]:
    """The height of a page's title bar, and of each row below it."""
    bar = round(height * 0.3)
    return bar, (height * 0.94 - bar * 1.12) / max(1, points)


def _stacked(
    text: str, language: str, pixels: int, width: int, widest: float, middle: float, highest: float
) -> list[_Line]:
    lines, font = _fitted(text, language, pixels, widest, highest)
    return [
        _Line(line, font, width / 2, middle + font.size * 1.15 * (i - (len(lines) - 1) / 2))
        for i, line in enumerate(lines)
    ]


@kept(64)
def _layer(
    text: str, language: str, place: str, style: str, size: float, width: int, height: int
) -> Image.Image:
    _check_letters(text, language)
    layer = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    lines = _placed(text, language, place, style, size, width, height)
    pen = ImageDraw.Draw(layer)
    if place == "full":
        _page(pen, lines, len(_paragraphs(text)) - 1, style, width, height)
        return layer
    size_of_font = lines[0].font.size
    spacing = round(size_of_font * 1.2)
    if style == "box":
        widest = max(line.font.getlength(line.text) for line in lines)
        left = (width - widest) / 2 - size_of_font * 0.3
        top = lines[0].y - spacing / 2
        pen.rectangle(
            (left, top - 1, width - left, top + spacing * len(lines) + 1), fill=(16, 18, 26, 235)
        )
    for line in lines:
        pen.text(
            (line.x, line.y),
            line.text,
            font=line.font,
            anchor="mm",
            fill=(255, 255, 255),
            stroke_width=max(1, round(size_of_font / 11)) if style == "outline" else 0,
            stroke_fill=(0, 0, 0),
        )
    return layer


def _page(
    pen: ImageDraw.ImageDraw, lines: list[_Line], points: int, style: str, width: int, height: int
) -> None:
    """A slide (title, line, points) or the screen of an app (bar, title, buttons)."""
    screen = style == "screen"
    bar, row = _rows(points, height)
    pen.rectangle((0, 0, width, height), fill=(232, 236, 242) if screen else (252, 250, 244))
    pen.rectangle((0, 0, width, bar), fill=(44, 92, 180) if screen else (252, 250, 244))
    if not screen:
        pen.rectangle(
            (width * 0.06, bar, width * 0.94, bar + max(1, height // 50)), fill=(200, 60, 40)
        )
    for i in range(points if screen else 0):
        top = bar * 1.12 + row * i
        pen.rounded_rectangle(
            (width * 0.05, top + row * 0.06, width * 0.95, top + row * 0.94),
            height * 0.03,
            fill=(255, 255, 255),
            outline=(120, 130, 150),
        )
    for line in lines:
        title = (255, 255, 255) if screen else (30, 34, 60)
        tone = title if line.y < bar else (20, 22, 34)
        pen.text((line.x, line.y), line.text, font=line.font, anchor="mm", fill=tone)


def _fitted(
    text: str, language: str, pixels: int, width: float, height: float
) -> tuple[list[str], ImageFont.FreeTypeFont]:
    """The text in lines that fit `width` x `height`, in the largest font up to `pixels`."""
    while True:
        font = _font(language, pixels)
        lines = _wrapped(text, font, width, "" if language in CJK else " ")
        fits = all(font.getlength(line) <= width for line in lines)
        if pixels <= 6 or (fits and len(lines) * pixels * 1.2 <= height):
            return lines, font
        pixels -= 1


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float, between: str) -> list[str]:
    """Lines no wider than `width` where words allow; between "" breaks after any letter."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split() if between else paragraph.strip():
            longer = f"{line}{between}{word}" if line else word
            if line and font.getlength(longer) > width:
                lines.append(line)
                line = word
            else:
                line = longer
        if line:
            lines.append(line)
    return lines
