"""Filled shapes on a transparent square, in coordinates of 0 to 100 from the top left."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageChops, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Point = tuple[float, float]

INK: Colour = (38, 34, 40)
WHITE: Colour = (246, 246, 244)
GREY: Colour = (150, 152, 158)
SKIN: Colour = (236, 188, 150)
WOOD: Colour = (150, 98, 52)
GLASS: Colour = (176, 222, 244)


def shade(colour: Colour, by: float) -> Colour:
    """`colour` moved towards white (by > 0) or black (by < 0); 1 and -1 are white and black."""
    goal = 255 if by > 0 else 0
    r, g, b = (round(c + (goal - c) * abs(by)) for c in colour)
    return (r, g, b)


MARGIN = 3.0
"""Percent of the side left free all around, so that the outline has room."""


class Pen:
    """Draws one picture at `side` pixels; every later shape covers the earlier ones."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.image = Image.new("RGBA", (side, side), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.image)

    def _points(self, points: Sequence[Point]) -> list[Point]:
        scale = self.side * (100 - 2 * MARGIN) / 10000
        edge = self.side * MARGIN / 100
        return [(edge + x * scale, edge + y * scale) for x, y in points]

    def area(self, *points: Point, fill: Colour) -> None:
        """A filled polygon."""
        self._draw.polygon(self._points(points), fill=fill)

    def oval(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        self._draw.ellipse(self._points([(left, top), (right, bottom)]), fill=fill)

    def disc(self, x: float, y: float, radius: float, fill: Colour) -> None:
        self.oval(x - radius, y - radius, x + radius, y + radius, fill)

    def block(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        fill: Colour,
        round_by: float = 0,
    ) -> None:
        """A rectangle, its corners rounded by a radius of `round_by`."""
        self._draw.rounded_rectangle(
            self._points([(left, top), (right, bottom)]), round_by * self.side / 100, fill=fill
        )

    def line(self, *points: Point, fill: Colour, width: float) -> None:
        """A stroke with round ends and joints."""
        pixels = max(1, round(width * self.side / 100))
        self._draw.line(self._points(points), fill=fill, width=pixels, joint="curve")
        for x, y in points:
            self.disc(x, y, width / 2, fill)

    def slice(
        self,
        x: float,
        y: float,
        radius: float,
        start: float,
        stop: float,
        fill: Colour,
    ) -> None:
        """A filled slice of a disc; degrees clockwise from three o'clock."""
        box = self._points([(x - radius, y - radius), (x + radius, y + radius)])
        self._draw.pieslice(box, start, stop, fill=fill)

    def arc(
        self,
        x: float,
        y: float,
        radius: float,
        start: float,
        stop: float,
        fill: Colour,
        width: float,
    ) -> None:
        """Part of a circle's line; degrees clockwise from three o'clock."""
        box = self._points([(x - radius, y - radius), (x + radius, y + radius)])
        self._draw.arc(box, start, stop, fill=fill, width=max(1, round(width * self.side / 100)))

    def clear_disc(self, x: float, y: float, radius: float) -> None:
        box = self._points([(x - radius, y - radius), (x + radius, y + radius)])
        self._draw.ellipse(box, fill=(0, 0, 0, 0))

    def outlined(self, fill: Colour = INK) -> Image.Image:
        """The picture with a dark line around it, so that it stands out from any background.

        Blurring the alpha by sigma and keeping what is above 3 % grows it by about 1.9 sigma.
        """
        alpha = self.image.getchannel("A")
        blurred = alpha.filter(ImageFilter.GaussianBlur(self.side * 0.013))
        grown = blurred.point([0] * 8 + [255] * 248)
        line = Image.new("RGBA", self.image.size, fill)
        line.putalpha(ImageChops.lighter(grown, alpha))
        line.alpha_composite(self.image)
        return line


def ring(x: float, y: float, radius: float, count: int, turn: float = 0.0) -> list[Point]:
    """`count` points evenly around a centre, the first straight up, turned clockwise by degrees."""
    angles = [math.radians(turn - 90 + 360 * i / count) for i in range(count)]
    return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]


def spikes(x: float, y: float, outer: float, inner: float, count: int) -> list[Point]:
    """The outline of a star of `count` points."""
    far = ring(x, y, outer, count)
    near = ring(x, y, inner, count, 180 / count)
    return [point for pair in zip(far, near, strict=True) for point in pair]
