"""What carries people. Everything faces right."""

from __future__ import annotations

from collections.abc import Callable

from data_pipeline.world.drawing.pen import GLASS, GREY, INK, WHITE, Colour, Pen, shade

LIGHT: Colour = (255, 226, 110)


def _wheel(pen: Pen, x: float, y: float, radius: float) -> None:
    pen.disc(x, y, radius, INK)
    pen.disc(x, y, radius * 0.5, GREY)


def car(pen: Pen, colour: Colour, state: str) -> None:
    pen.area((20, 52), (34, 30), (68, 30), (82, 52), fill=colour)
    pen.block(2, 48, 98, 72, colour, 8)
    pen.area((28, 50), (38, 35), (50, 35), (50, 50), fill=GLASS)
    pen.area((54, 50), (54, 35), (65, 35), (75, 50), fill=GLASS)
    pen.block(90, 53, 98, 60, LIGHT, 3)
    _wheel(pen, 25, 72, 13)
    _wheel(pen, 75, 72, 13)


def truck(pen: Pen, colour: Colour, state: str) -> None:
    pen.block(2, 18, 64, 70, colour, 2)
    for x in (17, 33, 49):
        pen.line((x, 24), (x, 64), fill=shade(colour, -0.25), width=2)
    pen.area((68, 70), (68, 34), (86, 34), (98, 54), (98, 70), fill=WHITE)
    pen.area((74, 52), (74, 40), (84, 40), (91, 52), fill=GLASS)
    pen.block(2, 68, 98, 76, INK)
    for x in (18, 38, 84):
        _wheel(pen, x, 78, 11)


def bus(pen: Pen, colour: Colour, state: str) -> None:
    pen.block(2, 16, 98, 78, colour, 7)
    for x in (8, 25, 42, 59):
        pen.block(x, 25, x + 13, 46, GLASS, 2)
    pen.block(78, 25, 96, 50, GLASS, 2)
    pen.block(2, 56, 98, 61, WHITE)
    _wheel(pen, 24, 80, 11)
    _wheel(pen, 76, 80, 11)


def bicycle(pen: Pen, colour: Colour, state: str) -> None:
    for x in (23, 77):
        pen.arc(x, 66, 22, 0, 360, INK, 6)
        pen.disc(x, 66, 4, INK)
    pen.line((23, 66), (40, 34), (68, 34), (50, 66), (23, 66), fill=colour, width=9)
    pen.line((40, 34), (50, 66), fill=colour, width=9)
    pen.line((77, 66), (66, 22), (80, 18), fill=colour, width=9)
    pen.line((32, 26), (48, 26), fill=INK, width=6)


def boat(pen: Pen, colour: Colour, state: str) -> None:
    pen.line((50, 4), (50, 70), fill=(120, 80, 44), width=4)
    pen.area((54, 6), (92, 58), (54, 58), fill=WHITE)
    pen.area((46, 16), (46, 58), (16, 58), fill=shade(WHITE, -0.12))
    pen.area((2, 66), (98, 66), (80, 94), (20, 94), fill=colour)
    pen.block(9, 73, 91, 78, shade(colour, 0.5))


def plane(pen: Pen, colour: Colour, state: str) -> None:
    """From the side, climbing a little."""
    pen.area((4, 20), (18, 20), (32, 48), (12, 48), fill=colour)
    pen.area((44, 44), (30, 16), (42, 16), (66, 44), fill=shade(WHITE, -0.2))
    pen.block(6, 40, 98, 60, colour, 10)
    pen.block(6, 54, 92, 58, WHITE, 2)
    pen.area((84, 42), (92, 42), (97, 49), (84, 49), fill=GLASS)
    for x in (34, 46, 58, 70):
        pen.disc(x, 47, 2.6, GLASS)
    pen.area((42, 56), (70, 56), (36, 92), (24, 92), fill=shade(colour, -0.25))


def train(pen: Pen, colour: Colour, state: str) -> None:
    """A steam engine."""
    pen.block(4, 14, 40, 22, INK, 2)
    pen.block(8, 20, 38, 70, colour, 2)
    pen.block(14, 28, 31, 46, GLASS, 2)
    pen.block(36, 38, 92, 70, colour, 8)
    pen.area((70, 40), (66, 12), (88, 12), (84, 40), fill=INK)
    pen.disc(52, 38, 8, (240, 200, 60))
    pen.block(2, 66, 94, 76, INK)
    pen.area((90, 70), (99, 92), (84, 92), fill=(190, 40, 40))
    _wheel(pen, 22, 78, 15)
    _wheel(pen, 50, 82, 10)
    _wheel(pen, 74, 82, 10)


def rocket(pen: Pen, colour: Colour, state: str) -> None:
    pen.area((36, 78), (64, 78), (50, 99), fill=(255, 160, 30))
    pen.area((34, 48), (12, 86), (36, 76), fill=shade(colour, -0.3))
    pen.area((66, 48), (88, 86), (64, 76), fill=shade(colour, -0.3))
    pen.area((32, 78), (30, 40), (50, 2), (70, 40), (68, 78), fill=colour)
    pen.area((38, 26), (50, 2), (62, 26), fill=WHITE)
    pen.disc(50, 46, 10, (60, 120, 190))
    pen.disc(50, 46, 6, GLASS)


PAINTERS: dict[str, Callable[[Pen, Colour, str], None]] = {
    "car": car,
    "truck": truck,
    "bus": bus,
    "bicycle": bicycle,
    "boat": boat,
    "plane": plane,
    "train": train,
    "rocket": rocket,
}
