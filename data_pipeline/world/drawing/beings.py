"""People, animals, plants. Everything faces right."""

from __future__ import annotations

from collections.abc import Callable

from data_pipeline.world.drawing.pen import GREY, INK, SKIN, WHITE, WOOD, Colour, Pen, ring, shade


def person(pen: Pen, colour: Colour, state: str) -> None:
    trousers = (48, 62, 110)
    pen.block(38, 62, 48, 95, trousers, 3)
    pen.block(52, 62, 62, 95, trousers, 3)
    pen.block(36, 91, 49, 98, INK, 3)
    pen.block(52, 91, 65, 98, INK, 3)
    pen.line((36, 42), (25, 63), fill=colour, width=9)
    pen.disc(24, 65, 5, SKIN)
    if state == "waving":
        pen.line((64, 44), (84, 18), fill=colour, width=10)
        pen.disc(86, 11, 8, SKIN)
    else:
        pen.line((64, 42), (75, 63), fill=colour, width=9)
        pen.disc(76, 65, 5, SKIN)
    pen.block(33, 36, 67, 70, colour, 8)
    pen.disc(50, 20, 16, (88, 56, 34))
    pen.oval(37, 11, 63, 37, SKIN)
    pen.disc(45, 22, 2, INK)
    pen.disc(56, 22, 2, INK)
    pen.arc(50, 26, 5, 20, 160, (170, 70, 60), 2)


def dog(pen: Pen, colour: Colour, state: str) -> None:
    dark = shade(colour, -0.45)
    pen.line((16, 52), (4, 30), fill=colour, width=8)
    for x in (18, 28, 58, 68):
        pen.block(x, 60, x + 9, 94, colour, 3)
    pen.block(12, 44, 76, 72, colour, 12)
    pen.area((60, 60), (60, 30), (78, 24), (82, 60), fill=colour)
    pen.block(60, 18, 88, 44, colour, 9)
    pen.block(76, 30, 98, 45, shade(colour, 0.25), 6)
    pen.disc(96, 33, 4, INK)
    pen.disc(80, 26, 3, INK)
    pen.oval(56, 16, 70, 48, dark)
    pen.block(58, 45, 80, 51, (210, 40, 40))


def cat(pen: Pen, colour: Colour, state: str) -> None:
    """Sitting, seen from the front, so that it is no small dog."""
    pen.line((72, 88), (90, 82), (93, 62), (86, 50), fill=colour, width=8)
    pen.oval(26, 46, 76, 98, colour)
    pen.area((20, 8), (22, 44), (46, 24), fill=colour)
    pen.area((80, 8), (78, 44), (54, 24), fill=colour)
    pen.area((26, 17), (27, 33), (37, 25), fill=(240, 160, 170))
    pen.area((74, 17), (73, 33), (63, 25), fill=(240, 160, 170))
    pen.oval(20, 18, 80, 62, colour)
    pen.oval(32, 32, 45, 44, (150, 230, 90))
    pen.oval(55, 32, 68, 44, (150, 230, 90))
    pen.block(37, 32, 40, 44, INK)
    pen.block(60, 32, 63, 44, INK)
    pen.area((45, 47), (55, 47), (50, 53), fill=(240, 140, 150))
    for side in (-1, 1):
        for y in (46, 54):
            pen.line((50 + 10 * side, 51), (50 + 40 * side, y), fill=WHITE, width=1.6)
    pen.oval(34, 86, 49, 98, shade(colour, 0.3))
    pen.oval(53, 86, 68, 98, shade(colour, 0.3))


def bird(pen: Pen, colour: Colour, state: str) -> None:
    dark = shade(colour, -0.35)
    pen.area((2, 46), (30, 56), (12, 66), fill=dark)
    pen.oval(16, 38, 76, 74, colour)
    pen.oval(30, 52, 70, 73, shade(colour, 0.6))
    pen.disc(74, 42, 15, colour)
    pen.area((86, 36), (100, 43), (86, 49), fill=(250, 180, 30))
    pen.disc(77, 38, 3.4, INK)
    if state == "wings down":
        pen.area((34, 52), (62, 52), (36, 98), (24, 84), fill=dark)
    else:
        pen.area((34, 52), (62, 50), (36, 2), (22, 14), fill=dark)


def fish(pen: Pen, colour: Colour, state: str) -> None:
    dark = shade(colour, -0.3)
    pen.area((2, 26), (30, 50), (2, 76), (12, 50), fill=dark)
    pen.area((40, 32), (56, 12), (70, 30), fill=dark)
    pen.area((46, 68), (54, 84), (64, 68), fill=dark)
    pen.oval(18, 26, 98, 74, colour)
    for x in (40, 54):
        pen.arc(x, 50, 17, -60, 60, shade(colour, 0.65), 4.5)
    pen.disc(83, 44, 6, WHITE)
    pen.disc(84, 44, 3.2, INK)


def butterfly(pen: Pen, colour: Colour, state: str) -> None:
    dark = shade(colour, -0.4)
    for left, right in ((2, 48), (52, 98)):
        pen.oval(left, 8, right, 58, colour)
        pen.oval(left + 8, 46, right - 2 if left < 50 else right - 8, 92, dark)
        middle = (left + right) / 2
        pen.disc(middle, 30, 9, shade(colour, 0.75))
        pen.disc(middle, 68, 6, shade(colour, 0.75))
    pen.line((50, 24), (40, 4), fill=INK, width=2.5)
    pen.line((50, 24), (60, 4), fill=INK, width=2.5)
    pen.block(45, 20, 55, 86, INK, 5)


def snake(pen: Pen, colour: Colour, state: str) -> None:
    path = [(6, 84), (22, 66), (40, 72), (50, 88), (66, 86), (72, 66), (56, 52), (44, 36), (58, 20)]
    pen.line(*path, fill=colour, width=14)
    for x, y in path[:-1]:
        pen.disc(x, y, 4, shade(colour, 0.7))
    pen.oval(54, 8, 86, 32, colour)
    pen.disc(74, 17, 3, INK)
    pen.line((86, 21), (98, 21), fill=(220, 30, 40), width=3)


def turtle(pen: Pen, colour: Colour, state: str) -> None:
    green = (136, 176, 86)
    pen.disc(86, 48, 13, green)
    pen.disc(90, 44, 2.6, INK)
    pen.block(18, 66, 32, 86, green, 5)
    pen.block(60, 66, 74, 86, green, 5)
    pen.area((2, 74), (16, 62), (18, 72), fill=green)
    pen.slice(46, 70, 40, 180, 360, colour)
    pen.block(6, 66, 86, 74, shade(colour, -0.3), 3)
    for x, y in ((30, 54), (46, 44), (62, 54), (46, 60)):
        pen.area(*ring(x, y, 7, 6), fill=shade(colour, -0.35))


def tree(pen: Pen, colour: Colour, state: str) -> None:
    pen.area((42, 98), (45, 50), (55, 50), (58, 98), fill=WOOD)
    for x, y, radius in ((28, 46, 20), (72, 46, 20), (50, 26, 24), (50, 46, 22)):
        pen.disc(x, y, radius, colour)
    for x, y in ((34, 40), (56, 22), (66, 46), (48, 50)):
        pen.disc(x, y, 6, shade(colour, 0.3))


def flower(pen: Pen, colour: Colour, state: str) -> None:
    stem = (40, 140, 50)
    pen.line((50, 50), (50, 96), fill=stem, width=6)
    pen.oval(50, 70, 80, 84, stem)
    pen.oval(20, 76, 50, 90, stem)
    for x, y in ring(50, 32, 19, 6):
        pen.disc(x, y, 12, colour)
    pen.disc(50, 32, 11, (250, 210, 40) if colour[2] > 60 or colour[1] < 150 else (150, 80, 20))


def mushroom(pen: Pen, colour: Colour, state: str) -> None:
    pen.block(36, 48, 64, 96, (240, 226, 200), 10)
    pen.slice(50, 54, 46, 180, 360, colour)
    pen.oval(4, 46, 96, 62, shade(colour, -0.15))
    for x, y, radius in ((28, 36, 7), (54, 24, 8), (74, 40, 7), (46, 44, 5)):
        pen.disc(x, y, radius, WHITE)


def cactus(pen: Pen, colour: Colour, state: str) -> None:
    pen.line((50, 82), (50, 12), fill=colour, width=20)
    pen.line((48, 54), (22, 54), (22, 30), fill=colour, width=12)
    pen.line((52, 62), (78, 62), (78, 38), fill=colour, width=12)
    for x in (44, 50, 56):
        pen.line((x, 14), (x, 74), fill=shade(colour, 0.4), width=1.6)
    pen.area((28, 74), (72, 74), (66, 98), (34, 98), fill=(196, 98, 56))


def cloud(pen: Pen, colour: Colour, state: str) -> None:
    for x, y, radius in ((24, 58, 20), (46, 42, 24), (70, 50, 22), (82, 62, 15)):
        pen.disc(x, y, radius, colour)
    pen.block(14, 58, 90, 77, colour, 9)


def sun(pen: Pen, colour: Colour, state: str) -> None:
    pen.area(*_rays(), fill=(252, 160, 20))
    pen.disc(50, 50, 27, (255, 216, 40))
    pen.disc(41, 46, 3, INK)
    pen.disc(59, 46, 3, INK)
    pen.arc(50, 51, 11, 20, 160, INK, 3)


def _rays() -> list[tuple[float, float]]:
    far = ring(50, 50, 49, 10)
    near = ring(50, 50, 28, 10, 18)
    return [point for pair in zip(far, near, strict=True) for point in pair]


def moon(pen: Pen, colour: Colour, state: str) -> None:
    pen.disc(46, 50, 44, (250, 236, 160))
    pen.clear_disc(68, 40, 38)
    for x, y, radius in ((20, 58, 5), (34, 76, 6), (15, 42, 3)):
        pen.disc(x, y, radius, (222, 200, 110))


def lightning(pen: Pen, colour: Colour, state: str) -> None:
    pen.area(
        (56, 2), (22, 54), (46, 54), (34, 98), (80, 40), (54, 40), (74, 2), fill=(255, 224, 30)
    )


def fire(pen: Pen, colour: Colour, state: str) -> None:
    pen.area(
        (50, 98), (22, 92), (8, 70), (14, 46), (24, 58), (30, 30), (44, 2), (54, 30), (64, 18),
        (72, 44), (80, 34), (92, 66), (78, 92), fill=(226, 50, 20),
    )  # fmt: skip
    pen.area(
        (50, 96), (28, 88), (22, 70), (34, 66), (44, 34), (56, 58), (66, 46), (78, 74), (70, 90),
        fill=(252, 150, 24),
    )  # fmt: skip
    pen.area((50, 96), (36, 86), (40, 70), (50, 54), (62, 76), (60, 90), fill=(255, 238, 110))


def smoke(pen: Pen, colour: Colour, state: str) -> None:
    for x, y, radius, tone in (
        (44, 90, 9, 110), (54, 76, 13, 122), (42, 62, 16, 134), (60, 48, 19, 146),
        (42, 32, 21, 160), (68, 20, 18, 174),
    ):  # fmt: skip
        pen.disc(x, y, radius, (tone, tone, tone + 4))
        pen.arc(x, y, radius - 4, 150, 300, shade(GREY, 0.55), 3)


PAINTERS: dict[str, Callable[[Pen, Colour, str], None]] = {
    "person": person,
    "dog": dog,
    "cat": cat,
    "bird": bird,
    "fish": fish,
    "butterfly": butterfly,
    "snake": snake,
    "turtle": turtle,
    "tree": tree,
    "flower": flower,
    "mushroom": mushroom,
    "cactus": cactus,
    "cloud": cloud,
    "sun": sun,
    "moon": moon,
    "lightning": lightning,
    "fire": fire,
    "smoke": smoke,
}
