"""Food, toys and signs."""

from __future__ import annotations

from collections.abc import Callable

from data_pipeline.world.drawing.pen import INK, WHITE, WOOD, Colour, Pen, shade, spikes

LEAF: Colour = (60, 160, 60)


def ball(pen: Pen, colour: Colour, state: str) -> None:
    pen.disc(50, 50, 47, colour)
    light = shade(colour, 0.75) if sum(colour) > 120 else (150, 150, 156)
    if sum(colour) > 700:
        light = (120, 150, 200)
    pen.arc(50, 50, 47, 0, 360, shade(colour, -0.2), 5)
    pen.arc(-6, 50, 52, -52, 52, light, 8)
    pen.arc(106, 50, 52, 128, 232, light, 8)
    pen.block(46, 4, 54, 96, light)


def balloon(pen: Pen, colour: Colour, state: str) -> None:
    pen.line((50, 70), (44, 82), (56, 90), (50, 99), fill=INK, width=2.2)
    pen.oval(20, 1, 80, 68, colour)
    pen.area((43, 76), (57, 76), (50, 62), fill=colour)
    pen.oval(31, 12, 45, 32, shade(colour, 0.6))


def star(pen: Pen, colour: Colour, state: str) -> None:
    pen.area(*spikes(50, 54, 50, 20, 5), fill=colour)


def heart(pen: Pen, colour: Colour, state: str) -> None:
    pen.disc(28, 32, 25, colour)
    pen.disc(72, 32, 25, colour)
    pen.area((6, 42), (94, 42), (84, 58), (50, 96), (16, 58), fill=colour)
    pen.block(28, 24, 72, 48, colour)
    pen.oval(14, 16, 30, 32, shade(colour, 0.6))


def kite(pen: Pen, colour: Colour, state: str) -> None:
    pen.line((50, 66), (40, 78), (58, 86), (44, 98), fill=INK, width=2.4)
    pen.area((50, 2), (84, 32), (50, 70), (16, 32), fill=colour)
    pen.area((50, 2), (84, 32), (50, 32), fill=shade(colour, 0.5))
    pen.area((16, 32), (50, 32), (50, 70), fill=shade(colour, 0.5))


def drum(pen: Pen, colour: Colour, state: str) -> None:
    pen.line((14, 4), (46, 28), fill=WOOD, width=5)
    pen.line((86, 4), (54, 28), fill=WOOD, width=5)
    pen.block(10, 36, 90, 86, colour, 8)
    pen.oval(10, 72, 90, 96, colour)
    for x in (14, 38, 62):
        pen.line((x, 48), (x + 12, 84), (x + 24, 48), fill=WHITE, width=2.6)
    pen.oval(10, 22, 90, 50, (250, 240, 215))


def apple(pen: Pen, colour: Colour, state: str) -> None:
    pen.line((50, 30), (56, 6), fill=WOOD, width=6)
    pen.oval(56, 6, 84, 22, LEAF)
    pen.oval(8, 24, 62, 94, colour)
    pen.oval(38, 24, 92, 94, colour)
    pen.oval(20, 36, 32, 56, shade(colour, 0.6))


def banana(pen: Pen, colour: Colour, state: str) -> None:
    pen.area(
        (10, 28), (18, 24), (28, 46), (46, 60), (70, 62), (90, 50), (98, 56), (84, 78), (58, 88),
        (32, 80), (14, 60), fill=(252, 216, 40),
    )  # fmt: skip
    pen.line((18, 52), (36, 70), (60, 76), (84, 68), fill=(222, 170, 20), width=3)
    pen.block(8, 20, 18, 32, (110, 80, 30), 2)
    pen.disc(95, 55, 4, (110, 80, 30))


def carrot(pen: Pen, colour: Colour, state: str) -> None:
    for x, y in ((60, 4), (78, 2), (96, 14), (98, 34)):
        pen.line((74, 28), (x, y), fill=LEAF, width=7)
    pen.area((58, 26), (78, 46), (8, 98), (4, 94), fill=(246, 130, 30))
    pen.disc(68, 36, 14, (246, 130, 30))
    for x, y in ((56, 44), (42, 58), (30, 70)):
        pen.line((x, y), (x + 7, y + 7), fill=(200, 90, 10), width=2.6)


def cake(pen: Pen, colour: Colour, state: str) -> None:
    for x in (30, 50, 70):
        pen.block(x - 3, 20, x + 3, 44, (90, 150, 230))
        pen.oval(x - 5, 4, x + 5, 22, (255, 190, 40))
    pen.block(8, 44, 92, 92, (164, 98, 60), 4)
    pen.block(8, 62, 92, 70, (250, 230, 200))
    pen.block(8, 40, 92, 54, (255, 170, 200), 5)
    for x in (18, 38, 58, 78):
        pen.disc(x, 55, 7, (255, 170, 200))
    pen.block(2, 90, 98, 97, WHITE, 3)


def ice_cream(pen: Pen, colour: Colour, state: str) -> None:
    pen.area((26, 46), (74, 46), (50, 99), fill=(222, 164, 90))
    pen.line((36, 52), (58, 82), fill=(176, 116, 54), width=2.4)
    pen.line((64, 52), (42, 82), fill=(176, 116, 54), width=2.4)
    pen.disc(36, 38, 17, (255, 240, 200))
    pen.disc(64, 38, 17, (120, 70, 44))
    pen.disc(50, 20, 18, (255, 150, 180))


def warning_sign(pen: Pen, colour: Colour, state: str) -> None:
    pen.area((50, 2), (98, 92), (2, 92), fill=(210, 30, 30))
    pen.area((50, 20), (83, 83), (17, 83), fill=WHITE)
    pen.area((45, 38), (55, 38), (53, 64), (47, 64), fill=INK)
    pen.disc(50, 73, 5, INK)


def cone(pen: Pen, colour: Colour, state: str) -> None:
    pen.area((44, 4), (56, 4), (78, 86), (22, 86), fill=(250, 110, 20))
    pen.area((39, 26), (61, 26), (66, 44), (34, 44), fill=WHITE)
    pen.area((31, 58), (69, 58), (73, 70), (27, 70), fill=WHITE)
    pen.block(6, 84, 94, 97, (250, 110, 20), 3)


PAINTERS: dict[str, Callable[[Pen, Colour, str], None]] = {
    "ball": ball,
    "balloon": balloon,
    "star": star,
    "heart": heart,
    "kite": kite,
    "drum": drum,
    "apple": apple,
    "banana": banana,
    "carrot": carrot,
    "cake": cake,
    "ice cream": ice_cream,
    "warning sign": warning_sign,
    "traffic cone": cone,
}
